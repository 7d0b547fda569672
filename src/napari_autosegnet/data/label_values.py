"""What the pixels of a label file hold: whole numbers, or colors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from napari_autosegnet.errors import UserError

Number = TypeVar("Number", int, npt.NDArray[np.int64])

#: Value of pixels that hold no number. No class can have it: `parse_classes` reads 18 digits.
NO_NUMBER = np.iinfo(np.int64).min


@dataclass(frozen=True)
class LabelValues:
    """Whole numbers ``(y, x)`` of a section, or its colors as ``0xrrggbb``."""

    values: npt.NDArray[Any]
    are_colors: bool

    def as_colors(self) -> npt.NDArray[Any]:
        """Colors; a number up to 255 is a gray one."""
        return self.values if self.are_colors else gray_color(self.values.astype(np.int64))

    def counts(self) -> dict[int, int]:
        """Pixels of each value."""
        if self.values.dtype in (np.uint8, np.uint16):
            numbers = np.bincount(self.values.ravel())
            return {int(value): int(numbers[value]) for value in np.flatnonzero(numbers)}
        present, numbers = np.unique(self.values, return_counts=True)
        return {
            value: count for value, count in zip(present.tolist(), numbers.tolist(), strict=True) if value != NO_NUMBER
        }


def gray_color(value: Number) -> Number:
    """The color ``0xrrggbb`` of a gray value up to 255."""
    return value * 0x010101


def channels_of(colors: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Red, green and blue of colors ``0xrrggbb``, on a first axis of three."""
    return np.stack([colors >> 16 & 255, colors >> 8 & 255, colors & 255])


def without_erased(pixels: npt.NDArray[Any], where: object) -> npt.NDArray[Any]:
    """Colors of labels without their transparency.

    Parameters
    ----------
    pixels : (c, ...)
        The last channel is the transparency.
    where : object
        What the labels are called.

    Raises
    ------
    UserError
        When erased pixels keep the color of strokes, as drawing programs leave it.
    """
    colors, transparent = pixels[:-1], pixels[-1] == 0
    if transparent.any():
        seen = [np.unique(colors[:, at], axis=1).T.tolist() for at in (transparent, ~transparent)]
        both = {*map(tuple, seen[0])} & {*map(tuple, seen[1])}
        if both:
            color = "#" + "".join(f"{int(value):02x}" for value in min(both))
            raise UserError(
                f"{where} has transparent pixels of the color {color} that other pixels are painted with; remove the "
                "transparency first, on a background of a color that is no class"
            )
    return colors


def nearest_color(
    colors: npt.NDArray[Any], known: Sequence[int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each color, which of the known ones is nearest, and the channel's difference where they differ most."""
    present, places = np.unique(colors, return_inverse=True)
    index, reach = np.zeros(len(present), np.int64), np.full(len(present), 256, np.int64)
    for number, color in enumerate(known):
        distance = np.abs(channels_of(present.astype(np.int64)) - channels_of(np.array([color]))).max(0)
        index[distance < reach] = number
        reach = np.minimum(reach, distance)
    return index[places].reshape(colors.shape), reach[places].reshape(colors.shape)


def label_values(pixels: npt.NDArray[Any], where: str) -> LabelValues:
    """Read a section of labels.

    Parameters
    ----------
    pixels : ndarray
        ``(c, y, x)`` with one or three channels; three that are alike are a gray picture.
    where : str
        What the labels are called.

    Raises
    ------
    UserError
        When they hold fractions, numbers beyond 63 bits, or colors of more than 8 bits.
    """
    first: npt.NDArray[Any] = pixels[0]
    if pixels.shape[0] > 1 and not (pixels == pixels[:1]).all():
        if pixels.dtype.kind == "f" or pixels.max() > 255:
            raise UserError(
                f"{where} are a color picture with values up to {pixels.max()}; save them with 8 bits per channel"
            )
        red, green, blue = pixels.astype(np.int32)
        return LabelValues(red << 16 | green << 8 | blue, are_colors=True)
    if first.dtype.kind == "f":
        return LabelValues(_whole(first, where), are_colors=False)
    if first.dtype.kind == "b":
        return LabelValues(first.astype(np.uint8), are_colors=False)
    if first.dtype == np.uint64:
        # As signed numbers, which NumPy compares with others exactly.
        if first.max() > np.iinfo(np.int64).max:
            raise UserError(f"{where} hold {first.max()}; number the classes from 1")
        return LabelValues(first.astype(np.int64), are_colors=False)
    return LabelValues(first, are_colors=False)


def _whole(numbers: npt.NDArray[np.floating], where: str) -> npt.NDArray[np.int64]:
    """As whole numbers; NaN is `NO_NUMBER`."""
    missing = np.isnan(numbers)
    present = np.where(missing, 0, numbers)
    # Beyond 2^53, doubles skip whole numbers.
    if (present != np.round(present)).any() or float(np.abs(present).max(initial=0)) > 2**53:
        raise UserError(f"{where} hold fractions, as an image does; give labels, with one whole number for each class")
    values: npt.NDArray[np.int64] = np.where(missing, NO_NUMBER, present.astype(np.int64))
    return values
