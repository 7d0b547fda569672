"""Rectangles of pixels: with a margin, with a side moved, and what is left of one without others."""

from __future__ import annotations

from collections.abc import Sequence

Span = tuple[int, int]
#: (start, stop) in y and in x.
Box = tuple[Span, Span]


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


def widened(box: Box, gap: tuple[int, int]) -> Box:
    """A box with a gap around it."""
    (y0, y1), (x0, x1) = box
    return (y0 - gap[0], y1 + gap[0]), (x0 - gap[1], x1 + gap[1])


def stretched(box: Box, side: int, step: int, whole: Box) -> Box:
    """A box with one side moved outwards, not beyond the whole."""
    sides = [list(span) for span in box]
    axis, last = divmod(side, 2)
    moved = sides[axis][last] + (step if last else -step)
    sides[axis][last] = min(max(moved, whole[axis][0]), whole[axis][1])
    (y0, y1), (x0, x1) = sides
    return (y0, y1), (x0, x1)
