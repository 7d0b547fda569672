"""Sections with their truth, and the score of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_autosegnet.data.annotations import BOUNDARY_WORDS, ClassInfo, LabelMapping
from napari_autosegnet.data.labeled_stacks import LabeledStack, annotated_pixels
from napari_autosegnet.data.split import parse_sections
from napari_autosegnet.errors import StoppedError, UserError
from napari_autosegnet.evaluation.overlays import draw_overlay
from napari_autosegnet.events import Note, ProgressMade, Report
from napari_autosegnet.interruption import ShouldStop
from napari_autosegnet.training.metrics import Calibration, ConfusionMatrix, Scores, boundary_scores


@dataclass
class ScoredSection:
    """What is scored of a section; all (y, x)."""

    truth: npt.NDArray[np.int64]
    prediction: npt.NDArray[np.int64]
    #: (K, y, x), or None where only labels are at hand.
    probabilities: npt.NDArray[np.float32] | None
    #: (c, y, x) gray values for an overlay, or None.
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
    boundaries = [index for index, name in enumerate(names) if any(word in name.lower() for word in BOUNDARY_WORDS)]
    return boundaries[0] if len(boundaries) == 1 else None


def score(
    sections: Iterator[ScoredSection | None],
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
            draw_overlay(section.image, section.prediction, section.truth, classes, overlays / f"{section.name}.png")
    if done < total:
        # The score of some sections would be taken for that of all.
        raise StoppedError(f"the evaluation was stopped after {done} of {total} sections, so there is no score")
    if missing == total:
        raise UserError("nothing to score: the sections are constant (missing); choose sections with an image")
    if missing:
        report(Note(text=f"{missing} of {total} sections are constant (missing) and left out"))
    agreement = None
    if boundary is not None:
        agreement = boundary_scores(
            [p.astype(np.float32) for p in boundary.probabilities],
            boundary.truth,
            boundary.index,
            report=report,
            should_stop=should_stop,
        )
        if agreement is None and should_stop():
            raise StoppedError("the evaluation was stopped before V_rand and V_info were known, so there is no score")
    error = calibration.error if calibrated else None
    return matrix.scores(names, sections=done - missing, boundary=agreement, expected_calibration_error=error)


def sections_to_score(stacks: Sequence[LabeledStack], sections: str | None, report: Report) -> list[tuple[int, int]]:
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


def class_order(classes: Sequence[ClassInfo], names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Lookup from class numbers 0..K of the labels to class indices of ``names``, -1 where not annotated."""
    unknown = [c.name for c in classes if c.name not in names]
    if unknown:
        raise UserError(
            f"the prediction has no class '{unknown[0]}' (it has {', '.join(names)}); name its classes in --classes"
        )
    return np.array([-1, *(list(names).index(c.name) for c in classes)], dtype=np.int64)


def describe_order(mapping: LabelMapping, order: npt.NDArray[np.int64]) -> str:
    """One line for the user, with the class numbers of what is scored: the labels' names may come in another order."""
    parts = [
        f"{value} -> {order[number] + 1} {mapping.classes[number - 1].name}"
        for value, number in mapping.written().items()
    ]
    return ", ".join([*parts, "everything else not annotated"])
