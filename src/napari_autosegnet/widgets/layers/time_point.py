"""A result of one time point, shown on a series of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.widgets.layers.layer_arrays import empty_labels


class AtTimePoint:
    """An array (z, y, x) or (y, x) as one of a number of time points: (t, z, y, x) or (t, y, x).

    The others are 0 until they are painted; what is painted there lasts as long as the layer.
    """

    def __init__(self, array: Any, time: int, count: int) -> None:
        self._array = array
        self._time = time
        self._others = empty_labels((count, *array.shape))
        self.shape: tuple[int, ...] = (count, *array.shape)
        self.dtype = np.dtype(array.dtype)
        self.ndim = len(self.shape)
        self.size = int(np.prod(self.shape, dtype=np.int64))

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        time, rest = self._split(key)
        if isinstance(time, int):
            return np.asarray(self._array[rest or ...] if time == self._time else self._others[(time, *rest)])
        if isinstance(time, slice):
            numbers = range(*time.indices(self.shape[0]))
            return np.stack([self[(number, *rest)] for number in numbers])
        here = time == self._time
        values = np.asarray(self._others[(time, *rest)]).astype(self.dtype)
        if here.any():
            values[here] = self._array[tuple(axis[here] for axis in rest)]
        return values

    def __setitem__(self, key: Any, value: Any) -> None:
        time, rest = self._split(key)
        if isinstance(time, int):
            if time == self._time:
                self._array[rest or ...] = value
            else:
                self._others[(time, *rest)] = value
            return
        if isinstance(time, slice):
            for number, part in zip(range(*time.indices(self.shape[0])), value, strict=True):
                self[(number, *rest)] = part
            return
        here = time == self._time
        values = np.broadcast_to(value, time.shape)
        for target, chosen, index in (
            (self._array, here, rest),
            (self._others, ~here, (time, *rest)),
        ):
            if chosen.any():
                target[tuple(axis[chosen] for axis in index)] = values[chosen].astype(target.dtype)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[:], dtype)

    def _split(self, key: Any) -> tuple[Any, tuple[Any, ...]]:
        key = key if isinstance(key, tuple) else (key,)
        if key and key[0] is Ellipsis:
            key = (slice(None),) * (self.ndim - len(key) + 1) + key[1:]
        time = key[0] if key else slice(None)
        if not isinstance(time, slice):
            time = np.asarray(time) if np.ndim(time) else int(time) % self.shape[0]
        return time, key[1:]
