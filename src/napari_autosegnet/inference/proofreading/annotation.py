"""What edits of objects teach a network: the cut of a split, the inside of a merge, and what was deleted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.annotations import BOUNDARY_WORDS
from napari_autosegnet.errors import StoppedError, UserError
from napari_autosegnet.inference.blocks import Box, Shape
from napari_autosegnet.inference.instances.objects import grown, sampling, tiles_of, within
from napari_autosegnet.inference.output.ledger import Ledger, instance_ledger_path
from napari_autosegnet.inference.proofreading.edited import Edited, EditedArray
from napari_autosegnet.inference.proofreading.edits import Delete, Merge, Split
from napari_autosegnet.inference.proofreading.proofreading import Proofreading
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.ome_zarr.metadata import OmeGroup
from napari_autosegnet.ome_zarr.nodes import open_array
from napari_autosegnet.ome_zarr.paths import LABELS

#: Pixels: what is farther away from one of two merged objects does not lie between them.
REACH = 6
#: Voxels that are painted in all; they bound the memory, and the time that painting takes.
MAX_VOXELS = 2**21

Places = npt.NDArray[np.int32]


@dataclass(frozen=True)
class EditAnnotation:
    """Voxels that edits say something about.

    Attributes
    ----------
    places : (n, 3)
        Voxels (z, y, x), each once; a 2D image has one section.
    values : (n,)
        The classes that they are of, as the labels of the result number them.
    notes : tuple of str
        Which edits say nothing, and why.
    """

    places: Places
    values: npt.NDArray[np.uint8]
    notes: tuple[str, ...]

    def paint(self, labels: npt.NDArray[Any]) -> Places:
        """Paint them in an annotation (z, y, x) or (y, x), in place, where it is 0: what is painted there stays.

        Returns
        -------
        places : (n, 3)
            What was painted; setting it to 0 takes it back.
        """
        where = tuple(self.places.T[3 - labels.ndim :])
        free = labels[where] == 0
        labels[tuple(axis[free] for axis in where)] = self.values[free]
        kept: Places = self.places[free]
        return kept

    def numbered(self, values: Mapping[int, int]) -> npt.NDArray[np.int64]:
        """What each voxel is painted with where the classes have these values."""
        table = np.zeros(256, np.int64)
        table[list(values)] = list(values.values())
        painted: npt.NDArray[np.int64] = table[self.values]
        return painted


def annotation_of_edits(objects: Proofreading, should_stop: ShouldStop = never_stop) -> EditAnnotation:
    """What the edits that apply now say of the classes; nothing outside of what was edited.

    The voxels on both sides of a split's cut, as sections show it, are boundary. What lies between merged objects,
    and their voxels beside it, are of the objects' class. What was deleted is background, where the model has such a
    class. Later edits lie on top of earlier ones.

    Raises
    ------
    UserError
        When the result has no classes.
    StoppedError
        When a stop was asked for.
    """
    classes = _Classes(objects)
    parts: list[tuple[Places, npt.NDArray[np.uint8]]] = [(np.zeros((0, 3), np.int32), np.zeros(0, np.uint8))]
    notes: list[str] = []
    total = 0
    for count, edit in enumerate(objects.log.done):
        before = Edited(objects.log.done[:count])
        now = EditedArray(objects.levels[0].array, lambda before=before: before)  # type: ignore[misc]
        if isinstance(edit, Split):
            found = _cut(edit, now, objects, classes.boundary)
            nothing = f"the cut between {edit.object} and {edit.new} shows in no section"
        elif isinstance(edit, Merge):
            found = _insides(edit, now, before, objects, classes)
            nothing = f"the objects {', '.join(map(str, edit.objects))} do not meet"
        else:
            found = _deleted(edit, now, before, objects, classes.background or 0)
            nothing = f"no class of the model is background, as object {edit.objects[0]} would be"
        own: list[tuple[Places, npt.NDArray[np.uint8]]] = []
        for places, value in found:
            if should_stop():
                raise StoppedError("the edits were not looked at to the end")
            own.append((places, np.full(len(places), value, np.uint8)))
            if total + sum(len(each) for each, _ in own) > MAX_VOXELS:
                own, nothing = [], f"what edit {count + 1} says is too much to paint"
                break
        size = sum(len(places) for places, _ in own)
        if not size:
            notes.append(f"{nothing}; nothing is painted there")
        parts.extend(own)
        total += size
    # The first of equal places stays, so the latest edit comes first.
    places, values = (np.concatenate(each) for each in zip(*reversed(parts), strict=True))
    flat = np.ravel_multi_index(tuple(places.T), objects.shape)
    first = np.unique(flat, return_index=True)[1]
    return EditAnnotation(places[first], values[first], tuple(dict.fromkeys(notes)))


class _Classes:
    """The classes of a result, by what they say of its objects."""

    def __init__(self, objects: Proofreading) -> None:
        names = OmeGroup.read(objects.store / LABELS).class_names
        numbered = Ledger.settings_of(instance_ledger_path(objects.store)).get("instance_classes")
        if not names or not numbered:
            raise UserError(
                f"{objects.store} does not say which classes its objects are of; use the edits of the result that "
                "predict --instances wrote"
            )
        #: Of the objects.
        self.objects: tuple[int, ...] = tuple(int(index) + 1 for index in numbered)
        others = {value: name.lower() for value, name in names.items() if value and value not in self.objects}
        between = [value for value, name in others.items() if any(word in name for word in BOUNDARY_WORDS)]
        outside = [value for value in others if value not in between]
        #: What lies between objects, and what is no object; None where no class is that.
        self.background = (
            outside[0]
            if len(outside) == 1
            else next(
                (value for value in outside if any(word in others[value] for word in ("background", "outside"))), None
            )
        )
        self.boundary = between[0] if between else self.background or next(iter(others))
        self._labels = open_array(objects.store / LABELS / "0")

    def of_objects(self, box: Box, inside: npt.NDArray[np.bool_]) -> int:
        """The class that most voxels of objects in a box are of."""
        if len(self.objects) == 1:
            return self.objects[0]
        stored = np.asarray(self._labels[tuple(slice(*span) for span in box[3 - self._labels.ndim :])])
        counts = np.bincount(stored.reshape(inside.shape)[inside], minlength=256)
        return max(self.objects, key=lambda value: int(counts[value]))


Found = Iterator[tuple[Places, int]]


def _cut(edit: Split, now: EditedArray, objects: Proofreading, value: int) -> Found:
    """Both sides of a cut. A section shows it as a line: two sections that are parted are not all boundary."""
    z, y, x = ((start, start + size) for start, size in zip(edit.start, edit.shape, strict=True))
    box = grown((z, y, x), (0, 1, 1), objects.shape)
    part = np.zeros([end - start for start, end in box], bool)
    part[within((z, y, x), box)] = edit.part
    rest = (now.box(box) == edit.object) & ~part
    cut = np.zeros_like(part)
    for axis in (1, 2):
        one, other = (tuple(slice(*s) if a == axis else slice(None) for a in range(3)) for s in ((None, -1), (1, None)))
        parted = (part[one] & rest[other]) | (rest[one] & part[other])
        cut[one] |= parted
        cut[other] |= parted
    yield _places(cut, box), value


def _insides(edit: Merge, now: EditedArray, before: Edited, objects: Proofreading, classes: _Classes) -> Found:
    """What lies between each two of the objects that were merged."""
    reach, shape = _margin(objects, 1), objects.shape
    boxes = {number: grown(objects.box(number, before), reach, shape) for number in edit.objects}
    for one, other in combinations(edit.objects, 2):
        spans = [(max(a[0], b[0]), min(a[1], b[1])) for a, b in zip(boxes[one], boxes[other], strict=True)]
        if any(start >= end for start, end in spans):
            continue
        for core in tiles_of((spans[0], spans[1], spans[2])):
            box = grown(core, _margin(objects, 2), shape)
            block = now.box(box)
            inside = _between(block == one, block == other, box, objects)
            inside &= (block == 0) | np.isin(block, edit.objects)
            yield _places(inside[within(core, box)], core), classes.of_objects(box, np.isin(block, (one, other)))


def _between(
    one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_], box: Box, objects: Proofreading
) -> npt.NDArray[np.bool_]:
    """Voxels near both of two objects, within the contour that both have together: the gap, and its sides."""
    from scipy.ndimage import distance_transform_edt

    both, steps = one | other, sampling(objects.placement.scale)
    if not (one.any() and other.any()):
        return np.zeros_like(both)

    def near(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        result: npt.NDArray[np.bool_] = distance_transform_edt(~mask, sampling=steps) <= REACH
        return result

    # Where the volume ends, objects that reach its end go on, and others do not.
    beyond = [
        (0, 0) if size == 1 else (far * (start == 0), far * (end == size))
        for (start, end), size, far in zip(box, objects.shape, _margin(objects, 2), strict=True)
    ]
    dilated = near(np.pad(both, beyond, mode="edge"))
    # Without the closing, the true boundary around the ends of the gap would be taken for inside, too.
    closed = dilated if dilated.all() else distance_transform_edt(dilated, sampling=steps) > REACH
    closed = closed[tuple(slice(more[0], more[0] + size) for more, size in zip(beyond, both.shape, strict=True))]
    inside: npt.NDArray[np.bool_] = (closed | both) & near(one) & near(other)
    return inside


def _margin(objects: Proofreading, times: int) -> Shape:
    """Voxels (z, y, x) within so many times the reach."""
    z, y, x = (times * math.ceil(REACH / step) for step in sampling(objects.placement.scale))
    return z, y, x


def _deleted(edit: Delete, now: EditedArray, before: Edited, objects: Proofreading, value: int) -> Found:
    for number in edit.objects if value else ():
        for tile in tiles_of(objects.box(number, before)):
            yield _places(now.box(tile) == number, tile), value


def _places(mask: npt.NDArray[np.bool_], box: Box) -> Places:
    places: Places = (np.argwhere(mask) + [span[0] for span in box]).astype(np.int32)
    return places
