"""Scores of a model or of a prediction against labels.

Both are scored section by section, so a stack of any length needs the memory of a few sections.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_autosegnet.data.annotations import (
    BOUNDARY_WORDS,
    MOST_UNNAMED_CLASSES,
    ClassInfo,
    LabelledStack,
    LabelMapping,
    annotated_pixels,
    default_classes,
    name_from_file,
    open_labelled,
    pair_stacks,
)
from napari_autosegnet.data.images import ImageStack, folder_files, open_image, open_labels, tell_notes
from napari_autosegnet.data.pairs import open_pair, paired_files, tell_pairs
from napari_autosegnet.data.selection import ALL, Selection
from napari_autosegnet.data.split import parse_sections
from napari_autosegnet.device import choose_device
from napari_autosegnet.errors import StoppedError, UserError
from napari_autosegnet.events import DataRead, Note, ProgressMade, Report, silent
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.model import Model
from napari_autosegnet.settings import GreyValuesChoice, PredictSettings
from napari_autosegnet.training.metrics import Calibration, ConfusionMatrix, Scores, boundary_scores


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
    read: Selection = ALL,
    sections: str | None = None,
    overlays: Path | None = None,
    grey_values: GreyValuesChoice = "checked",
    device: str = "auto",
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> Scores:
    """Apply a model to labelled images and score it; see `api.evaluate`."""
    from napari_autosegnet.inference.volume import checked_survey, make_predictor, predict_section

    loaded = Model.load(model)
    stacks = open_labelled(images, labels, _trained_mapping(loaded) if classes is None else classes, read)
    tell_pairs(stacks, report)
    tell_notes([each for stack in stacks for each in (stack.image, stack.labels)], report)
    order = _order(stacks[0].mapping.classes, [c.name for c in loaded.classes])
    report(DataRead(text=_describe(stacks[0].mapping, order), classes=tuple(c.name for c in loaded.classes)))
    chosen = _chosen(stacks, sections, report)
    predictor = make_predictor(loaded, choose_device(device), PredictSettings(), report)
    surveys = [checked_survey(loaded, stack.image, grey_values, report) for stack in stacks]
    names = picture_names([stack.image for stack in stacks])

    def found() -> Iterator[_Section | None]:
        for number, section in chosen:
            stack = stacks[number]
            result = predict_section(predictor, stack.image, section, survey=surveys[number], should_stop=should_stop)
            if result is None:
                return
            yield (
                None
                if surveys[number].is_constant(section)
                else _Section(
                    order[stack.target(section)],
                    result[0].astype(np.int64) - 1,
                    result[1],
                    stack.image.section(section) if overlays else None,
                    f"{names[number]}-{section:04d}",
                )
            )

    return _score(found(), len(chosen), loaded.classes, overlays, report, should_stop)


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
    if len(labels) != 1 or len(images) > 1:
        raise UserError("a prediction is scored against one label file; give one --labels, and at most one --image")
    if overlays is not None and not images:
        raise UserError("overlays show the prediction on its image; give --image too")
    store = prediction / "labels" / "segmentation"
    predicted, marks, picture = _opened(
        store if store.is_dir() else prediction, labels[0], images[0] if images else None, report
    )
    if predicted.dtype.kind not in "ui":
        raise UserError(_no_prediction(predicted, f"holds {predicted.dtype} values"))
    # Three alike are a grey picture that was saved with colours.
    if predicted.channels not in (1, 3):
        raise UserError(_no_prediction(predicted, f"has {predicted.channels} channels"))
    # The labels are paired with the prediction, which is refused if its shape is another.
    stack = pair_stacks([predicted], [marks], classes)[0]
    tell_pairs([stack], report)
    if picture is not None:
        _check_picture(picture, predicted)
    tell_notes([predicted, stack.labels, *([] if picture is None else [picture])], report)
    mapping, names = _named(stack.mapping, stored_names(prediction), given=classes is not None)
    order = _order(mapping.classes, names)
    report(DataRead(text=_describe(mapping, order), classes=tuple(names)))
    chosen = _chosen([stack], sections, report)
    reader = _PredictionReader(predicted, len(names), report)

    def found() -> Iterator[_Section]:
        for _, section in chosen:
            yield _Section(
                order[stack.target(section)],
                reader.section(section),
                None,
                picture.section(section) if picture is not None and overlays else None,
                f"{predicted.name}-{section:04d}",
            )

    return _score(found(), len(chosen), _infos(mapping, names), overlays, report, should_stop)


def _opened(
    prediction: Path, labels: Path, image: Path | None, report: Report
) -> tuple[ImageStack, ImageStack, ImageStack | None]:
    """Prediction, labels and image with their sections in one order."""
    if image is not None and folder_files(prediction) is None:
        # A file without names has the sections in the order of the image's.
        picture, marks = open_pair(image, labels)
        return open_labels(prediction), marks, picture
    ours, theirs = paired_files(prediction, labels)
    if folder_files(labels) is not None and folder_files(prediction) is None:
        advice = "give --image to pair them with the image's"
        report(Note(text=f"the files of {labels} are taken in the order of their names; {advice}"))
    pictured = None if image is None else open_image(image, files=paired_files(prediction, image)[1])
    return open_labels(prediction, files=ours), open_labels(labels, files=theirs), pictured


class _PredictionReader:
    """Class indices of a prediction's sections, -1 where it has none of the classes."""

    def __init__(self, prediction: ImageStack, classes: int, report: Report) -> None:
        self._prediction = prediction
        self._classes = classes
        self._report = report
        self._told = False

    def section(self, index: int) -> npt.NDArray[np.int64]:
        """Section ``(y, x)``.

        Raises
        ------
        UserError
            When it looks like grey values or instances.
        """
        values = self._prediction.section(index)
        if values.shape[0] > 1 and not (values == values[:1]).all():
            raise UserError(_no_prediction(self._prediction, f"has {self._prediction.channels} channels"))
        found: npt.NDArray[np.int64] = values[0].astype(np.int64)
        strange = (found < 0) | (found > self._classes)
        others = np.unique(found[strange])
        if len(others) > MOST_UNNAMED_CLASSES:
            raise UserError(
                _no_prediction(self._prediction, f"has {len(others)} other values, such as {int(others[0])}")
            )
        if len(others) and not self._told:
            self._told = True
            shown = ", ".join(map(str, others[:8].tolist()))
            self._report(
                Note(
                    text=f"the prediction holds {shown} beside the class numbers 1 to {self._classes}; "
                    "such pixels count as missed",
                )
            )
        found[strange] = 0
        return found - 1


def _no_prediction(stack: ImageStack, what: str) -> str:
    return (
        f"{stack.path or stack.name} {what}, but a prediction holds class numbers 1 to K (0: none) as whole numbers; "
        "give labels as predict writes them, not probabilities or grey values"
    )


def _check_picture(picture: ImageStack, predicted: ImageStack) -> None:
    """Refuse an image that the prediction is not of."""
    ours, theirs = picture.path or picture.name, predicted.path or predicted.name
    if picture.sections != predicted.sections:
        raise UserError(
            f"{ours} has {picture.sections} sections and the prediction {theirs} has {predicted.sections}; "
            "give the image that was segmented"
        )
    for section in range(picture.sections):
        if picture.section_shape(section) != predicted.section_shape(section):
            sizes = ("x".join(map(str, stack.section_shape(section))) for stack in (picture, predicted))
            raise UserError(
                f"section {section} of {ours} is {next(sizes)} pixels and of the prediction {theirs} {next(sizes)}; "
                "give the image that was segmented"
            )


def _named(mapping: LabelMapping, stored: list[str] | None, *, given: bool) -> tuple[LabelMapping, list[str]]:
    """How the labels are read, and the names of the prediction's class numbers.

    A store knows its names. Labels without names are then taken to have the same classes in the same order, as
    a training without names would have numbered them; other files have the names in the order of ``--classes``.
    """
    own = [each.name for each in mapping.classes]
    if stored is None:
        return mapping, own
    if given:
        return mapping, stored
    if len(stored) != len(own):
        raise UserError(
            f"the prediction has {len(stored)} classes ({', '.join(stored)}) and the labels {len(own)} that have no "
            f"names ({mapping.describe()}); say which value is which class: --classes "
            + ",".join(f"VALUE:{name}" for name in stored)
        )
    shown = tuple(c.model_copy(update={"name": n}) for c, n in zip(mapping.classes, stored, strict=True))
    return LabelMapping(classes=shown, values=mapping.values), stored


def _infos(mapping: LabelMapping, names: Sequence[str]) -> tuple[ClassInfo, ...]:
    """The prediction's classes, in the colours of the labels' ones where those are the same."""
    known = {info.name: info for info in mapping.classes}
    return tuple(known[name] for name in names) if known.keys() == set(names) else default_classes(names)


def picture_names(images: Sequence[ImageStack]) -> list[str]:
    """A name for the pictures of each image: its own; with its folder's, and a number, where several are alike."""
    names = [image.name for image in images]

    def alike() -> set[str]:
        # Not all file systems tell A from a.
        counts = Counter(name.lower() for name in names)
        return {name for name, count in counts.items() if count > 1}

    twice = alike()
    for index, image in enumerate(images):
        folder = image.path.absolute().parent.name if image.path is not None else ""
        if names[index].lower() in twice and folder:
            names[index] = f"{folder}-{names[index]}"
    taken: set[str] = set()
    twice = alike()
    for index, name in enumerate(names):
        number = 1
        while names[index].lower() in taken or (number == 1 and name.lower() in twice):
            names[index] = f"{name}-{number}"
            number += 1
        taken.add(names[index].lower())
    return names


def _score(
    sections: Iterator[_Section | None],
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
    done = missing = 0
    for section in sections:
        if should_stop():
            break
        done += 1
        report(ProgressMade(step="evaluate", done=done, total=total))
        if section is None:
            missing += 1
            continue
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
    if done < total:
        # The score of some sections would be taken for that of all.
        raise StoppedError(f"the evaluation was stopped after {done} of {total} sections, so there is no score")
    if missing == total:
        raise UserError("nothing to score: the sections are constant (missing); choose sections with an image")
    if missing:
        report(Note(text=f"{missing} of {total} sections are constant (missing) and left out"))
    found = None
    if boundary is not None:
        found = boundary_scores(
            [p.astype(np.float32) for p in boundary.probabilities],
            boundary.truth,
            boundary.index,
            report=report,
            should_stop=should_stop,
        )
        if found is None and should_stop():
            raise StoppedError("the evaluation was stopped before V_rand and V_info were known, so there is no score")
    error = calibration.error if calibrated else None
    return matrix.scores(names, sections=done - missing, boundary=found, expected_calibration_error=error)


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


def _chosen(stacks: Sequence[LabelledStack], sections: str | None, report: Report) -> list[tuple[int, int]]:
    """Stack and section, by their numbers, of all that is scored: where nothing is annotated nothing is computed."""
    wanted = None if sections is None else parse_sections(sections)
    if wanted is not None:
        most = min(stack.labels.sections for stack in stacks)
        if wanted and max(wanted) >= most:
            raise UserError(f"section {max(wanted)} does not exist; the labels have sections 0 to {most - 1}")
    chosen = [
        (number, section)
        for number, stack in enumerate(stacks)
        for section in (range(stack.labels.sections) if wanted is None else wanted)
    ]
    annotated = [(number, section) for number, section in chosen if annotated_pixels(stacks[number])[section].any()]
    if not annotated:
        raise UserError("nothing to score: no pixel is annotated here; choose sections with labels")
    if len(annotated) < len(chosen):
        report(Note(text=f"{len(chosen) - len(annotated)} of {len(chosen)} sections are not annotated and left out"))
    return annotated


def _order(classes: Sequence[ClassInfo], names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Lookup from class numbers 0..K of the labels to class indices of ``names``, -1 where not annotated."""
    unknown = [c.name for c in classes if c.name not in names]
    if unknown:
        raise UserError(
            f"the prediction has no class '{unknown[0]}' (it has {', '.join(names)}); name its classes in --classes"
        )
    return np.array([-1, *(list(names).index(c.name) for c in classes)], dtype=np.int64)


def _describe(mapping: LabelMapping, order: npt.NDArray[np.int64]) -> str:
    """One line for the user, with the class numbers of what is scored: the labels' names may come in another order."""
    parts = [
        f"{value} -> {order[number] + 1} {mapping.classes[number - 1].name}" for value, number in mapping.values.items()
    ]
    return ", ".join([*parts, "everything else not annotated"])


def _trained_mapping(model: Model) -> LabelMapping:
    values = model.description.training.get("label_values")
    if not isinstance(values, dict):
        raise UserError("the model does not say how label values are read; give --classes")
    return LabelMapping(classes=model.classes, values={int(value): int(number) for value, number in values.items()})


def stored_names(prediction: Path) -> list[str] | None:
    """Class names in the order of their numbers, from the metadata of a store that `predict` wrote; None elsewhere.

    ``prediction`` is the store, its ``labels/segmentation``, or a level of that.
    """
    if not prediction.is_dir():
        return None
    for folder in (prediction / "labels" / "segmentation", prediction, prediction.absolute().parent):
        for metadata in ("zarr.json", ".zattrs"):
            try:
                content = json.loads((folder / metadata).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            names = _label_names(content)
            if names is not None:
                return names
    return None


def _label_names(content: Any) -> list[str] | None:
    """Names of the classes 1..K in the ``image-label`` metadata of an OME-Zarr group, if they are all there."""
    for key in ("attributes", "ome"):  # of Zarr 3; of OME-Zarr 0.5
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    label = content.get("image-label") if isinstance(content, Mapping) else None
    properties = label.get("properties") if isinstance(label, Mapping) else None
    named: dict[int, str] = {}
    for each in properties if isinstance(properties, list) else []:
        if isinstance(each, Mapping) and isinstance(each.get("label-value"), int):
            # "name" is what other programs call it.
            name = each.get("class", each.get("name"))
            named[each["label-value"]] = name_from_file(name) if isinstance(name, str) else ""
    names = [named.get(number, "") for number in range(1, len(named) + 1)]
    return names if names and all(names) and len(set(names)) == len(names) else None
