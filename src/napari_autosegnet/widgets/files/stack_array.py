"""Stacks as arrays for napari, of which only what is looked at is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.array_keys import box_around

if TYPE_CHECKING:
    from napari_autosegnet.data.stack import ImageStack


@dataclass(frozen=True)
class StackArray:
    """A stack of equal sections, read where it is indexed: no more than the box around what is wanted.

    dask would read whole sections, and keep them for a view from the side.

    Attributes
    ----------
    axes : str
        Some of ``tzyxc``, in this order; of an axis that is left out the first is read.
    """

    stack: ImageStack
    axes: str

    @property
    def shape(self) -> tuple[int, ...]:
        sizes = dict(zip("tzyxc", (self.stack.time_points, *self.stack.shape, self.stack.channels), strict=True))
        return tuple(sizes[axis] for axis in self.axes)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.stack.dtype

    @property
    def ndim(self) -> int:
        return len(self.axes)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        around, inside = box_around(key, self.shape)
        box = {axis: slice(0, 1) for axis in "tzyxc"} | dict(zip(self.axes, around, strict=True))
        left = tuple(slice(None) if axis in self.axes else 0 for axis in "tzyxc")
        return self._read(box)[left][inside]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[...], dtype)

    def _read(self, box: dict[str, slice]) -> npt.NDArray[Any]:
        """A box as (t, z, y, x, c)."""
        times = range(box["t"].start, box["t"].stop)
        stacks = [self.stack.at_time(time) if "t" in self.axes else self.stack for time in times]
        parts = [stack.read(box["z"], box["y"], box["x"])[box["c"]] for stack in stacks]
        if not parts:
            return np.zeros([0, *(box[axis].stop - box[axis].start for axis in "zyxc")], self.dtype)
        return np.moveaxis(np.stack(parts) if len(parts) > 1 else parts[0][np.newaxis], 1, -1)
