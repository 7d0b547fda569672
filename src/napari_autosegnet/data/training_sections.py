"""The sections that a training learns from, looked at before it begins: which to leave out, and how to normalize.

A constant section shows nothing, whatever is annotated on it. One whose gray values are far from all others' was
probably saved in another range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from napari_autosegnet.data.gray_match import AS_IS, GrayValues, match
from napari_autosegnet.data.gray_values import SectionGray, median_gray, section_gray
from napari_autosegnet.data.labeled_stacks import LabeledStack, annotated_places
from napari_autosegnet.data.normalization import WIDE_SPREAD, Normalization, NormalizationKind, measure, spread
from napari_autosegnet.data.regions import Split
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Note, Report
from napari_autosegnet.plain_text import listed
from napari_autosegnet.settings import NormalizationChoice

#: Stack and number of a section.
Place = tuple[int, int]

_SHOWN = 8


def look_at_annotated(stacks: Sequence[LabeledStack]) -> dict[Place, SectionGray]:
    """Gray values of every section in which something is annotated."""
    return {place: section_gray(stacks[place[0]].image.section(place[1])) for place in annotated_places(stacks)}


def leave_out_constant(stacks: Sequence[LabeledStack], grays: Mapping[Place, SectionGray], report: Report) -> None:
    """Take constant sections for not annotated, and say so.

    Raises
    ------
    UserError
        When nothing is left.
    """
    constant = [place for place, gray in grays.items() if gray.constant]
    if not constant:
        return
    if len(constant) == len(grays):
        raise UserError("all annotated sections are constant (one gray value throughout); check the images")
    for stack, section in constant:
        stacks[stack].leave_out(section)
    are = "1 section is" if len(constant) == 1 else f"{len(constant)} sections are"
    names = _named(stacks, constant)
    report(Note(text=f"{are} constant (one gray value throughout) and left out of the training: {names}"))


def fit_normalization(
    stacks: Sequence[LabeledStack],
    split: Split,
    wanted: NormalizationChoice,
    grays: Mapping[Place, SectionGray],
    report: Report,
) -> Normalization:
    """How the images of a training are normalized; says what was chosen and which sections are unlike the rest.

    Raises
    ------
    UserError
        When a float image holds NaN, infinity, or numbers near the largest, or the training part is constant.
    """
    training, validation = (
        {place: grays[place] for place in sorted({(region.stack, region.section) for region in part})}
        for part in (split.training, split.validation)
    )
    kind: NormalizationKind = "global" if wanted == "auto" else wanted
    for (index, _), gray in {**training, **validation}.items():
        if not np.isfinite(gray.std).all():
            image = stacks[index].image
            raise UserError(f"the gray values of {image.display_name} are too large; scale them down")
    together = list({**training, **validation}.values())
    if wanted == "auto" and spread(together) > WIDE_SPREAD:
        kind = "section"
        text = (
            f"the gray values of the sections differ ({spread(together):.2f}, more than {WIDE_SPREAD}), so each "
            "section is normalized by its own mean and deviation; --normalization global takes the same for all"
        )
        report(Note(text=text))
    if kind == "global":
        _tell_odd(stacks, {**training, **validation}, report)
    return measure(stacks, split.training, kind=kind, sections=list(training.values()))


def _tell_odd(stacks: Sequence[LabeledStack], grays: Mapping[Place, SectionGray], report: Report) -> None:
    """Name the sections that a model of the others would refuse."""
    usual = median_gray(list(grays.values()))
    first = stacks[next(iter(grays))[0]].image.dtype
    seen = GrayValues.of([usual], first)
    odd = [place for place, gray in grays.items() if match(seen, [gray], stacks[place[0]].image.dtype) != AS_IS]
    if odd:
        text = (
            f"the gray values of {len(odd)} of {len(grays)} sections are far from those of the others, whose mean "
            f"is about {usual.mean[0]:.4g}: {_named(stacks, odd)}; save all in one range, or take "
            "--normalization section"
        )
        report(Note(text=text))


def _named(stacks: Sequence[LabeledStack], places: Sequence[Place]) -> str:
    """Names of sections, or their numbers, the first few."""
    return listed([_name(stacks, *place) for place in places], _SHOWN)


def _name(stacks: Sequence[LabeledStack], index: int, section: int) -> str:
    image = stacks[index].image
    if image.section_names is not None:
        return image.section_names[section]
    if image.sections == 1:
        return image.name
    return str(section) if len(stacks) == 1 else f"{image.name} {section}"
