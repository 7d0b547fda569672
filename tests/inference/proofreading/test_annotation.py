from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_autosegnet import api
from napari_autosegnet.errors import StoppedError, UserError
from napari_autosegnet.inference.proofreading import annotation
from napari_autosegnet.inference.proofreading.annotation import annotation_of_edits
from napari_autosegnet.inference.proofreading.proofreading import Proofreading
from napari_autosegnet.units import Placement
from object_stores import write_classes, write_objects

CUBES = Placement((4.0, 4.0, 4.0), (0.0, 0.0, 0.0), "nanometer")
NAMES = ["membrane", "cell", "background"]
MEMBRANE, CELL, BACKGROUND = 1, 2, 3


def cells() -> np.ndarray:
    """A cell (z, y, x) that a false boundary parts into 1 and 2, its true neighbor 3, and a crumb 4."""
    objects = np.zeros((6, 40, 68), np.uint32)
    objects[:, 4:24, 4:24] = 1
    objects[:, 4:24, 27:50] = 2
    objects[:, 27:38, 4:50] = 3
    objects[2:4, 10:12, 64:67] = 4
    return objects


def make(store: Path, objects: np.ndarray, names: list[str] = NAMES, **more: object) -> Path:
    write_objects(store, objects, CUBES, **more)
    write_classes(store, np.where(objects > 0, CELL, MEMBRANE).astype(np.uint8), names, ["cell"])
    return store


def painted(objects: Proofreading) -> np.ndarray:
    labels = np.zeros(objects.levels[0].shape, np.uint8)
    annotation_of_edits(objects).paint(labels)
    return labels


def test_the_inside_of_a_merge_becomes_cell_and_its_contour_stays_unpainted(tmp_path: Path) -> None:
    objects = Proofreading(make(tmp_path / "cells.zarr", cells()))
    assert not painted(objects).any()
    objects.merge([1, 2])
    labels = painted(objects)
    assert set(np.unique(labels)) == {0, CELL}
    assert (labels[:, 5:23, 24:27] == CELL).all(), "the gap"
    _, y, x = np.nonzero(labels)
    assert y.min() == 4 and y.max() == 23, "the true boundary around its ends"
    assert x.min() >= 27 - annotation.REACH and x.max() < 24 + annotation.REACH, "no more than what lies beside it"
    # Objects that do not meet say nothing, and a line says so.
    objects.merge([1, 4])
    found = annotation_of_edits(objects)
    assert found.notes == ("the objects 1, 4 do not meet; nothing is painted there",)
    np.testing.assert_array_equal(painted(objects), labels)
    objects.undo()
    objects.undo()
    assert not painted(objects).any()


@pytest.mark.parametrize("kind", ["3D", "2D"])
def test_a_cut_becomes_boundary_and_what_was_deleted_background(tmp_path: Path, kind: str) -> None:
    before = np.where(cells() == 2, 1, cells())
    before[:, 4:24, 24:27] = 1
    objects = Proofreading(make(tmp_path / "cells.zarr", before if kind == "3D" else before[3]))
    section = 3 if kind == "3D" else 0
    new = objects.split([(section, 8, 12), (section, 18, 12)], [(section, 8, 40), (section, 18, 40)])
    parts = np.asarray(objects.levels[0])
    objects.delete([4])
    labels = painted(objects)
    across = (parts[..., 1:] == new) & (parts[..., :-1] == 1)
    along = (parts[..., 1:, :] == new) != (parts[..., :-1, :] == new)
    along &= np.isin(parts[..., 1:, :], (1, new)) & np.isin(parts[..., :-1, :], (1, new))
    cut = np.zeros(parts.shape, bool)
    cut[..., 1:] |= across
    cut[..., :-1] |= across
    cut[..., 1:, :] |= along
    cut[..., :-1, :] |= along
    assert cut[..., 4:24, :].any(axis=-1)[..., :20].all(), "from one side to the other"
    np.testing.assert_array_equal(labels == MEMBRANE, cut)
    np.testing.assert_array_equal(labels == BACKGROUND, (before if kind == "3D" else before[3]) == 4)
    # A later edit lies on top: what was cut and merged again is cell.
    objects.merge([1, new])
    assert (painted(objects)[cut] == CELL).all()


def test_what_is_painted_stays_and_what_edits_painted_can_be_taken_back(tmp_path: Path) -> None:
    store = make(tmp_path / "cells.zarr", cells())
    Proofreading(store).merge([1, 2])
    own = np.zeros(cells().shape, np.uint8)
    own[:, 10:14, 20:30] = MEMBRANE
    labels = own.copy()
    places = api.use_edits(store, labels)
    assert (labels[own > 0] == MEMBRANE).all() and (labels == CELL).sum() == len(places) > 0
    assert len(api.use_edits(store, labels)) == 0
    labels[tuple(places.T)] = 0
    np.testing.assert_array_equal(labels, own)
    assert set(annotation_of_edits(Proofreading(store)).numbered({CELL: 7})) == {7}
    with pytest.raises(UserError, match=r"has the shape \(2, 2\), the objects"):
        api.use_edits(store, np.zeros((2, 2), np.uint8))
    with pytest.raises(StoppedError):
        annotation_of_edits(Proofreading(store), lambda: True)


def test_what_the_model_has_no_class_for_and_what_is_too_much_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = Proofreading(make(tmp_path / "two.zarr", cells(), NAMES[:2]))
    objects.delete([4])
    assert not painted(objects).any(), "what is no cell is not a membrane"
    assert "no class of the model is background" in annotation_of_edits(objects).notes[0]
    objects.merge([1, 2])
    monkeypatch.setattr(annotation, "MAX_VOXELS", 100)
    assert "what edit 2 says is too much to paint" in annotation_of_edits(objects).notes[1]
    assert not painted(objects).any()
    bare = Proofreading(write_objects(tmp_path / "bare.zarr", cells(), CUBES))
    bare.merge([1, 2])
    with pytest.raises(UserError, match="does not say which classes its objects are of"):
        annotation_of_edits(bare)


def test_blocks_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = Proofreading(make(tmp_path / "cells.zarr", cells()))
    objects.merge([1, 3, 2])
    objects.delete([4])
    at_once = painted(objects)
    assert (at_once == CELL).sum() > 3000
    tiles_of = annotation.tiles_of
    monkeypatch.setattr(annotation, "tiles_of", lambda core: tiles_of(core, (4, 25, 30)))
    np.testing.assert_array_equal(painted(objects), at_once)
