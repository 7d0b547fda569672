"""What is measured of numbered objects: a table, one row for each, gathered tile by tile."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_autosegnet.errors import UserError
from napari_autosegnet.files import write_atomically
from napari_autosegnet.inference.blocks import Box, Shape, length
from napari_autosegnet.inference.instances.objects import Ids
from napari_autosegnet.interruption import ShouldStop
from napari_autosegnet.units import Placement

_ENDS = tuple(f"{axis}_{end}" for end in ("start", "end") for axis in "zyx")
COLUMNS = ("object", "voxels", "volume", "surface", *_ENDS, "unit")


class Measurements:
    """Voxels, boxes, and faces of objects; memory is needed for the table, not for the volume.

    Faces are those between voxels of an object and others: where the volume ends there are none.
    """

    def __init__(self) -> None:
        self._voxels = np.zeros(0, np.int64)
        self._faces = np.zeros((0, 3), np.int64)
        self._start = np.zeros((0, 3), np.int64)
        self._end = np.zeros((0, 3), np.int64)

    def add(self, objects: Ids, core: Shape, origin: Shape) -> None:
        """Add a tile.

        Parameters
        ----------
        objects : (z, y, x)
            The tile, and the layer of voxels behind it along each axis, where there is one.
        core : (z, y, x)
            Shape of the tile alone.
        origin : (z, y, x)
            Its place in the volume.
        """
        from scipy.ndimage import find_objects

        z, y, x = core
        inside = objects[:z, :y, :x]
        numbers, index, counts = np.unique(inside, return_inverse=True, return_counts=True)
        self._grow(int(objects.max(initial=0)) + 1)
        self._voxels[numbers] += counts
        for number, box in zip(numbers, find_objects(index.reshape(core).astype(np.int32) + 1), strict=True):
            place = np.array([[part.start, part.stop] for part in box]) + np.array(origin)[:, np.newaxis]
            self._start[number] = np.minimum(self._start[number], place[:, 0])
            self._end[number] = np.maximum(self._end[number], place[:, 1])
        for axis in range(3):
            beside = objects[tuple(slice(size if each != axis else None) for each, size in enumerate(core))]
            one, other = (np.moveaxis(beside, axis, 0)[part] for part in (slice(-1), slice(1, None)))
            differ = one != other
            for side in (one, other):
                touched, faces = np.unique(side[differ], return_counts=True)
                self._faces[touched, axis] += faces

    def rows(self, placement: Placement) -> Iterable[tuple[object, ...]]:
        """The table's rows, as `COLUMNS`; what is no object (0) has none."""
        # The translation is the middle of the first voxel.
        scale, first = np.abs(placement.scale), np.array(placement.translation)
        sides = np.array([scale[1] * scale[2], scale[0] * scale[2], scale[0] * scale[1]])
        for number in np.flatnonzero(self._voxels[1:]) + 1:
            voxels, ends = int(self._voxels[number]), (self._start[number], self._end[number])
            numbers = [voxels * scale.prod(), self._faces[number] @ sides]
            numbers += [value for end in ends for value in first + (end - 0.5) * scale]
            yield (int(number), voxels, *(f"{value:.6g}" for value in numbers), placement.unit or "")

    def write(self, path: Path, placement: Placement) -> None:
        """Write the table as CSV."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(self.rows(placement))
        write_atomically(path, text.getvalue())

    def _grow(self, count: int) -> None:
        more = count - len(self._voxels)
        if more <= 0:
            return
        more = max(more, len(self._voxels))  # doubled, so that it is seldom done
        self._voxels = np.concatenate([self._voxels, np.zeros(more, np.int64)])
        self._faces, self._end = (
            np.concatenate([values, np.zeros((more, 3), np.int64)]) for values in (self._faces, self._end)
        )
        self._start = np.concatenate([self._start, np.full((more, 3), np.iinfo(np.int64).max)])


def measured(
    read: Callable[[Box], Ids], tiles: Iterable[Box], shape: Shape, should_stop: ShouldStop
) -> Measurements | None:
    """Measure the objects of a volume tile by tile; None when asked to stop."""
    measurements = Measurements()
    for tile in tiles:
        if should_stop():
            return None
        z, y, x = ((start, min(end + 1, size)) for (start, end), size in zip(tile, shape, strict=True))
        core = (length(tile[0]), length(tile[1]), length(tile[2]))
        measurements.add(read((z, y, x)), core, (z[0], y[0], x[0]))
    return measurements


class ObjectTable:
    """A table of objects, read again.

    Parameters
    ----------
    path : Path
        As `Measurements.write` wrote it.
    placement : Placement
        Of the volume.

    Attributes
    ----------
    numbers, voxels : (n,)
        Of every object; the numbers ascend.

    Raises
    ------
    UserError
        When it is damaged.
    """

    def __init__(self, path: Path, placement: Placement) -> None:
        columns = ("object", "voxels", *_ENDS)
        try:
            with open(path, newline="", encoding="utf-8") as file:
                rows = [[float(row[name]) for name in columns] for row in csv.DictReader(file)]
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise UserError(
                f"{path} is not a table of objects; delete it, and the objects are measured again"
            ) from error
        values = np.array(sorted(rows)).reshape(-1, len(columns))
        self.numbers, self.voxels = values[:, :2].astype(np.int64).T
        first, scale = np.array(placement.translation), np.abs(placement.scale)
        ends = values[:, 2:].reshape(-1, 2, 3)
        # Six digits are kept: a box that is a little too large does no harm.
        doubt = np.abs(ends) * 1e-5 / scale + 0.01
        places = (ends - first) / scale + 0.5
        self._start = np.floor(places[:, 0] - doubt[:, 0] + 0.5).astype(np.int64).clip(0)
        self._end = np.ceil(places[:, 1] + doubt[:, 1] - 0.5).astype(np.int64)

    def row(self, number: int) -> int | None:
        """The row of an object; None where there is none."""
        row = int(np.searchsorted(self.numbers, number))
        return row if row < len(self.numbers) and self.numbers[row] == number else None

    def box(self, row: int) -> npt.NDArray[np.int64]:
        """First voxel and end (2, 3) of a box around an object."""
        return np.stack([self._start[row], self._end[row]])
