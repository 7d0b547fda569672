"""Whether an image has the grey values that a model was trained on, told from a few sections before it is applied."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.grey_match import AS_IS, GreyScale, Mismatch, match, scale_in_words, unlike_in_words
from napari_autosegnet.data.grey_values import SectionGrey, grey_of_windows, sample_windows
from napari_autosegnet.data.images import ImageStack
from napari_autosegnet.data.normalisation import Normalisation
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Note, Report, silent
from napari_autosegnet.inference.compute.patience import read_patiently
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.settings import GreyValuesChoice

#: Sections that are looked at, spread evenly over the image; up to five times as many where most are constant.
SECTIONS = 5
#: Pixels of each that are looked at: a whole section of 512 x 512, windows of a larger one.
_PIXELS = 2**18
#: Whole numbers beyond this are not all told apart by 64 bit floats.
_EXACT = 2.0**53


class GreyValuesError(UserError):
    """An image's grey values are unlike all that a model has seen; whoever knows better may insist."""


def check_grey_values(
    normalisation: Normalisation,
    image: ImageStack,
    choice: GreyValuesChoice = "checked",
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> GreyScale:
    """How an image's grey values are scaled against those that a model was trained on; told where they are at all.

    The whole image is compared, whatever part of it is to be segmented. Models that normalise each section by its own
    constants take any range.

    Parameters
    ----------
    normalisation : Normalisation
        Of the model.
    image : ImageStack
        That it is applied to.
    choice : "checked" or "as-is"
        As-is compares nothing.
    should_stop : ShouldStop
        Asked before every read, of which a large image needs many; once it says so, nothing is compared.

    Raises
    ------
    GreyValuesError
        When they are far from all that the model has seen.
    """
    if choice == "as-is" or normalisation.seen is None:
        return AS_IS
    sections, step = _sample(image, should_stop)
    if should_stop():
        return AS_IS
    name = str(image.path or image.name)
    if image.dtype.kind in "ui" and any(max(map(abs, (*each.low, *each.high))) > _EXACT for each in sections):
        report(Note(text=f"{name} has grey values beyond 2^53, which lose their last digits"))
    return scale_of(normalisation, sections, image.dtype, name, step=step, report=report)


def scale_of(
    normalisation: Normalisation,
    sections: Sequence[SectionGrey],
    dtype: npt.DTypeLike,
    name: str,
    *,
    step: int = 1,
    report: Report = silent,
) -> GreyScale:
    """As `check_grey_values`, for sections that were looked at already.

    Parameters
    ----------
    normalisation : Normalisation
        Of the model.
    sections : sequence of SectionGrey
    dtype : dtype
        Of the image.
    name : str
        What the error calls it.
    step : int
        A number that all values are multiples of.

    Raises
    ------
    GreyValuesError
        When they are far from all that the model has seen.
    """
    if normalisation.seen is None:
        return AS_IS
    found = match(normalisation.seen, sections, dtype, step=step)
    if isinstance(found, Mismatch):
        if normalisation.kind == "section":
            return AS_IS
        raise GreyValuesError(
            f"the grey values of {name} are unlike those of the model's images ({found.text}); "
            "give it in their range, or take its grey values as they are (--grey-values as-is)"
        )
    if normalisation.kind == "global":
        note = (
            unlike_in_words(normalisation.seen, sections)
            if found == AS_IS
            else scale_in_words(found, normalisation.seen, dtype)
        )
        if note is not None:
            report(Note(text=note))
    return found


def _sample(image: ImageStack, should_stop: ShouldStop) -> tuple[list[SectionGrey], int]:
    """Grey values of some sections that are not constant, and a number that all values are multiples of."""
    found: list[SectionGrey] = []
    step = 0
    for section in _spread_over(image.sections):
        try:
            windows = _windows(image, section, should_stop)
        except UserError:
            continue  # for the block in question to say
        if should_stop():
            break
        grey = grey_of_windows(windows)
        if grey.constant or not grey.pixels:
            continue
        found.append(grey)
        if image.dtype.kind in "ui":
            step = math.gcd(step, *(int(np.gcd.reduce(np.unique(part))) for part in windows))
        if len(found) == SECTIONS:
            break
    return found, max(1, step)


def _spread_over(count: int) -> Iterator[int]:
    """Numbers of sections: the middles of five equal parts, then of 25."""
    told: set[int] = set()
    for parts in (SECTIONS, SECTIONS**2):
        for part in range(min(parts, count)):
            section = int((part + 0.5) * count / min(parts, count))
            if section not in told:
                told.add(section)
                yield section


def _windows(image: ImageStack, section: int, should_stop: ShouldStop) -> list[npt.NDArray[Any]]:
    places = sample_windows(*image.section_shape(section), _PIXELS)
    if not image.uniform:
        whole = image.section(section)
        return [whole[:, y, x] for y, x in places]
    here = slice(section, section + 1)
    return [read_patiently(image, here, y, x)[:, 0] for y, x in places if not should_stop()]
