"""Sections cut into a part to train on and a part to validate on, with a gap of pixels between the two.

A straight cut comes first. Where it leaves a class on one side, boxes are cut out for validation instead: around
whole strokes of each class, or, where a class has but one, around a piece of it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Span = tuple[int, int]
#: (start, stop) in y and in x.
Box = tuple[Span, Span]

#: Gap in pixels and as a fraction of the side; it shrinks to the first where there is no room for the second.
GAP_PIXELS, GAP_FRACTION = 8, 1 / 16
#: Shortest side of a straight cut's parts, and of what is left to train on beside boxes.
_MIN_SIDE = 16
#: A straight cut whose classes deviate no more from the wanted fraction is taken without a look at other axes.
_GOOD_DEVIATION = 0.1
#: Places remembered of each class; of more, evenly many are left out.
_MAX_PLACES = 50_000
#: Sections in which strokes of a class are looked for; strokes that are tried whole and in pieces; boxes tried in all.
_MAX_SECTIONS, _MAX_STROKES, _MAX_CUT_STROKES, _MAX_TRIALS = 8, 8, 4, 400
#: Of a class no more than this is given up for larger boxes, which come no nearer to the rest than these pixels.
_MAX_LOSS, _SURROUNDINGS = 0.5, np.array([0, 8, 16, 32, 64])

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

    def gap(self, halvings: int) -> tuple[int, int]:
        """Pixels between the parts in y and in x, after they were halved so many times."""
        return gap_between(self.shape, halvings)

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
        return sorted(strokes, key=_size, reverse=True)


def _strokes(painted: npt.NDArray[np.bool_]) -> list[Places]:
    """Connected strokes of one section: the largest, and others of all sizes."""
    from scipy.ndimage import find_objects, label

    components, count = label(painted, np.ones((3, 3)))
    places = find_objects(components)
    order = np.argsort(-np.bincount(components.ravel(), minlength=count + 1)[1:], kind="stable")
    others = order[_MAX_CUT_STROKES :: max(1, math.ceil(count / _MAX_STROKES))]
    strokes = []
    for index in [*order[:_MAX_CUT_STROKES].tolist(), *others.tolist()]:
        rows, columns = places[index]
        inside = np.stack(np.nonzero(components[rows, columns] == index + 1))
        strokes.append(inside + np.array([[rows.start], [columns.start]]))
    return strokes


def _size(stroke: Places) -> int:
    return int(stroke.shape[1])


@dataclass(frozen=True)
class Cut:
    """Boxes of one plane to train and to validate on."""

    training: tuple[Box, ...]
    validation: tuple[Box, ...]


def cut_planes(planes: Sequence[Plane], fraction: float, generator: np.random.Generator) -> list[Cut]:
    """A cut of each plane, so that every class is on both sides in all planes together where that is possible.

    Parameters
    ----------
    fraction : float
        Of the annotated pixels for validation.

    Returns
    -------
    list of Cut
        With the widest gap that leaves every class on both sides; the first straight cuts if none does.
    """
    first: list[Cut] | None = None
    for halvings in itertools.count():
        gaps = [plane.gap(halvings) for plane in planes]
        straight = [_straight_cut(plane, gap, fraction, generator) for plane, gap in zip(planes, gaps, strict=True)]
        if _is_complete(planes, straight):
            return straight
        boxes = _BoxSearch(planes, gaps, fraction, generator).run()
        if boxes is not None:
            return boxes
        first = first or straight
        if all(max(gap) == GAP_PIXELS for gap in gaps):
            return first
    raise AssertionError("the gaps shrink to an end")


def gap_between(shape: tuple[int, int], halvings: int) -> tuple[int, int]:
    """Pixels between the parts of a section of this shape, in y and in x, after they were halved so many times."""
    y, x = (max(GAP_PIXELS, math.ceil(side * GAP_FRACTION) >> halvings) for side in shape)
    return y, x


def without(box: Box, hole: Box) -> list[Box]:
    """Up to four boxes that cover a box but for a hole."""
    (top, bottom), (left, right) = box
    y0, y1 = max(top, hole[0][0]), min(bottom, hole[0][1])
    x0, x1 = max(left, hole[1][0]), min(right, hole[1][1])
    if y0 >= y1 or x0 >= x1:
        return [box]
    # Whichever way leaves the largest pieces: strips above and below the hole, or beside it.
    if max(y0 - top, bottom - y1) * (right - left) >= max(x0 - left, right - x1) * (bottom - top):
        pieces = [
            ((top, y0), (left, right)),
            ((y1, bottom), (left, right)),
            ((y0, y1), (left, x0)),
            ((y0, y1), (x1, right)),
        ]
    else:
        pieces = [
            ((top, bottom), (left, x0)),
            ((top, bottom), (x1, right)),
            ((top, y0), (x0, x1)),
            ((y1, bottom), (x0, x1)),
        ]
    return [(y, x) for y, x in pieces if y[0] < y[1] and x[0] < x[1]]


def without_all(box: Box, holes: Sequence[Box]) -> list[Box]:
    """Boxes that cover a box but for some holes."""
    boxes = [box]
    for hole in holes:
        boxes = [piece for each in boxes for piece in without(each, hole)]
    return boxes


def _is_complete(planes: Sequence[Plane], cuts: Sequence[Cut]) -> bool:
    """Whether every class that occurs is on both sides."""
    occurring = sum(plane.pixels() for plane in planes) > 0
    sides = np.zeros((2, planes[0].classes), np.int64)
    for plane, cut in zip(planes, cuts, strict=True):
        for target in plane.targets.values():
            for side, boxes in enumerate((cut.training, cut.validation)):
                for y, x in boxes:
                    sides[side] += np.bincount(target[slice(*y), slice(*x)].ravel(), minlength=plane.classes + 1)[1:]
    return bool((sides[:, occurring] > 0).all())


# ---------------------------------------------------------------- straight cuts


def _straight_cut(plane: Plane, gap: tuple[int, int], fraction: float, generator: np.random.Generator) -> Cut:
    """One side for validation; nothing where the plane is too small."""
    longer = int(plane.shape[1] >= plane.shape[0])
    ends = [bool(end) for end in generator.permutation(2)]
    best: tuple[float, Cut] | None = None
    for axis, high in itertools.product((longer, 1 - longer), ends):
        cut = _best_position(plane, axis, high, gap[axis], fraction)
        if cut is not None and (best is None or cut[0] < best[0]):
            best = cut
        if best is not None and best[0] <= _GOOD_DEVIATION:
            break
    return best[1] if best is not None else Cut((), ())


def _best_position(plane: Plane, axis: int, high: bool, gap: int, fraction: float) -> tuple[float, Cut] | None:
    """How far the best cut across an axis is from what is wanted, and the cut; ``high``: validation comes last."""
    length = plane.shape[axis]
    least = min(_MIN_SIDE, (length - gap) // 2)
    if least < 1:
        return None
    profile = plane.profile(axis)
    reached = np.concatenate([np.zeros((plane.classes, 1), np.int64), np.cumsum(profile, axis=1)], axis=1)
    total = reached[:, -1]
    occurring = total > 0
    starts = np.arange(least, length - least - gap + 1)  # of the gap
    low = reached[occurring][:, starts] / total[occurring, np.newaxis]
    above = 1 - reached[occurring][:, starts + gap] / total[occurring, np.newaxis]
    training, validation = (low, above) if high else (above, low)
    lack = np.maximum(0, (1 - fraction) / 2 - training)  # the gap takes from it
    deviation = (np.abs(validation - fraction) + lack).mean(0)
    one_sided = ((training == 0) | (validation == 0)).sum(0)
    score = one_sided + deviation
    start = int(starts[score.argmin()])
    sides: list[Span] = [(0, start), (start + gap, length)]
    across = plane.whole[1 - axis]
    first, last = ((side, across) if axis == 0 else (across, side) for side in sides)
    return float(score.min()), Cut((first,), (last,)) if high else Cut((last,), (first,))


# ---------------------------------------------------------------- boxes


@dataclass(frozen=True)
class _Placed:
    """A box for validation on one of the planes."""

    plane: int
    box: Box


class _BoxSearch:
    """Boxes for validation that leave every class on both sides, grown as far as that allows."""

    def __init__(
        self,
        planes: Sequence[Plane],
        gaps: Sequence[tuple[int, int]],
        fraction: float,
        generator: np.random.Generator,
    ) -> None:
        self._planes = planes
        self._gaps = gaps
        self._fraction = fraction
        self._ends = [int(end) for end in generator.permutation(4)]
        self._trials = 0
        self._total: npt.NDArray[np.float64] = np.sum([plane.pixels() for plane in planes], axis=0).astype(float)
        self._occurring = self._total > 0

    def run(self) -> list[Cut] | None:
        """A cut of each plane; None where no boxes were found."""
        rarest_first = [int(number) for number in np.argsort(self._total, kind="stable") if self._occurring[number]]
        boxes = self._place(rarest_first, [])
        if boxes is None:
            return None
        self._grow(boxes)
        return self._without_strips([self._cut(index, boxes) for index in range(len(self._planes))])

    def _without_strips(self, cuts: list[Cut]) -> list[Cut]:
        """Cuts without narrow boxes, which show a network little, where these are not needed."""
        for trained, validated in ((_MIN_SIDE, 0), (0, _MIN_SIDE)):
            wide = [Cut(_wider(cut.training, trained), _wider(cut.validation, validated)) for cut in cuts]
            if _is_complete(self._planes, wide):
                cuts = wide
        return cuts

    def _place(self, missing: Sequence[int], boxes: list[_Placed]) -> list[_Placed] | None:
        """Boxes that hold the missing classes, too, and leave some of each class outside."""
        if not missing:
            return boxes
        for seed in self._seeds(missing[0]):
            self._trials += 1
            if self._trials > _MAX_TRIALS:
                return None
            more = [*boxes, seed]
            training, validation = self._counts(more)
            if (training[0, self._occurring] > 0).all() and validation[missing[0]] > 0:
                moved = self._place([number for number in missing if validation[number] == 0], more)
                if moved is not None:
                    return moved
        return None

    def _seeds(self, number: int) -> Iterator[_Placed]:
        """Boxes around whole strokes of a class, then around pieces of them."""
        strokes = [(index, stroke) for index, plane in enumerate(self._planes) for stroke in plane.strokes(number)]
        strokes.sort(key=lambda each: _size(each[1]), reverse=True)
        wanted = self._fraction * self._total[number]
        best_fitting = sorted(strokes, key=lambda each: abs(_size(each[1]) - wanted))
        for index, stroke in best_fitting[:_MAX_STROKES]:
            yield _Placed(index, _around(stroke))
        for fraction in (self._fraction, 0.0):
            for index, stroke in strokes[:_MAX_CUT_STROKES]:
                for end in self._ends:
                    yield _Placed(index, _around(_piece(stroke, end, fraction)))

    def _counts(self, boxes: Sequence[_Placed]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Pixels per class to train on ``(n, K)``, with each of `_SURROUNDINGS`, and to validate on ``(K,)``."""
        training, validation = np.zeros((len(_SURROUNDINGS), len(self._total))), np.zeros_like(self._total)
        for index, (plane, gap) in enumerate(zip(self._planes, self._gaps, strict=True)):
            own = [each.box for each in boxes if each.plane == index]
            for number in range(plane.classes):
                places, weight = plane.places(number)
                validation[number] += weight * np.count_nonzero(_distance(places, own, (0, 0)) <= 0)
                beyond = _distance(places, own, gap)
                training[:, number] += [weight * np.count_nonzero(beyond > margin) for margin in _SURROUNDINGS]
        return training, validation

    def _grow(self, boxes: list[_Placed]) -> None:
        """Make the boxes larger, in place, since a network needs surroundings, too."""
        reach = max(max(plane.shape) for plane in self._planes)
        steps = [2**power for power in range(3, reach.bit_length() + 1)]
        training, validation = self._counts(boxes)
        least = np.minimum(training, _MAX_LOSS * self._total)
        most = max(validation.sum(), self._fraction * self._total.sum())
        for step, place, side in itertools.product(steps, range(len(boxes)), range(4)):
            before = boxes[place]
            box = _stretched(before.box, side, step, self._planes[before.plane].whole)
            boxes[place] = _Placed(before.plane, box)
            training, validation = self._counts(boxes)
            if (training < least).any() or validation.sum() > most:
                boxes[place] = before

    def _cut(self, index: int, placed: Sequence[_Placed]) -> Cut:
        plane, gap = self._planes[index], self._gaps[index]
        boxes = [each.box for each in placed if each.plane == index]
        training = without_all(plane.whole, [widened(box, gap) for box in boxes])
        validation = [piece for place, box in enumerate(boxes) for piece in without_all(box, boxes[:place])]
        return Cut(tuple(training), tuple(validation))


def _wider(boxes: Sequence[Box], side: int) -> tuple[Box, ...]:
    return tuple(box for box in boxes if min(stop - start for start, stop in box) >= side)


def _distance(places: Places, boxes: Sequence[Box], gap: tuple[int, int]) -> npt.NDArray[np.float64]:
    """How far places ``(2, n)`` lie beyond the gap around the nearest box; 0 or less: in it."""
    distance = np.full(places.shape[1], np.inf)
    for box in boxes:
        axes = zip(places, box, gap, strict=True)
        beyond = [np.maximum(start - place, place - stop + 1) - width for place, (start, stop), width in axes]
        distance = np.minimum(distance, np.maximum(*beyond))
    return distance


def _around(stroke: Places) -> Box:
    (y0, x0), (y1, x1) = stroke.min(1).tolist(), stroke.max(1).tolist()
    return (y0, y1 + 1), (x0, x1 + 1)


def _piece(stroke: Places, end: int, fraction: float) -> Places:
    """A fraction of a stroke, at least its outermost pixels, at its top, bottom, left or right end."""
    along = stroke[end // 2] if end % 2 == 0 else -stroke[end // 2]
    return stroke[:, along <= np.quantile(along, fraction, method="lower")]


def widened(box: Box, gap: tuple[int, int]) -> Box:
    """A box with a gap around it."""
    (y0, y1), (x0, x1) = box
    return (y0 - gap[0], y1 + gap[0]), (x0 - gap[1], x1 + gap[1])


def _stretched(box: Box, side: int, step: int, whole: Box) -> Box:
    """A box with one side moved outwards, not beyond the whole."""
    sides = [list(span) for span in box]
    axis, last = divmod(side, 2)
    moved = sides[axis][last] + (step if last else -step)
    sides[axis][last] = min(max(moved, whole[axis][0]), whole[axis][1])
    (y0, y1), (x0, x1) = sides
    return (y0, y1), (x0, x1)
