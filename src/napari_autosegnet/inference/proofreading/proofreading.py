"""The objects of a result, edited: merged, split, deleted; undone and redone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.errors import StoppedError, UserError
from napari_autosegnet.inference.blocks import Box, Shape, length
from napari_autosegnet.inference.instances.measurements import ObjectTable, measured
from napari_autosegnet.inference.instances.objects import boundary_probability, tiles_of
from napari_autosegnet.inference.output.ledger import Ledger, edit_log_path, instance_ledger_path, object_table_path
from napari_autosegnet.inference.proofreading.edited import Edited
from napari_autosegnet.inference.proofreading.edits import MAX_SPLIT, Delete, EditLog, Merge, Redo, Split, Undo
from napari_autosegnet.inference.proofreading.opened import identity, open_levels, store_of, table_digest
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.ome_zarr.nodes import open_array
from napari_autosegnet.ome_zarr.paths import PROBABILITIES

Stroke = Sequence[Sequence[float]]


class Proofreading:
    """Edits the objects of a result; the store itself stays as it is.

    No more than the box around an object is read. Only a result without its table of objects is read whole, once, to
    measure them.

    Parameters
    ----------
    result : Path
        A store with numbered objects, as ``predict --instances`` writes it.
    should_stop : callable, optional

    Attributes
    ----------
    store : Path
    levels : list of EditedArray
        The edited objects at all resolutions, the full one first; they follow every edit.
    placement : Placement
    log : EditLog

    Raises
    ------
    UserError
        When there are no objects, or the edits are of others.
    StoppedError
        When a stop was asked for.
    """

    def __init__(self, result: Path, should_stop: ShouldStop = never_stop) -> None:
        self.store = store_of(result)
        self.edited = Edited(())
        self.levels, self.placement = open_levels(self.store, lambda: self.edited)
        self._table = self._measured(should_stop)
        self.log = EditLog(edit_log_path(self.store), identity(self._table), table_digest(self.store))
        self.edited = Edited(self.log.done)

    @property
    def shape(self) -> Shape:
        """Of the volume (z, y, x); a 2D image has one section."""
        z, y, x = (1, *self.levels[0].shape)[-3:]
        return z, y, x

    def object_of(self, number: int) -> int:
        """The object that one of this number is or was merged into.

        Raises
        ------
        UserError
            When there is none.
        """
        number = int(number)
        known = self._table.row(number) is not None or any(split.new == number for split in self.edited.splits)
        owner = self.edited.object_of(number) if known and number > 0 else 0
        if not owner:
            raise UserError(f"there is no object {number} here; choose another" if number else "choose an object first")
        return owner

    def merge(self, numbers: Sequence[int]) -> int:
        """Make several objects one, which keeps the number of the first.

        Raises
        ------
        UserError
            When there are fewer than two of them, or the log cannot be written.
        """
        objects = tuple(dict.fromkeys(self.object_of(number) for number in numbers))
        if len(objects) < 2:
            raise UserError("choose two different objects to merge")
        self._do(Merge(objects=objects))
        return objects[0]

    def delete(self, numbers: Sequence[int]) -> None:
        """Make objects background; errors as in `merge`."""
        self._do(Delete(objects=tuple(dict.fromkeys(self.object_of(number) for number in numbers))))

    def split(self, one: Stroke, other: Stroke) -> int:
        """Split the object under two strokes between them; returns the number of the part under the second.

        The cut runs where a boundary is most likely or, in a result without probabilities, where the object is
        thinnest. The part under the first stroke keeps the number, as do parts that no stroke reaches.

        Parameters
        ----------
        one, other : sequence of (z, y, x)
            Points in voxels, joined by straight lines; what lies outside the object counts for nothing.

        Raises
        ------
        UserError
            When the strokes do not lie on one object, or it is too large.
        """
        strokes = [_voxels(stroke, self.shape) for stroke in (one, other)]
        number = self._object_under(*strokes)
        box = self.box(number)
        if np.prod([length(span) for span in box]) > MAX_SPLIT:
            raise UserError(f"object {number} is too large to be split; export the edits and split it elsewhere")
        inside = self.levels[0].box(box) == number
        markers = np.zeros(inside.shape, np.int32)
        for value, stroke in enumerate(strokes, start=1):
            places = stroke - [span[0] for span in box]
            within = places[((places >= 0) & (places < inside.shape)).all(axis=1)]
            markers[tuple(within.T)] = value
        markers *= inside
        if len(np.unique(markers)) < 3:
            raise UserError("the strokes cover each other; draw one on each side of the cut")
        heights = self._heights(box, inside)
        # Below the shallower stroke all is level: or else the deeper one would take whatever both reach as easily.
        level = max(heights[markers == value].min() for value in (1, 2))
        parts = _watershed(np.maximum(heights, level), markers, inside)
        new = max(self.log.highest, int(self._table.numbers.max(initial=0))) + 1
        if new > np.iinfo(self.levels[0].dtype).max:
            raise UserError(f"{self.levels[0].dtype} has no number left for one more object; export the objects again")
        self._do(Split.of(number, new, parts == 2, [span[0] for span in box]))
        return new

    def undo(self) -> None:
        """Undo the last edit that is not undone yet."""
        if not self.log.done:
            raise UserError("there is nothing to undo")
        self._do(Undo())

    def redo(self) -> None:
        """Do again what was undone last."""
        if not self.log.undone:
            raise UserError("there is nothing to redo")
        self._do(Redo())

    def box(self, number: int, edited: Edited | None = None) -> Box:
        """A box around an object, which may be a little too large.

        ``edited`` are the edits that made it what it was; by default those that apply now.
        """
        edited = edited or self.edited
        boxes = []
        news = {split.new: split for split in edited.splits}
        for part in edited.parts_of(number):
            row = self._table.row(part)
            if row is not None:
                boxes.append(self._table.box(row))
            elif part in news:  # else its line in the log was lost
                start = np.array(news[part].start)
                boxes.append(np.stack([start, start + news[part].shape]))
        boxes = boxes or [np.zeros((2, 3), np.int64)]
        low = np.min([box[0] for box in boxes], axis=0)
        high = np.minimum(np.max([box[1] for box in boxes], axis=0), self.shape)
        z, y, x = ((int(start), int(end)) for start, end in zip(low, high, strict=True))
        return z, y, x

    def _do(self, edit: Merge | Delete | Split | Undo | Redo) -> None:
        try:
            self.log.append(edit)
        finally:
            self.edited = Edited(self.log.done)

    def _measured(self, should_stop: ShouldStop) -> ObjectTable:
        path = object_table_path(self.store)
        if not path.exists():
            whole = ((0, self.shape[0]), (0, self.shape[1]), (0, self.shape[2]))
            measurements = measured(self.levels[0].box, tiles_of(whole), self.shape, should_stop)
            if measurements is None:
                raise StoppedError("the objects were not measured to the end")
            measurements.write(path, self.placement)
        return ObjectTable(path, self.placement)

    def _object_under(self, *strokes: npt.NDArray[np.int64]) -> int:
        """The object that most voxels of both strokes lie on."""
        found: list[dict[int, int]] = []
        for stroke in strokes:
            if not len(stroke):
                raise UserError("draw both strokes within the volume")
            low, high = stroke.min(axis=0), stroke.max(axis=0) + 1
            if np.prod(high - low) > MAX_SPLIT:
                raise UserError("the strokes are too long; draw short ones near the cut")
            z, y, x = ((int(start), int(end)) for start, end in zip(low, high, strict=True))
            values = self.levels[0].box((z, y, x))[tuple((stroke - low).T)]
            numbers, counts = np.unique(values[values > 0], return_counts=True)
            found.append(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
        both = {number: sum(each[number] for each in found) for number in set.intersection(*map(set, found))}
        if not both:
            raise UserError("the strokes lie on different objects, or on none; draw both on the object to split")
        return max(both, key=lambda number: (both[number], -number))

    def _heights(self, box: Box, inside: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
        """What keeps parts of an object apart: boundary probability, or the distance from its surface."""
        from scipy.ndimage import distance_transform_edt

        settings = Ledger.settings_of(instance_ledger_path(self.store))
        folder = self.store / PROBABILITIES / "0"
        if settings.get("instance_classes") and folder.is_dir():
            array, flat = open_array(folder), 3 - self.levels[0].ndim
            spans = tuple(slice(*span) for span in box[flat:])
            scores = np.stack([np.asarray(array[(channel, *spans)]) for channel in settings["instance_classes"]])
            return boundary_probability(scores.reshape(len(scores), *inside.shape))
        steps = np.array(self.placement.scale) / self.placement.scale[2]
        around = np.pad(inside, 1)  # the box may end where the object does
        depth: npt.NDArray[np.float64] = distance_transform_edt(around, sampling=steps)[1:-1, 1:-1, 1:-1]
        return -depth


def _watershed(
    heights: npt.NDArray[Any], markers: npt.NDArray[np.int32], mask: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int32]:
    from skimage.segmentation import watershed

    parts: npt.NDArray[np.int32] = watershed(heights, markers, mask=mask)  # type: ignore[no-untyped-call]
    return parts


def _voxels(stroke: Stroke, shape: Shape) -> npt.NDArray[np.int64]:
    """Voxels (n, 3) along a line through points (z, y, x), as far as they lie in the volume."""
    points = np.asarray(stroke, float).reshape(-1, 3)
    if not np.isfinite(points).all():
        raise UserError("a stroke has points that are not numbers; draw it again")
    pieces = [points[:1]]
    for start, end in pairwise(points):
        steps = min(int(np.abs(end - start).max()) + 1, sum(shape))
        pieces.append(start + (end - start) * np.linspace(0, 1, steps + 1)[1:, np.newaxis])
    voxels = np.unique(np.rint(np.concatenate(pieces)).astype(np.int64), axis=0)
    result: npt.NDArray[np.int64] = voxels[((voxels >= 0) & (voxels < shape)).all(axis=1)]
    return result
