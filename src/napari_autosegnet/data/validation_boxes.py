"""Boxes cut out for validation where no straight cut leaves every class on both sides.

They lie around whole strokes of each class, or, where a class has but one, around a piece of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.boxes import Box, stretched, widened, without_all
from napari_autosegnet.data.planes import MAX_CUT_STROKES, MAX_STROKES, Cut, Places, Plane, is_complete, size_of

#: Shortest side of what is left to train on beside boxes, and of boxes.
_MIN_SIDE = 16
#: Boxes tried in all.
_MAX_TRIALS = 400
#: Of a class no more than this is given up for larger boxes, which come no nearer to the rest than these pixels.
_MAX_LOSS, _SURROUNDINGS = 0.5, np.array([0, 8, 16, 32, 64])


@dataclass(frozen=True)
class _Placed:
    """A box for validation on one of the planes."""

    plane: int
    box: Box


class BoxSearch:
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
            if is_complete(self._planes, wide):
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
        strokes.sort(key=lambda each: size_of(each[1]), reverse=True)
        wanted = self._fraction * self._total[number]
        best_fitting = sorted(strokes, key=lambda each: abs(size_of(each[1]) - wanted))
        for index, stroke in best_fitting[:MAX_STROKES]:
            yield _Placed(index, _around(stroke))
        for fraction in (self._fraction, 0.0):
            for index, stroke in strokes[:MAX_CUT_STROKES]:
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
            box = stretched(before.box, side, step, self._planes[before.plane].whole)
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
