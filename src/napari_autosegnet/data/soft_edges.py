"""Whether a mask has soft edges: values between those of its classes, as drawing programs and scaling leave them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.plain_text import counted, listed

#: After as many pixels without soft edges, the rest is not looked at.
ENOUGH = 2**24
#: Fewer values along edges than this may be classes that are thin.
_MIN_SOFT_VALUES = 3
#: A mask with soft edges has at least as many values.
MIN_VALUES = 2 + _MIN_SOFT_VALUES
#: Of the pixels of a soft value, at least this fraction has a lower and a higher value beside it.
_MIN_BETWEEN = 0.5
#: Of all pixels, a class has more than this fraction.
_MIN_SOLID = 0.005
#: Of all pixels, at most this fraction is soft: more of them are an image.
_MAX_SOFT = 0.5
#: Classes are at least this fraction of the range of values apart.
_MIN_APART = 1 / 16
#: Values from here on are not those of a drawing.
_MAX_VALUES = 2**16


@dataclass(frozen=True)
class SoftEdges:
    """What the values of a mask with soft edges are: ``classes``, at least two, and ``others`` along their edges."""

    classes: tuple[int, ...]
    others: tuple[int, ...]

    def describe(self) -> str:
        """One line for the user, with what to write after ``--classes``; names may be left to be filled in."""
        first, last = min(self.classes + self.others), max(self.classes + self.others)
        starts = [first, *(self._limits() + 1).tolist()]
        ends = [*self._limits().tolist(), last]
        names = ("background", "object") if len(self.classes) == 2 else ("NAME",) * len(self.classes)
        spans = [
            f"{start}:{name}" if start == end else f"{start}-{end}:{name}"
            for start, end, name in zip(starts, ends, names, strict=True)
        ]
        return (
            f"the labels have {counted(len(self.classes + self.others), 'value')}, most of which lie along the edges "
            f"of {listed(self.classes, 12)}, as in a mask with soft edges; if so, use --classes {','.join(spans)}, "
            "else name each class with --classes"
        )

    def hardened(self, values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Values, each replaced by that of the class which is nearest."""
        hard: npt.NDArray[np.int64] = np.array(self.classes)[np.searchsorted(self._limits(), values)]
        return hard

    def _limits(self) -> npt.NDArray[np.int64]:
        """The last value of each class but that of the highest."""
        classes = np.array(self.classes)
        limits: npt.NDArray[np.int64] = (classes[:-1] + classes[1:]) // 2
        return limits


def soft_edges(sections: Iterable[npt.NDArray[Any]]) -> SoftEdges | None:
    """What the values of a mask are if it has soft edges; None if it has none.

    A value is soft if most of its pixels have a lower and a higher one beside them. A class has an inside, or, of
    strokes, has only itself and 0 beside it.

    Parameters
    ----------
    sections
        Whole numbers ``(y, x)``, up to 65535 where edges are soft. Those of `ENOUGH` pixels are read, or all if the
        edges are soft in these.
    """
    pixels, between = np.zeros(_MAX_VALUES, np.int64), np.zeros(_MAX_VALUES, np.int64)
    for values in sections:
        if values.min(initial=0) < 0 or values.max(initial=0) >= _MAX_VALUES:
            return None
        pixels += np.bincount(values.ravel(), minlength=_MAX_VALUES)
        between += np.bincount(values[_is_between(values)], minlength=_MAX_VALUES)
        if pixels.sum() > ENOUGH and _soft_edges(pixels, between) is None:
            return None
    return _soft_edges(pixels, between)


def _is_between(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Pixels with a lower and a higher one among the eight beside them."""
    from scipy import ndimage

    lower = ndimage.minimum_filter(values, 3, mode="nearest") < values
    is_between: npt.NDArray[np.bool_] = lower & (ndimage.maximum_filter(values, 3, mode="nearest") > values)
    return is_between


def _soft_edges(pixels: npt.NDArray[np.int64], between: npt.NDArray[np.int64]) -> SoftEdges | None:
    """From the pixels of each value, and how many of them lie between others."""
    is_soft = between > _MIN_BETWEEN * pixels
    solid = _apart(np.flatnonzero(~is_soft & (pixels > _MIN_SOLID * pixels.sum())), pixels)
    others, others_between = (np.delete(counts, solid) for counts in (pixels, between))
    soft = np.count_nonzero(others_between > _MIN_BETWEEN * others)
    if (
        len(solid) < 2
        or soft < _MIN_SOFT_VALUES
        or others.sum() > _MAX_SOFT * pixels.sum()
        or others_between.sum() < _MIN_BETWEEN * others.sum()
    ):
        return None
    return SoftEdges(
        tuple(sorted(solid)), tuple(value for value in np.flatnonzero(pixels).tolist() if value not in solid)
    )


def _apart(values: npt.NDArray[np.int64], pixels: npt.NDArray[np.int64]) -> list[int]:
    """Values without those that lie close to a more frequent one, as JPEG and sharpening leave beside edges."""
    reach = _MIN_APART * np.ptp(values) if len(values) else 0
    kept: list[int] = []
    for value in sorted(values.tolist(), key=lambda value: -pixels[value]):
        if all(abs(value - other) >= reach for other in kept):
            kept.append(value)
    return kept
