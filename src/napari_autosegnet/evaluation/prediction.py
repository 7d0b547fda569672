"""The score of a prediction that was written before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.annotations import (
    MAX_UNNAMED_CLASSES,
    ClassInfo,
    LabelMapping,
    default_classes,
    name_from_file,
)
from napari_autosegnet.data.images import ImageStack, folder_files, open_image, open_labels, tell_notes
from napari_autosegnet.data.labeled_stacks import pair_stacks
from napari_autosegnet.data.pairs import open_pair, paired_files, tell_pairs
from napari_autosegnet.errors import UserError
from napari_autosegnet.evaluation.scoring import ScoredSection, class_order, describe_order, score, sections_to_score
from napari_autosegnet.events import DataRead, Note, Report, silent
from napari_autosegnet.inference.output.unfinished import unfinished
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.ome_zarr.metadata import OmeGroup
from napari_autosegnet.ome_zarr.paths import LABELS
from napari_autosegnet.plain_text import counted
from napari_autosegnet.training.metrics import Scores


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
        raise UserError("a prediction is scored against one label file; give one --labels and at most one --image")
    if overlays is not None and not images:
        raise UserError("overlays show the prediction on its image; give --image too")
    store = prediction / LABELS
    predicted, marks, picture = _opened(
        store if store.is_dir() else prediction, labels[0], images[0] if images else None, report
    )
    if predicted.dtype.kind not in "ui":
        raise UserError(_no_prediction(predicted, f"holds {predicted.dtype} values"))
    # Three alike are a gray picture that was saved with colors.
    if predicted.channels not in (1, 3):
        raise UserError(_no_prediction(predicted, f"has {predicted.channels} channels"))
    # The labels are paired with the prediction, which is refused if its shape is another.
    stack = pair_stacks([predicted], [marks], classes)[0]
    tell_pairs([stack], report)
    if picture is not None:
        _check_picture(picture, predicted)
    missing = unfinished(predicted.path) if predicted.path is not None else None
    if missing is not None and sections is None:
        raise UserError(f"{missing}; finish it with the command that made it, or score some --sections")
    if missing is not None:
        report(Note(text=missing))
    tell_notes([predicted, stack.labels, *([] if picture is None else [picture])], report)
    mapping, names = _named(stack.mapping, stored_names(prediction), given=classes is not None)
    order = class_order(mapping.classes, names)
    report(DataRead(text=describe_order(mapping, order), classes=tuple(names)))
    chosen = sections_to_score([stack], sections, report)
    reader = _PredictionReader(predicted, len(names), report)

    def scored() -> Iterator[ScoredSection]:
        for _, section in chosen:
            yield ScoredSection(
                truth=order[stack.target(section)],
                prediction=reader.section(section),
                probabilities=None,
                image=picture.section(section) if picture is not None and overlays else None,
                name=f"{predicted.name}-{section:04d}",
            )

    return score(scored(), len(chosen), _infos(mapping, names), overlays, report, should_stop)


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
            When it looks like gray values or instances.
        """
        values = self._prediction.section(index)
        if values.shape[0] > 1 and not (values == values[:1]).all():
            raise UserError(_no_prediction(self._prediction, f"has {self._prediction.channels} channels"))
        numbers: npt.NDArray[np.int64] = values[0].astype(np.int64)
        strange = (numbers < 0) | (numbers > self._classes)
        others = np.unique(numbers[strange])
        if len(others) > MAX_UNNAMED_CLASSES:
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
        numbers[strange] = 0
        return numbers - 1


def _no_prediction(stack: ImageStack, what: str) -> str:
    return (
        f"{stack.display_name} {what}, but a prediction holds class numbers 1 to K (0: none) as whole numbers; "
        "give labels as predict writes them, not probabilities or gray values"
    )


def _check_picture(picture: ImageStack, predicted: ImageStack) -> None:
    """Refuse an image that the prediction is not of."""
    ours, theirs = picture.display_name, predicted.display_name
    if picture.sections != predicted.sections:
        raise UserError(
            f"{ours} has {counted(picture.sections, 'section')} and the prediction {theirs} has {predicted.sections}; "
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
    return mapping.model_copy(update={"classes": shown}), stored


def _infos(mapping: LabelMapping, names: Sequence[str]) -> tuple[ClassInfo, ...]:
    """The prediction's classes, in the colors of the labels' ones where those are the same."""
    known = {info.name: info for info in mapping.classes}
    return tuple(known[name] for name in names) if known.keys() == set(names) else default_classes(names)


def stored_names(prediction: Path) -> list[str] | None:
    """Class names in the order of their numbers, from the metadata of a store that `predict` wrote; None elsewhere.

    ``prediction`` is the store, its ``labels/segmentation``, or a level of that.
    """
    if not prediction.is_dir():
        return None
    folders = (prediction / LABELS, prediction, prediction.absolute().parent)
    return next((names for folder in folders if (names := _numbered_names(OmeGroup.read(folder).class_names))), None)


def _numbered_names(named: Mapping[int, str]) -> list[str] | None:
    """Names of the classes 1..K, if they are all there and differ."""
    names = [name_from_file(named.get(number, "")) for number in range(1, len(named) + 1)]
    return names if names and all(names) and len(set(names)) == len(names) else None
