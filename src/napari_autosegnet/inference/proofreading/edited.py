"""Numbered objects as they are after edits, made of what is stored wherever it is looked at.

A voxel belongs to the part that the last split of it made, or to the object that it had. Numbers of parts are never
used twice, so all splits can be laid over a block first, and one look at a table then says which object each part
belongs to, whether it was merged or deleted before the split or after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.array_keys import box_around
from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.blocks import Box, Shape
from napari_autosegnet.inference.instances.objects import Ids
from napari_autosegnet.inference.proofreading.edits import Change, Merge, Split

#: Voxels of the largest look that is kept.
MAX_SEEN = 2**24
#: Looks that are kept: napari's at what the window shows, and at all of a small level for the layer's thumbnail.
_LOOKS = 2


class Edited:
    """What edits make of objects.

    Parameters
    ----------
    edits : sequence of Change
        In their order.

    Attributes
    ----------
    splits : tuple of Split
    """

    def __init__(self, edits: Sequence[Change]) -> None:
        self.splits = tuple(edit for edit in edits if isinstance(edit, Split))
        self._start = np.array([split.start for split in self.splits]).reshape(-1, 3)
        self._end = self._start + np.array([split.shape for split in self.splits]).reshape(-1, 3)
        self._owner: dict[int, int] = {}
        for edit in edits:
            if isinstance(edit, Split):
                continue
            objects = list(dict.fromkeys(self.object_of(number) for number in edit.objects))
            target = objects.pop(0) if isinstance(edit, Merge) else 0
            self._owner.update((number, target) for number in objects if number)
        self._changed = np.array(sorted(self._owner), np.int64)
        self._objects = np.array([self.object_of(int(number)) for number in self._changed], np.int64)

    def object_of(self, number: int) -> int:
        """The object that voxels of this number belong to now; 0 where it was deleted."""
        while number in self._owner:
            number = self._owner[number]
        return number

    def parts_of(self, number: int) -> list[int]:
        """The object's own number, and those of what was merged into it."""
        return [number, *self._changed[self._objects == number].tolist()]

    def apply(self, objects: Ids, origin: Shape, factor: Shape = (1, 1, 1)) -> Ids:
        """Edit a block (z, y, x) in place.

        Parameters
        ----------
        origin : (z, y, x)
            Its place in its level.
        factor : (z, y, x)
            Of the level, of which every voxel is one of the full resolution.
        """
        first, step = np.array(origin), np.array(factor)
        last = first + objects.shape - 1
        for index in np.flatnonzero((self._start <= last * step).all(1) & (self._end > first * step).all(1)):
            low = np.maximum(first, -(-self._start[index] // step))
            high = np.minimum(last + 1, -(-self._end[index] // step))
            if (low < high).all():
                split = self.splits[index]
                inside = tuple(slice(*span) for span in zip(low - first, high - first, strict=True))
                ends = (low * step - self._start[index], high * step - self._start[index])
                objects[inside][split.part[tuple(slice(*each) for each in zip(*ends, step, strict=True))]] = split.new
        if len(self._changed):
            where = np.isin(objects, self._changed)
            objects[where] = self._objects[np.searchsorted(self._changed, objects[where])]
        return objects


@dataclass(frozen=True)
class EditedArray:
    """One level of edited objects as an array for napari and others; only what is indexed is read.

    Attributes
    ----------
    array
        What is stored, (z, y, x) or (y, x).
    edited : callable
        Gives the edits that apply now.
    factor : (z, y, x)
        Of the level.
    """

    array: Any
    edited: Callable[[], Edited]
    factor: Shape = (1, 1, 1)
    #: What was looked at last, kept for the next look, the latest first: box, edits, and objects.
    _seen: list[tuple[Box, Edited, Ids]] = field(default_factory=list, repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self.array.dtype
        return dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def box(self, box: Box) -> Ids:
        """Objects (z, y, x) of a box; a 2D image has one section."""
        flat = 3 - self.ndim
        stored = np.array(self.array[tuple(slice(*span) for span in box[flat:])])
        z, y, x = (span[0] for span in box)
        return self.edited().apply(stored[np.newaxis] if flat else stored, (z, y, x), self.factor)

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        box, inside = box_around(key, self.shape)
        z, y, x = ((0, 1),) * (3 - self.ndim) + tuple((part.start, part.stop) for part in box)
        objects = self._look((z, y, x))
        values: npt.NDArray[Any] = objects.reshape([part.stop - part.start for part in box])[inside]
        return values

    def __setitem__(self, key: Any, value: Any) -> None:
        raise UserError("objects are not painted; merge, split, or delete them: Mend objects, in the step Apply")

    def look_again(self, like: EditedArray | None = None) -> None:
        """Read what was looked at last (in ``like``, if given) again, ahead of the next look. For a thread."""
        for box, _, _ in (like or self)._seen[::-1]:
            self._look(box)

    def _look(self, box: Box) -> Ids:
        edited = self.edited()
        for known, edits, objects in self._seen:
            if known == box and edits is edited:
                return objects
        objects = self.box(box)
        if objects.size <= MAX_SEEN:
            others = [each for each in self._seen if each[0] != box]
            self._seen[:] = [(box, edited, objects), *others][:_LOOKS]
        return objects

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self[...], dtype)  # what is kept stays as it is
