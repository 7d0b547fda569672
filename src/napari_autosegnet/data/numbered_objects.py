"""Whether the values of a label image are numbered objects, such as single cells, and no classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

#: More values than this are instances where no two of them touch, or each is in one piece.
MAX_SEPARATE_CLASSES = 6
_MAX_RANGE = 2**16


def are_objects(values: npt.NDArray[Any]) -> bool:
    """Whether no two values lie side by side, or there are many and each is in one piece, as cells that touch are."""
    return not values_touch(values) or are_single_pieces(values)


def are_single_pieces(values: npt.NDArray[Any]) -> bool:
    """Whether there are more values than a few classes, and each lies in one piece."""
    from scipy import ndimage

    known = np.unique(values)
    known = known[known > 0]
    if len(known) <= MAX_SEPARATE_CLASSES:
        return False
    numbers = values if known[-1] < _MAX_RANGE else np.searchsorted(known, values, side="right")
    boxes = ndimage.find_objects(numbers)
    # Only the surroundings of each value are looked at, up to the first in pieces: quick for objects and for classes.
    corners = np.ones((3, 3), bool)
    return not any(
        box is not None and ndimage.label(numbers[box] == number, corners)[1] > 1 for number, box in enumerate(boxes, 1)
    )


def values_touch(values: npt.NDArray[Any]) -> bool:
    """Whether two different values other than 0 lie side by side."""
    return any(
        bool(((one != other) & (one > 0) & (other > 0)).any())
        for one, other in ((values[1:], values[:-1]), (values[:, 1:], values[:, :-1]))
    )
