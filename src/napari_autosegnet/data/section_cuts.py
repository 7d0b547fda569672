"""Sections cut into a part to train on and a part to validate on, with a gap of pixels between the two.

A straight cut comes first. Where it leaves a class on one side, boxes are cut out for validation instead
(`validation_boxes`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from napari_autosegnet.data.boxes import Span
from napari_autosegnet.data.planes import Cut, Plane, is_complete
from napari_autosegnet.data.validation_boxes import BoxSearch

#: Gap in pixels and as a fraction of the side; it shrinks to the first where there is no room for the second.
GAP_PIXELS, GAP_FRACTION = 8, 1 / 16
#: Shortest side of a straight cut's parts.
_MIN_SIDE = 16
#: A straight cut whose classes deviate no more from the wanted fraction is taken without a look at other axes.
_GOOD_DEVIATION = 0.1


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
        gaps = [gap_between(plane.shape, halvings) for plane in planes]
        straight = [_straight_cut(plane, gap, fraction, generator) for plane, gap in zip(planes, gaps, strict=True)]
        if is_complete(planes, straight):
            return straight
        boxes = BoxSearch(planes, gaps, fraction, generator).run()
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
