"""How well numbered objects agree with true ones, over a whole volume; it is read section by section."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.images import ImageStack, open_labels
from napari_autosegnet.data.section_numbers import parse_sections
from napari_autosegnet.errors import StoppedError, UserError
from napari_autosegnet.events import ProgressMade, Report
from napari_autosegnet.interruption import ShouldStop
from napari_autosegnet.ome_zarr.paths import INSTANCES
from napari_autosegnet.training.metrics import ObjectScores, agreement

#: Intersection over union at which an object counts as found.
FOUND = (0.5, 0.75)
#: Pairs of objects that are kept per section until those of several sections are added up.
PAIRS_AT_ONCE = 2**22

Pairs = npt.NDArray[np.int64]


def evaluate_objects(
    prediction: Path, objects: Path, sections: str | None, report: Report, should_stop: ShouldStop
) -> ObjectScores:
    """Compare the numbered objects of a store, or of a file, with true ones.

    Raises
    ------
    UserError
        When there are none, or the shapes differ.
    StoppedError
        When a stop was asked for before all sections were seen.
    """
    store = prediction / INSTANCES
    if prediction.suffix == ".zarr" and not store.is_dir():
        raise UserError(f"{prediction} has no numbered objects; predict with --instances")
    found, true = open_labels(store if store.is_dir() else prediction), open_labels(objects)
    if found.shape != true.shape:
        raise UserError(f"the objects of {prediction} have the shape {found.shape}, those of {objects} {true.shape}")
    chosen = range(true.sections) if sections is None else parse_sections(sections)
    if max(chosen) >= true.sections:
        raise UserError(f"section {max(chosen)} does not exist; {objects} has sections 0 to {true.sections - 1}")
    return compare_objects(section_pairs(found, true, chosen, report, should_stop))


def compare_objects(pairs: Pairs) -> ObjectScores:
    """Scores of objects, given the voxels (n, 3) of each true object (not 0) and found object (0: none) together.

    Raises
    ------
    UserError
        When there is no true object.
    """
    true, found, voxels = pairs.T
    if not len(true):
        raise UserError("nothing to score: there is no true object here (0 means none); give each one a number")
    true_numbers, true_index = np.unique(true, return_inverse=True)
    found_numbers, found_index = np.unique(found, return_inverse=True)
    true_sizes = np.bincount(true_index, voxels)
    found_sizes = np.bincount(found_index, voxels)
    is_object = found > 0
    v_rand, v_info = agreement(voxels[is_object], found_sizes[found_numbers > 0], true_sizes)
    iou = voxels / (true_sizes[true_index] + found_sizes[found_index] - voxels)
    # Above one half no object has two partners.
    hits = [int((iou[is_object] > least).sum()) for least in FOUND]
    objects, predicted = len(true_numbers), int((found_numbers > 0).sum())
    return ObjectScores(
        objects=objects,
        found=predicted,
        v_rand=v_rand,
        v_info=v_info,
        precision={str(least): hit / max(predicted, 1) for least, hit in zip(FOUND, hits, strict=True)},
        recall={str(least): hit / objects for least, hit in zip(FOUND, hits, strict=True)},
    )


def section_pairs(
    found: ImageStack, true: ImageStack, chosen: Iterable[int], report: Report, should_stop: ShouldStop
) -> Pairs:
    """Voxels of each true object (not 0) and each found one together, as rows (true, found, voxels)."""
    sections = list(chosen)
    parts: list[Pairs] = [np.zeros((0, 3), np.int64)]
    for done, section in enumerate(sections, start=1):
        if should_stop():
            raise StoppedError(f"the evaluation was stopped after {done - 1} of {len(sections)} sections")
        truth = true.section(section)[0]
        counted = truth != 0
        parts.append(_added(truth[counted], found.section(section)[0][counted], np.ones(counted.sum(), np.int64)))
        if sum(map(len, parts[1:])) > max(PAIRS_AT_ONCE, len(parts[0])):
            parts = [_added(*np.concatenate(parts).T)]
        report(ProgressMade(step="objects", done=done, total=len(sections)))
    return _added(*np.concatenate(parts).T)


def _added(true: npt.NDArray[np.integer], found: npt.NDArray[np.integer], voxels: npt.NDArray[np.int64]) -> Pairs:
    """Rows (true, found, voxels) with those of equal objects added up."""
    true_numbers, true_index = np.unique(true, return_inverse=True)
    found_numbers, found_index = np.unique(found, return_inverse=True)
    pairs, place = np.unique(true_index * len(found_numbers) + found_index, return_inverse=True)
    sums = np.bincount(place, voxels, len(pairs))
    one, other = np.divmod(pairs, max(len(found_numbers), 1))
    return np.column_stack([true_numbers[one], found_numbers[other], sums]).astype(np.int64)
