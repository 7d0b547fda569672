"""Sections that are divided at the same place, and where their classes are painted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.boxes import Box

#: Places remembered of each class; of more, evenly many are left out.
_MAX_PLACES = 50_000
#: Sections in which strokes of a class are looked for.
_MAX_SECTIONS = 8
#: Strokes that are tried whole and, of the largest, in pieces.
MAX_STROKES, MAX_CUT_STROKES = 8, 4

Places = npt.NDArray[np.int64]


@dataclass
class Plane:
    """Sections of one shape that are cut at the same place, since neighbors show the same.

    Attributes
    ----------
    targets : dict
        Class numbers ``(y, x)`` of each section: 0 = not annotated, 1..K.
    classes : int
        K.
    """

    targets: Mapping[int, npt.NDArray[np.uint8]]
    classes: int
    _profiles: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict, repr=False)
    _places: dict[int, tuple[Places, float]] = field(default_factory=dict, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Of every section, ``(y, x)``."""
        height, width = next(iter(self.targets.values())).shape
        return height, width

    @property
    def whole(self) -> Box:
        height, width = self.shape
        return (0, height), (0, width)

    def profile(self, axis: int) -> npt.NDArray[np.int64]:
        """Annotated pixels by class and position on an axis, ``(K, length)``."""
        if axis not in self._profiles:
            profile = np.zeros((self.classes, self.shape[axis]), np.int64)
            for target in self.targets.values():
                for number in range(self.classes):
                    profile[number] += (target == number + 1).sum(1 - axis)
            self._profiles[axis] = profile
        return self._profiles[axis]

    def pixels(self) -> npt.NDArray[np.int64]:
        """Annotated pixels by class, ``(K,)``."""
        per_class: npt.NDArray[np.int64] = self.profile(0).sum(1)
        return per_class

    def places(self, number: int) -> tuple[Places, float]:
        """Rows and columns ``(2, n)`` of pixels of class index ``number``, and how many pixels each stands for."""
        if number not in self._places:
            total = int(self.pixels()[number])
            step = max(1, math.ceil(total / _MAX_PLACES))
            by_section = [np.flatnonzero(target == number + 1)[::step] for target in self.targets.values()]
            places = np.stack(np.divmod(np.concatenate(by_section), self.shape[1]))
            self._places[number] = places, total / max(1, places.shape[1])
        return self._places[number]

    def strokes(self, number: int) -> list[Places]:
        """Rows and columns ``(2, n)`` of connected strokes of a class, the largest first."""
        painted = [target for target in self.targets.values() if (target == number + 1).any()]
        chosen = painted[:: max(1, math.ceil(len(painted) / _MAX_SECTIONS))]
        strokes = (stroke for target in chosen for stroke in _strokes(target == number + 1))
        return sorted(strokes, key=size_of, reverse=True)


def _strokes(painted: npt.NDArray[np.bool_]) -> list[Places]:
    """Connected strokes of one section: the largest, and others of all sizes."""
    from scipy.ndimage import find_objects, label

    components, count = label(painted, np.ones((3, 3)))
    places = find_objects(components)
    order = np.argsort(-np.bincount(components.ravel(), minlength=count + 1)[1:], kind="stable")
    others = order[MAX_CUT_STROKES :: max(1, math.ceil(count / MAX_STROKES))]
    strokes = []
    for index in [*order[:MAX_CUT_STROKES].tolist(), *others.tolist()]:
        rows, columns = places[index]
        inside = np.stack(np.nonzero(components[rows, columns] == index + 1))
        strokes.append(inside + np.array([[rows.start], [columns.start]]))
    return strokes


def size_of(stroke: Places) -> int:
    """Pixels of a stroke."""
    return int(stroke.shape[1])


@dataclass(frozen=True)
class Cut:
    """Boxes of one plane to train and to validate on."""

    training: tuple[Box, ...]
    validation: tuple[Box, ...]


def is_complete(planes: Sequence[Plane], cuts: Sequence[Cut]) -> bool:
    """Whether every class that occurs is on both sides."""
    occurring = sum(plane.pixels() for plane in planes) > 0
    sides = np.zeros((2, planes[0].classes), np.int64)
    for plane, cut in zip(planes, cuts, strict=True):
        for target in plane.targets.values():
            for side, boxes in enumerate((cut.training, cut.validation)):
                for y, x in boxes:
                    sides[side] += np.bincount(target[slice(*y), slice(*x)].ravel(), minlength=plane.classes + 1)[1:]
    return bool((sides[:, occurring] > 0).all())
