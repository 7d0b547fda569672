"""Scores of a model or of a prediction against labels.

Both are scored section by section, so a stack of any length needs the memory of a few sections.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_autosegnet.config import PredictSettings
from napari_autosegnet.data.annotations import (
    BOUNDARY_WORDS,
    ClassInfo,
    LabelledStack,
    LabelMapping,
    open_labelled,
    pair_stacks,
)
from napari_autosegnet.data.images import open_image, open_labels
from napari_autosegnet.data.split import parse_sections
from napari_autosegnet.errors import UserError
from napari_autosegnet.model import Model
from napari_autosegnet.run import Report, ShouldStop, never_stop, silent
from napari_autosegnet.training.metrics import Calibration, ConfusionMatrix, Scores, boundary_scores
from napari_autosegnet.training.trainer import choose_device


@dataclass
class _Section:
    """What is scored of a section; all (y, x)."""

    truth: npt.NDArray[np.int64]
    prediction: npt.NDArray[np.int64]
    #: (K, y, x), or None where only labels are at hand.
    probabilities: npt.NDArray[np.float32] | None
    #: (c, y, x) grey values for an overlay, or None.
    image: npt.NDArray[Any] | None
    name: str


@dataclass
class _Boundary:
    """Boundary probabilities and truth that are kept until all sections are there."""

    index: int
    probabilities: list[npt.NDArray[np.float16]] = field(default_factory=list)
    truth: list[npt.NDArray[np.int64]] = field(default_factory=list)


def boundary_class(names: Sequence[str]) -> int | None:
    """Index of the class that separates objects, by its name; None when there is not exactly one."""
    found = [index for index, name in enumerate(names) if any(word in name.lower() for word in BOUNDARY_WORDS)]
    return found[0] if len(found) == 1 else None


def evaluate_model(
    model: Path,
    images: Sequence[Path],
    labels: Sequence[Path],
    *,
    classes: str | None = None,
    sections: str | None = None,
    overlays: Path | None = None,
    device: str = "auto",
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> Scores:
    """Apply a model to labelled images and score it; see `api.evaluate`."""
    from napari_autosegnet.inference.volume import check_image, make_predictor, predict_section

    loaded = Model.load(model)
    if classes is None:
        mapping = _trained_mapping(loaded)
        stacks = pair_stacks([open_image(p) for p in images], [open_labels(p) for p in labels], mapping)
    else:
        stacks = open_labelled(images, labels, classes)
    order = _order(stacks[0].mapping.classes, [c.name for c in loaded.classes])
    report("data", text=stacks[0].mapping.describe(), classes=[c.name for c in loaded.classes])
    predictor = make_predictor(loaded, choose_device(device), PredictSettings(), report)
    for stack in stacks:
        check_image(loaded, stack.image)

    def found() -> Iterator[_Section]:
        for stack, section in _chosen(stacks, sections):
            result = predict_section(predictor, stack.image, section, should_stop=should_stop)
            if result is None:
                return
            yield _Section(
                order[stack.target(section)],
                result[0].astype(np.int64) - 1,
                result[1],
                stack.image.section(section) if overlays else None,
                f"{stack.image.name}-{section:04d}",
            )

    total = len(_chosen(stacks, sections))
    return _score(found(), total, loaded.classes, overlays, report, should_stop)


def evaluate_prediction(
    prediction: Path,
    labels: Sequence[Path],
    *,
    images: Sequence[Path] = (),
    classes: str | None = None,
    sections: str | None = None,
    overlays: Path | None = None,
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> Scores:
    """Score a label image with class numbers 1..K; see `api.evaluate`."""
    if len(labels) != 1:
        raise UserError("a prediction is scored against one label file; give one --labels")
    store = prediction / "labels" / "segmentation"
    predicted = open_labels(store if store.is_dir() else prediction)
    # The labels are paired with the prediction, which is refused if its shape is another.
    stack = pair_stacks([predicted], [open_labels(labels[0])], classes)[0]
    picture = open_image(images[0]) if images else None
    if overlays is not None and picture is None:
        raise UserError("overlays show the prediction on its image; give --image too")
    names = _stored_names(prediction) or [c.name for c in stack.mapping.classes]
    if classes is None and len(names) == len(stack.mapping.classes):
        shown = tuple(c.model_copy(update={"name": n}) for c, n in zip(stack.mapping.classes, names, strict=True))
        order = _order(shown, names)
    else:
        shown = stack.mapping.classes
        order = _order(shown, names)
    report("data", text=stack.mapping.describe(), classes=names)
    by_name = {c.name: c for c in shown}
    infos = tuple(by_name[name] for name in names)

    def found() -> Iterator[_Section]:
        for _, section in _chosen([stack], sections):
            yield _Section(
                order[stack.target(section)],
                predicted.section(section)[0].astype(np.int64) - 1,
                None,
                picture.section(section) if picture is not None and overlays else None,
                f"{predicted.name}-{section:04d}",
            )

    return _score(found(), len(_chosen([stack], sections)), infos, overlays, report, should_stop)


def _score(
    sections: Iterator[_Section],
    total: int,
    classes: Sequence[ClassInfo],
    overlays: Path | None,
    report: Report,
    should_stop: ShouldStop,
) -> Scores:
    names = [c.name for c in classes]
    matrix, calibration = ConfusionMatrix(len(names)), Calibration()
    index = boundary_class(names)
    boundary = None if index is None else _Boundary(index)
    calibrated = False
    for number, section in enumerate(sections, start=1):
        matrix.add(section.prediction, section.truth)
        if section.probabilities is not None:
            calibrated = True
            calibration.add(torch.from_numpy(section.probabilities)[None], torch.from_numpy(section.truth)[None])
        if boundary is not None:
            if section.probabilities is not None:
                values = section.probabilities[boundary.index]
            else:
                values = (section.prediction == boundary.index).astype(np.float32)
            boundary.probabilities.append(values.astype(np.float16))
            boundary.truth.append(section.truth)
        if overlays is not None and section.image is not None:
            _draw(section, classes, overlays)
        report("progress", done=number, total=total)
        if should_stop():
            break
    found = None
    if boundary is not None:
        found = boundary_scores(
            [p.astype(np.float32) for p in boundary.probabilities],
            boundary.truth,
            boundary.index,
            report=report,
            should_stop=should_stop,
        )
    return matrix.scores(names, boundary=found, expected_calibration_error=calibration.error if calibrated else None)


def _draw(section: _Section, classes: Sequence[ClassInfo], folder: Path) -> None:
    from napari_autosegnet.figures import overlay

    assert section.image is not None
    folder.mkdir(parents=True, exist_ok=True)
    overlay(
        section.image.mean(axis=0),
        (section.prediction + 1).astype(np.uint8),
        classes,
        folder / f"{section.name}.png",
        truth=(section.truth + 1).astype(np.uint8),
    )


def _chosen(stacks: Sequence[LabelledStack], sections: str | None) -> list[tuple[LabelledStack, int]]:
    wanted = None if sections is None else parse_sections(sections)
    if wanted is not None:
        most = min(stack.labels.sections for stack in stacks)
        if wanted and max(wanted) >= most:
            raise UserError(f"section {max(wanted)} does not exist; the labels have sections 0 to {most - 1}")
    return [
        (stack, section) for stack in stacks for section in (range(stack.labels.sections) if wanted is None else wanted)
    ]


def _order(classes: Sequence[ClassInfo], names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Lookup from class numbers 0..K of the labels to class indices of ``names``, -1 where not annotated."""
    unknown = [c.name for c in classes if c.name not in names]
    if unknown:
        raise UserError(
            f"the prediction has no class '{unknown[0]}' (it has {', '.join(names)}); name its classes in --classes"
        )
    return np.array([-1, *(list(names).index(c.name) for c in classes)], dtype=np.int64)


def _trained_mapping(model: Model) -> LabelMapping:
    values = model.description.training.get("label_values")
    if not isinstance(values, dict):
        raise UserError("the model does not say how label values are read; give --classes")
    return LabelMapping(classes=model.classes, values={int(value): int(number) for value, number in values.items()})


def _stored_names(prediction: Path) -> list[str] | None:
    """Class names in the order of their numbers, from the metadata of a store that `predict` wrote."""
    import json

    for metadata in ("zarr.json", ".zattrs"):
        file = prediction / "labels" / "segmentation" / metadata
        if file.is_file():
            content = json.loads(file.read_text(encoding="utf-8"))
            attributes = content.get("attributes", content)
            label = attributes.get("ome", attributes).get("image-label", {})
            named = {p["label-value"]: p["name"] for p in label.get("properties", []) if "name" in p}
            return [named[number] for number in sorted(named)] or None
    return None
