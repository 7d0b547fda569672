"""Which part of an array a numpy-style key selects, so that no more than that is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def box_around(key: Any, shape: Sequence[int]) -> tuple[list[slice], tuple[Any, ...]]:
    """The bounding box of what a key selects, and the key within that box."""
    keys = list(key) if isinstance(key, tuple) else [key]
    missing = [slice(None)] * (len(shape) - len([each for each in keys if each is not ...]))
    place = next((place for place, each in enumerate(keys) if each is ...), None)
    keys = [*keys, *missing] if place is None else [*keys[:place], *missing, *keys[place + 1 :]]
    box: list[slice] = []
    inside: list[Any] = []
    for size, wanted in zip(shape, keys, strict=True):
        # Places along the axis; negative ones count from its end, as in numpy.
        places = np.arange(size)[wanted]
        first, last = int(places.min(initial=size)), int(places.max(initial=-1))
        box.append(slice(first, max(first, last + 1)))
        step = wanted.indices(size)[2] if isinstance(wanted, slice) else None
        inside.append(slice(None, None, step) if step else places - first)
    return box, tuple(inside)
