"""Gray values of whole sections, in numbers that neither padding nor hot pixels change.

A section's mean and deviation are the same for every tile, block and process that asks, because they depend on its
pixels alone: on all of them up to `MAX_PIXELS`, in larger sections on windows spread evenly over it. Left out are

- pixels that are NaN or infinite;
- padding, as alignment leaves it around a section: squares of `PADDING_SIDE` pixels that have one value only, and
  that value right beside them;
- hot pixels: those farther than `FENCE` times the range from 0.1 to 99.9 % of the values beyond that range. A bright
  object that covers more than 0.1 % of a section is never taken for one.

On images without any of these the numbers are the plain mean and standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Window = tuple[slice, slice]

#: Sections of more pixels than this are sampled.
MAX_PIXELS = 2**20
#: Side of the windows that are sampled.
WINDOW_SIDE = 128
PADDING_SIDE = 32
#: Fraction of the pixels at either end of the range that may be hot, and how far beyond it they are.
RARE = 1e-3
FENCE = 10.0
_TINY = 100
#: Fewer pixels than this, or than a hundredth of a small section, say nothing about it.
_FEW = 1000


@dataclass(frozen=True)
class SectionGray:
    """Gray values of one section.

    Attributes
    ----------
    mean, std : tuple of float
        Per channel; 0 where no pixel is a number.
    low, high : tuple of float
        0.1 and 99.9 % of the values lie below, per channel.
    pixels : int
        How many were looked at and counted.
    constant : bool
        Every pixel that is a number has the same value (per channel), and there is one.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    pixels: int
    constant: bool


def section_gray(pixels: Array) -> SectionGray:
    """Gray values of a whole section ``(c, y, x)``."""
    gray = gray_of_windows([pixels[:, y, x] for y, x in sample_windows(*pixels.shape[1:])])
    # What is sampled decides nearly always; only a constant sample needs the whole section.
    if gray.constant and not has_one_value([pixels]):
        return replace(gray, constant=False)
    return gray


def median_gray(sections: Sequence[SectionGray]) -> SectionGray:
    """Gray values in the middle of those of some sections, which some odd ones change little."""
    mean, std, low, high = (
        tuple(np.median([getattr(section, part) for section in sections], axis=0).tolist())
        for part in ("mean", "std", "low", "high")
    )
    return SectionGray(mean, std, low, high, pixels=0, constant=False)


def sample_windows(height: int, width: int, pixels: int = MAX_PIXELS, side: int = WINDOW_SIDE) -> list[Window]:
    """The whole of a section if it has no more than so many pixels, else windows spread evenly over it."""
    if height * width <= pixels:
        return [(slice(0, height), slice(0, width))]
    sides = min(side, height), min(side, width)
    count = max(1, pixels // (sides[0] * sides[1]))
    rows = min(max(1, round((count * height / width) ** 0.5)), count, height // sides[0])
    columns = min(max(1, count // rows), width // sides[1])
    return [(y, x) for y in _spread(height, sides[0], rows) for x in _spread(width, sides[1], columns)]


def _spread(length: int, side: int, count: int) -> list[slice]:
    """Stretches in the middle of equal parts of a side."""
    starts = (int((part + 0.5) * length / count - side / 2) for part in range(count))
    return [slice(start, start + side) for start in starts]


def gray_of_windows(windows: Sequence[Array]) -> SectionGray:
    """Gray values of windows ``(c, y, x)`` that stand for a section; ``constant`` speaks of them alone."""
    values = _joined(windows, _counted)
    pixels = sum(window[0].size for window in windows)
    if values.shape[1] < min(_FEW, pixels / 100):  # hardly anything but padding
        values = _joined(windows, _finite)
    if not values.shape[1]:
        nothing = (0.0,) * len(values)
        return SectionGray(nothing, nothing, nothing, nothing, pixels=0, constant=False)
    channels = [_robust(channel) for channel in values]
    mean, std, low, high = (tuple(channel[part] for channel in channels) for part in range(4))
    constant = low == high and has_one_value(windows)
    return SectionGray(mean, std, low, high, pixels=values.shape[1], constant=constant)


def _joined(windows: Sequence[Array], chosen: Callable[[Array], npt.NDArray[np.bool_] | None]) -> Array:
    """The chosen pixels ``(c, n)`` of all windows; ``chosen`` says None for all."""
    parts = []
    for pixels in windows:
        where = chosen(pixels)
        parts.append(pixels.reshape(len(pixels), -1) if where is None else pixels[:, where])
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


class OneValue:
    """Whether pixels that are seen part by part have one value (per channel), NaN and infinity apart."""

    def __init__(self) -> None:
        self._value: Array | None = None
        self._differ = False

    @property
    def holds(self) -> bool:
        """Whether there was a value, and no other."""
        return self._value is not None and not self._differ

    def see(self, pixels: Array) -> bool:
        """Look at pixels ``(c, y, x)``; False when there are several values by now."""
        inside = _joined([pixels], _finite)
        if not self._differ and inside.shape[1]:
            self._value = inside[:, :1].copy() if self._value is None else self._value
            self._differ = not bool((inside == self._value).all())
        return not self._differ


def has_one_value(windows: Sequence[Array]) -> bool:
    """Whether windows ``(c, y, x)`` have one value (per channel), NaN and infinity apart."""
    seen = OneValue()
    return all(seen.see(pixels) for pixels in windows) and seen.holds


def _finite(pixels: Array) -> npt.NDArray[np.bool_] | None:
    """Where (y, x) all channels are numbers; None: everywhere."""
    if pixels.dtype.kind != "f":
        return None
    finite = np.asarray(np.isfinite(pixels).all(0))
    return None if finite.all() else finite


def _counted(pixels: Array) -> npt.NDArray[np.bool_] | None:
    """Where (y, x) pixels are numbers and no padding; None: everywhere."""
    finite = _finite(pixels)
    rows, columns = (side // PADDING_SIDE for side in pixels.shape[1:])
    if not rows or not columns:
        return finite
    squares = pixels[:, : rows * PADDING_SIDE, : columns * PADDING_SIDE]
    squares = squares.reshape(len(pixels), rows, PADDING_SIDE, columns, PADDING_SIDE)
    # The first row of a square decides nearly always. NaN is equal to nothing, so what has some is no padding.
    padding = (squares[:, :, 0] == squares[:, :, 0, :, :1]).all((0, 3))
    for row, column in np.argwhere(padding):
        square = squares[:, row, :, column]
        padding[row, column] = bool((square == square[:, :1, :1]).all())
    if not padding.any():
        return finite
    outside = _with_rim(pixels, squares, padding)
    return ~outside if finite is None else finite & ~outside


def _with_rim(pixels: Array, squares: Array, padding: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Where (y, x) squares of padding lie, and their values in the squares around them, which they fill in part."""
    from scipy.ndimage import binary_dilation

    shape = pixels.shape[1:]
    outside = np.zeros(shape, bool)
    values = np.unique(squares[:, :, 0, :, 0][:, padding], axis=1)
    for value in values.T:
        same = padding & (squares[:, :, 0, :, 0] == value[:, np.newaxis, np.newaxis]).all(0)
        around = binary_dilation(same, np.ones((3, 3), bool)).repeat(PADDING_SIDE, 0).repeat(PADDING_SIDE, 1)
        # The last rows and columns, which fill no square, belong to those before them.
        missing = [(0, side - known) for side, known in zip(shape, around.shape, strict=True)]
        outside |= np.pad(around, missing, mode="edge") & (pixels == value[:, np.newaxis, np.newaxis]).all(0)
    return outside


def _robust(values: Array) -> tuple[float, float, float, float]:
    """Mean and deviation of some values (n,) without hot ones, and the range that most of them lie in."""
    levels, counts = _levels(values)
    total = int(counts.sum())
    # One at least: a small image may have a hot pixel, too. In a tiny one it cannot be told.
    rare = max(1, int(RARE * total)) if total >= _TINY else 0
    reached = np.cumsum(counts)
    low, high = (float(levels[np.searchsorted(reached, rank, side="right")]) for rank in (rare, total - 1 - rare))
    with np.errstate(over="ignore"):
        reach = FENCE * (high - low)
        kept = (levels >= low - reach) & (levels <= high + reach) if reach > 0 else np.ones(len(levels), bool)
        # From the first one on, so that large numbers keep their last digits, and equal ones have no deviation.
        first = levels[kept][0]
        above, counts = levels[kept] - first, counts[kept]
        mean = float(np.average(above, weights=counts))
        std = float(np.sqrt(np.average((above - mean) ** 2, weights=counts)))
    return float(first + mean), std, low, high


def _levels(values: Array) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Rising values and how often each occurs (or rising values that occur once each, in any number)."""
    if values.dtype.kind in "ui" and values.dtype.itemsize <= 2:
        lowest = int(np.iinfo(values.dtype).min)
        counts = np.bincount(values if lowest == 0 else values.astype(np.int64) - lowest)
        levels = np.flatnonzero(counts)
        return levels.astype(np.float64) + lowest, counts[levels]
    return np.sort(values).astype(np.float64), np.ones(len(values), np.int64)
