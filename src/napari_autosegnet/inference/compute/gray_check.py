"""Whether an image has the gray values that a model was trained on, told from a few sections before it is applied."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.gray_match import AS_IS, GrayScale, Mismatch, match, scale_in_words, unlike_in_words
from napari_autosegnet.data.gray_values import SectionGray, gray_of_windows, sample_windows
from napari_autosegnet.data.images import ImageStack
from napari_autosegnet.data.normalization import Normalization
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Note, Report, silent
from napari_autosegnet.inference.compute.patience import read_patiently
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.settings import GrayValuesChoice

#: Sections that are looked at, spread evenly over the image; up to five times as many where most are constant.
SECTIONS = 5
#: Pixels of each that are looked at: a whole section of 512 x 512, windows of a larger one.
_PIXELS = 2**18
#: Whole numbers beyond this are not all told apart by 64 bit floats.
_EXACT = 2.0**53
#: How many times rougher an image is than with its bytes swapped, to be taken for swapped. Swapping makes noise of any
#: image whose values need both bytes, and changes no roughness where one byte says all.
_SWAPPED = 2.0


class GrayValuesError(UserError):
    """An image's gray values are unlike all that a model has seen; whoever knows better may insist."""


def check_gray_values(
    normalization: Normalization,
    image: ImageStack,
    choice: GrayValuesChoice = "checked",
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> GrayScale:
    """How an image's gray values are scaled against those that a model was trained on; told where they are at all.

    The whole image is compared, whatever part of it is to be segmented. Models that normalize each section by its own
    constants take any range.

    Parameters
    ----------
    normalization : Normalization
        Of the model.
    image : ImageStack
        That it is applied to.
    choice : "checked" or "as-is"
        As-is compares nothing.
    should_stop : ShouldStop
        Asked before every read, of which a large image needs many; once it says so, nothing is compared.

    Raises
    ------
    GrayValuesError
        When they are far from all that the model has seen.
    """
    if choice == "as-is" or normalization.seen is None:
        return AS_IS
    sections, step, swapped = _sample(image, should_stop)
    if should_stop():
        return AS_IS
    name = str(image.path or image.name)
    if swapped:
        raise GrayValuesError(
            f"the two bytes of each gray value of {name} seem to be swapped: the other way round, neighboring "
            "pixels are alike; save it with the other byte order, or take its gray values as they are "
            "(--gray-values as-is)"
        )
    if image.dtype.kind in "ui" and any(max(map(abs, (*each.low, *each.high))) > _EXACT for each in sections):
        report(Note(text=f"{name} has gray values beyond 2^53, which lose their last digits"))
    return scale_of(normalization, sections, image.dtype, name, step=step, report=report)


def scale_of(
    normalization: Normalization,
    sections: Sequence[SectionGray],
    dtype: npt.DTypeLike,
    name: str,
    *,
    step: int = 1,
    report: Report = silent,
) -> GrayScale:
    """As `check_gray_values`, for sections that were looked at already.

    Parameters
    ----------
    normalization : Normalization
        Of the model.
    sections : sequence of SectionGray
    dtype : dtype
        Of the image.
    name : str
        What the error calls it.
    step : int
        A number that all values are multiples of.

    Raises
    ------
    GrayValuesError
        When they are far from all that the model has seen.
    """
    if normalization.seen is None:
        return AS_IS
    scale = match(normalization.seen, sections, dtype, step=step)
    if isinstance(scale, Mismatch):
        if normalization.kind == "section":
            return AS_IS
        raise GrayValuesError(
            f"the gray values of {name} are unlike those of the model's images ({scale.text}); "
            "give it in their range, or take its gray values as they are (--gray-values as-is)"
        )
    if normalization.kind == "global":
        note = (
            unlike_in_words(normalization.seen, sections)
            if scale == AS_IS
            else scale_in_words(scale, normalization.seen, dtype)
        )
        if note is not None:
            report(Note(text=note))
    return scale


def _sample(image: ImageStack, should_stop: ShouldStop) -> tuple[list[SectionGray], int, bool]:
    """Gray values of some sections that are not constant, a number that divides all, and if bytes seem swapped."""
    sampled: list[SectionGray] = []
    step = swapped = 0
    for section in _spread_over(image.sections):
        try:
            windows = _windows(image, section, should_stop)
        except UserError:
            continue  # for the block in question to say
        if should_stop():
            break
        gray = gray_of_windows(windows)
        if gray.constant or not gray.pixels:
            continue
        sampled.append(gray)
        if image.dtype.kind in "ui":
            step = math.gcd(step, *(int(np.gcd.reduce(np.unique(part))) for part in windows))
            swapped += _is_swapped(windows)
        if len(sampled) == SECTIONS:
            break
    return sampled, max(1, step), 0 < len(sampled) == swapped


def _is_swapped(windows: Sequence[npt.NDArray[Any]]) -> bool:
    """Whether 16 bit values would make a far smoother image with their bytes swapped."""
    if windows[0].itemsize != 2:
        return False
    as_they_are, the_other_way = (
        np.mean([_roughness(part) for part in parts]) for parts in (windows, [part.byteswap() for part in windows])
    )
    return bool(as_they_are > _SWAPPED * the_other_way)


def _roughness(pixels: npt.NDArray[Any]) -> float:
    """How far neighbors differ, against how far pixels are from the mean: 0 where all is smooth, over 1 for noise."""
    values = pixels.astype(np.float64)
    spread = np.abs(values - values.mean()).mean()
    return float(np.abs(np.diff(values, axis=-1)).mean() / spread) if spread else 0.0


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
