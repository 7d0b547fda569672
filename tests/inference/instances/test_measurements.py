from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import regionprops

from napari_autosegnet.inference.blocks import BlockPlan, length, slices
from napari_autosegnet.inference.instances.measurements import Measurements
from napari_autosegnet.inference.instances.objects import tiles_of
from napari_autosegnet.units import Placement


def measured(objects: np.ndarray, block: tuple[int, int, int], side: int) -> Measurements:
    measurements = Measurements()
    for each in BlockPlan(objects.shape, block, 1, 0, 64):
        for tile in tiles_of(each.core, (side, side, side)):
            around = tuple((start, end + 1) for start, end in tile)
            core = (length(tile[0]), length(tile[1]), length(tile[2]))
            measurements.add(objects[slices(around)], core, (tile[0][0], tile[1][0], tile[2][0]))
    return measurements


@settings(max_examples=40, deadline=None)
@given(
    objects=arrays(np.uint32, st.tuples(*[st.integers(1, 7)] * 3), elements=st.integers(0, 4)),
    block=st.tuples(*[st.integers(1, 7)] * 3),
    side=st.integers(1, 4),
)
def test_the_table_is_that_of_the_whole_volume_whatever_the_blocks(
    objects: np.ndarray, block: tuple[int, int, int], side: int
) -> None:
    placement = Placement((4.0, 2.0, 1.0), (10.0, 20.0, 30.0), "nanometer")
    rows = list(measured(objects, block, side).rows(placement))
    regions = regionprops(objects.astype(np.int32))
    assert [row[0] for row in rows] == [region.label for region in regions]
    for row, region in zip(rows, regions, strict=True):
        faces = [np.count_nonzero(np.diff(objects == region.label, axis=axis)) for axis in range(3)]
        low, high = np.array(region.bbox[:3]), np.array(region.bbox[3:])
        expected = [region.area * 8, np.dot(faces, (2, 4, 8)), *(low - 0.5) * (4, 2, 1) + (10, 20, 30)]
        expected += [*(high - 0.5) * (4, 2, 1) + (10, 20, 30)]
        assert row[1] == region.area and row[-1] == "nanometer"
        np.testing.assert_allclose([float(str(value)) for value in row[2:-1]], expected)


def test_a_cube_in_the_middle(tmp_path: Path) -> None:
    objects = np.zeros((6, 6, 6), np.uint32)
    objects[1:4, 1:4, 2:5] = 7
    measured(objects, (3, 3, 3), 2).write(tmp_path / "a.csv", Placement())
    with open(tmp_path / "a.csv") as file:
        (row,) = csv.DictReader(file)
    assert (row["object"], row["voxels"], row["volume"], row["surface"], row["unit"]) == ("7", "27", "27", "54", "")
    assert (row["z_start"], row["x_start"], row["x_end"]) == ("0.5", "1.5", "4.5")
