"""Sections with their truth, and the score of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_autosegnet.data.annotations import BOUNDARY_WORDS, ClassInfo, LabelMapping
from napari_autosegnet.data.labeled_stacks import LabeledStack
from napari_autosegnet.data.section_numbers import parse_sections
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


def _boundary_class(names: Sequence[str]) -> int | None:
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
    """Score sections one by one; None stands for a constant one, which is left out.

    Raises
    ------
    StoppedError
        When a stop was asked for: the score of some sections would be taken for that of all.
    UserError
        When all sections are constant.
    """
    tally = _Tally([info.name for info in classes])
    done = missing = 0
    for section in sections:
        if should_stop():
            break
        done += 1
        report(ProgressMade(step="evaluate", done=done, total=total))
        if section is None:
            missing += 1
            continue
        tally.add(section)
        if overlays is not None and section.image is not None:
            draw_overlay(section.image, section.prediction, section.truth, classes, overlays / f"{section.name}.png")
    if done < total:
        raise StoppedError(f"the evaluation was stopped after {done} of {total} sections, so there is no score")
    if missing == total:
        raise UserError("nothing to score: the sections are constant (missing); choose sections with an image")
    if missing:
        report(Note(text=f"{missing} of {total} sections are constant (missing) and left out"))
    return tally.scores(done - missing, report, should_stop)


class _Tally:
    """What is added up of all sections."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._matrix, self._calibration = ConfusionMatrix(len(names)), Calibration()
        self._is_calibrated = False
        self._boundary = _boundary_class(names)
        # V_rand and V_info need all sections at once.
        self._boundaries: list[npt.NDArray[np.float16]] = []
        self._truths: list[npt.NDArray[np.int64]] = []

    def add(self, section: ScoredSection) -> None:
        truth, probabilities = section.truth, section.probabilities
        self._matrix.add(section.prediction, truth)
        if probabilities is not None:
            self._is_calibrated = True
            self._calibration.add(torch.from_numpy(probabilities)[None], torch.from_numpy(truth)[None])
        if self._boundary is not None:
            is_boundary = section.prediction == self._boundary
            boundary = is_boundary if probabilities is None else probabilities[self._boundary]
            self._boundaries.append(boundary.astype(np.float16))
            self._truths.append(truth)

    def scores(self, sections: int, report: Report, should_stop: ShouldStop) -> Scores:
        agreement = None
        if self._boundary is not None:
            boundaries = [each.astype(np.float32) for each in self._boundaries]
            agreement = boundary_scores(
                boundaries, self._truths, self._boundary, report=report, should_stop=should_stop
            )
            if agreement is None and should_stop():
                raise StoppedError(
                    "the evaluation was stopped before V_rand and V_info were known, so there is no score"
                )
        error = self._calibration.error if self._is_calibrated else None
        return self._matrix.scores(self._names, sections=sections, boundary=agreement, expected_calibration_error=error)


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
    annotated = [(number, section) for number, section in chosen if stacks[number].annotated_pixels[section].any()]
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
