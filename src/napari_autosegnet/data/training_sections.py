"""The sections that a training learns from, looked at before it begins: which to leave out, and how to normalise.

A constant section shows nothing, whatever is annotated on it. One whose grey values are far from all others' was
probably saved in another range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from napari_autosegnet.data.annotations import LabelledStack, annotated_pixels
from napari_autosegnet.data.grey_match import AS_IS, GreyValues, match
from napari_autosegnet.data.grey_values import SectionGrey, section_grey
from napari_autosegnet.data.normalisation import WIDE_SPREAD, Normalisation, NormalisationKind, measure, spread
from napari_autosegnet.data.split import Split
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Note, Report
from napari_autosegnet.settings import NormalisationChoice

#: Stack and number of a section.
Place = tuple[int, int]

_SHOWN = 8


def look_at_annotated(stacks: Sequence[LabelledStack]) -> dict[Place, SectionGrey]:
    """Grey values of every section in which something is annotated."""
    return {
        (index, int(section)): section_grey(stack.image.section(int(section)))
        for index, stack in enumerate(stacks)
        for section in np.flatnonzero(annotated_pixels(stack).sum(1))
    }


def leave_out_constant(stacks: Sequence[LabelledStack], greys: Mapping[Place, SectionGrey], report: Report) -> None:
    """Take constant sections for not annotated, and say so.

    Raises
    ------
    UserError
        When nothing is left.
    """
    constant = [place for place, grey in greys.items() if grey.constant]
    if not constant:
        return
    if len(constant) == len(greys):
        raise UserError("all annotated sections are constant (one grey value throughout); check the images")
    for stack, section in constant:
        stacks[stack].leave_out(section)
    report(
        Note(
            text=f"{_sections(len(constant))} constant (one grey value throughout) and left out of the training: "
            + _listed(stacks, constant),
        )
    )


def fit_normalisation(
    stacks: Sequence[LabelledStack],
    split: Split,
    wanted: NormalisationChoice,
    greys: Mapping[Place, SectionGrey],
    report: Report,
) -> Normalisation:
    """How the images of a training are normalised; says what was chosen and which sections are unlike the rest.

    Raises
    ------
    UserError
        When a float image holds NaN or infinity, or the training part is constant.
    """
    training, validation = (
        {place: greys[place] for place in sorted({(region.stack, region.section) for region in part})}
        for part in (split.training, split.validation)
    )
    kind: NormalisationKind = "global" if wanted == "auto" else wanted
    together = list({**training, **validation}.values())
    if wanted == "auto" and spread(together) > WIDE_SPREAD:
        kind = "section"
        text = (
            f"the grey values of the sections differ ({spread(together):.2f}, more than {WIDE_SPREAD}), so each "
            "section is normalised by its own mean and deviation; --normalisation global takes the same for all"
        )
        report(Note(text=text))
    if kind == "global":
        _tell_odd(stacks, {**training, **validation}, report)
    return measure(stacks, split.training, kind=kind, sections=list(training.values()))


def _tell_odd(stacks: Sequence[LabelledStack], greys: Mapping[Place, SectionGrey], report: Report) -> None:
    """Name the sections that a model of the others would refuse."""
    usual = _median(list(greys.values()))
    first = stacks[next(iter(greys))[0]].image.dtype
    seen = GreyValues.of([usual], first)
    odd = [place for place, grey in greys.items() if match(seen, [grey], stacks[place[0]].image.dtype) != AS_IS]
    if odd:
        text = (
            f"the grey values of {len(odd)} of {len(greys)} sections are far from those of the others, whose mean "
            f"is about {usual.mean[0]:.4g}: {_listed(stacks, odd)}; save all in one range, or take "
            "--normalisation section"
        )
        report(Note(text=text))


def _median(sections: Sequence[SectionGrey]) -> SectionGrey:
    """Grey values in the middle of those of some sections."""
    mean, std, low, high = (
        tuple(np.median([getattr(section, part) for section in sections], axis=0).tolist())
        for part in ("mean", "std", "low", "high")
    )
    return SectionGrey(mean, std, low, high, pixels=0, constant=False)


def _listed(stacks: Sequence[LabelledStack], places: Sequence[Place]) -> str:
    """Names of sections, or their numbers, the first few."""
    shown = [_name(stacks, *place) for place in places[:_SHOWN]]
    return ", ".join(shown) + (", ..." if len(places) > _SHOWN else "")


def _name(stacks: Sequence[LabelledStack], index: int, section: int) -> str:
    image = stacks[index].image
    if image.section_names is not None:
        return image.section_names[section]
    if image.sections == 1:
        return image.name
    return str(section) if len(stacks) == 1 else f"{image.name} {section}"


def _sections(count: int) -> str:
    return "1 section is" if count == 1 else f"{count} sections are"
