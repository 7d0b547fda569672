"""Whether a mask has soft edges: values between those of its classes, as drawing programs and scaling leave them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.label_values import channels_of, nearest_color
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
#: JPEG changes colors more.
_MIN_APART_COLORS = 1 / 8
#: Colors whose channels differ by less are one, which JPEG changed a little.
_NEAR = 16
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


@dataclass(frozen=True)
class SoftColors:
    """What the colors ``0xrrggbb`` of a mask with soft edges are: ``classes``, and how many ``others`` there are."""

    classes: tuple[int, ...]
    others: int

    @property
    def near(self) -> int:
        """How far a channel may be from that of a class, so that no class is near another one."""
        distances = (nearest_color(np.array([one]), [other])[1] for one, other in combinations(self.classes, 2))
        return min(int(distance[0]) for distance in distances) // 2

    def describe(self) -> str:
        """One line for the user, with what to write after ``--classes``; names are to be filled in."""
        texts = [f"#{color:06x}" for color in self.classes]
        return (
            f"the labels have {counted(len(texts) + self.others, 'color')}, most of which lie along the edges of "
            f"{listed(texts, 12)}, as in a mask with soft edges; if so, use "
            f"--classes '{','.join(f'{text}:NAME' for text in texts)}', which takes colors near these, too"
        )

    def hardened(self, colors: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Colors, each replaced by that of the class which is nearest."""
        hard: npt.NDArray[np.int64] = np.array(self.classes)[nearest_color(colors, self.classes)[0]]
        return hard


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


def soft_colors(sections: Iterable[npt.NDArray[Any]]) -> SoftColors | None:
    """What the colors of a mask are if it has soft edges; None if it has none.

    As `soft_edges`; a color is between others if one of its channels is, and JPEG may have changed it a little.

    Parameters
    ----------
    sections
        Colors ``0xrrggbb`` ``(y, x)``.
    """
    pixels: Counter[int] = Counter()
    between: Counter[int] = Counter()
    for colors in sections:
        is_between = np.any([_is_between(channel, _NEAR) for channel in channels_of(colors)], axis=0)
        for counter, chosen in ((pixels, colors), (between, colors[is_between])):
            present, counts = np.unique(chosen, return_counts=True)
            counter.update(dict(zip(present.tolist(), counts.tolist(), strict=True)))
        if len(pixels) > _MAX_VALUES or (pixels.total() > ENOUGH and _soft_colors(pixels, between) is None):
            return None
    return _soft_colors(pixels, between)


def _is_between(values: npt.NDArray[Any], by_more_than: int = 0) -> npt.NDArray[np.bool_]:
    """Pixels with a lower and a higher one among the eight beside them."""
    from scipy import ndimage

    lower = ndimage.minimum_filter(values, 3, mode="nearest") + by_more_than < values
    higher = ndimage.maximum_filter(values, 3, mode="nearest") > values + by_more_than
    is_between: npt.NDArray[np.bool_] = lower & higher
    return is_between


def _soft_edges(pixels: npt.NDArray[np.int64], between: npt.NDArray[np.int64]) -> SoftEdges | None:
    """From the pixels of each value, and how many of them lie between others."""
    values = np.flatnonzero(pixels)
    pixels, between = pixels[values], between[values]
    is_soft = between > _MIN_BETWEEN * pixels
    solid = _apart(values[np.newaxis], np.flatnonzero(~is_soft & (pixels > _MIN_SOLID * pixels.sum())), pixels)
    others = np.delete(np.arange(len(values)), solid)
    if len(solid) < 2 or not _lie_along_edges(others, pixels, between):
        return None
    return SoftEdges(tuple(values[sorted(solid)].tolist()), tuple(values[others].tolist()))


def _soft_colors(pixels: Mapping[int, int], between: Mapping[int, int]) -> SoftColors | None:
    """From the pixels of each color, and how many of them lie between others."""
    colors = np.array(list(pixels), np.int64)
    counts, along = (np.array([each.get(color, 0) for color in pixels], np.int64) for each in (pixels, between))
    points = channels_of(colors)
    # What is near is one, called as the most frequent color of it.
    _, groups = np.unique(points // _NEAR, axis=1, return_inverse=True)
    in_group, group_along = (np.bincount(groups, each) for each in (counts, along))
    rising = np.argsort(counts, kind="stable")
    names = np.zeros(len(in_group), np.int64)
    names[groups[rising]] = rising
    is_solid = (group_along <= _MIN_BETWEEN * in_group) & (in_group > _MIN_SOLID * counts.sum())
    solid = _apart(points, names[is_solid], counts)
    if len(solid) < 2:
        return None
    classes = sorted(colors[solid].tolist())
    others = np.flatnonzero(nearest_color(colors, classes)[1] >= _NEAR)
    if not _lie_along_edges(others, counts, along):
        return None
    return SoftColors(tuple(classes), len(colors) - len(classes))


def _lie_along_edges(
    others: npt.NDArray[np.int64], pixels: npt.NDArray[np.int64], between: npt.NDArray[np.int64]
) -> bool:
    """Whether the values at these places, which are no classes, are those of soft edges."""
    all_pixels, pixels, between = pixels.sum(), pixels[others], between[others]
    return bool(
        np.count_nonzero(between > _MIN_BETWEEN * pixels) >= _MIN_SOFT_VALUES
        and pixels.sum() <= _MAX_SOFT * all_pixels
        and between.sum() >= _MIN_BETWEEN * pixels.sum()
    )


def _apart(values: npt.NDArray[np.int64], places: npt.NDArray[np.int64], pixels: npt.NDArray[np.int64]) -> list[int]:
    """Of places of values (channels, n), those not close to a more frequent one, as JPEG and sharpening leave some."""
    apart = _MIN_APART if len(values) == 1 else _MIN_APART_COLORS
    reach = apart * np.ptp(values[:, places], axis=1).max() if len(places) else 0
    kept: list[int] = []
    for place in sorted(places.tolist(), key=lambda place: -pixels[place]):
        if all(np.abs(values[:, place] - values[:, other]).max() >= reach for other in kept):
            kept.append(place)
    return kept
