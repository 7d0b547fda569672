"""Chunks of a Zarr that have no file: told where a section is there in part."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import zarr

from napari_autosegnet.cli import app
from napari_autosegnet.data.images import open_image, open_labels
from napari_autosegnet.ome_zarr.write import write_image
from napari_autosegnet.units import Placement

LAYOUTS: dict[str, dict[str, Any]] = {
    "v2": {"zarr_format": 2},
    "v2, folders": {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "v3": {"zarr_format": 3},
    "v3, names": {"zarr_format": 3, "chunk_key_encoding": {"name": "default", "separator": "."}},
    "shards": {"zarr_format": 3, "chunks": (1, 16, 16), "shards": (2, 32, 32)},
}


def stored(path: Path, pixels: np.ndarray, **layout: Any) -> zarr.Array[Any]:
    """An array in units of (2, 32, 32)."""
    array = zarr.create_array(
        path, shape=pixels.shape, dtype=pixels.dtype, **{"chunks": (2, 32, 32), "fill_value": 7, **layout}
    )
    array[:] = pixels
    return array


def file_of_chunk(array: zarr.Array[Any], path: Path, *place: int) -> Path:
    return path / array.metadata.encode_chunk_key(place)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("opened", [open_image, open_labels])
def test_sections_that_are_there_in_part_are_told(tmp_path: Path, layout: dict[str, Any], opened: Any) -> None:
    path = tmp_path / "a.zarr"
    array = stored(path, np.random.default_rng(0).integers(1, 7, (9, 64, 96), np.uint8), **layout)
    assert opened(path).unwritten() is None
    # Sections 4 and 5 are not there at all, which is told by whoever sees that they are constant.
    gone = [(0, 1, 2), (1, 0, 0), (1, 1, 1), (4, 1, 0), *((2, y, x) for y in range(2) for x in range(3))]
    for place in gone:
        file_of_chunk(array, path, *place).unlink()
    assert opened(path).unwritten() == (
        f"{path}: chunks without a file are read as 7: 4 of 18 in sections 0-3, 8; they are empty, or were never "
        "written or copied"
    )
    assert (opened(path).section(8)[0, 32:, :32] == 7).all()


@pytest.mark.parametrize("version", [2, 3])
def test_only_the_time_point_and_the_image_that_are_read_count(tmp_path: Path, version: Literal[2, 3]) -> None:
    path = tmp_path / "a.zarr"
    array = zarr.create_array(path, shape=(2, 3, 8, 8), chunks=(1, 1, 8, 4), dtype=np.uint8, zarr_format=version)
    array[:] = 1
    file_of_chunk(array, path, 1, 2, 0, 1).unlink()
    first, second = (open_image(path, time=time, axes="tzyx") for time in (0, 1))
    assert first.unwritten() is None
    assert ": 1 of 2 in section 2;" in str(second.unwritten())
    assert ": 1 of 2 in section 2;" in str(second.with_channels(["0"]).unwritten())
    flat = zarr.create_array(tmp_path / "b.zarr", shape=(8, 8), chunks=(4, 8), dtype=np.uint8, zarr_format=version)
    flat[:4] = 1
    assert "b.zarr: chunks without a file are read as 0: 1 of 2;" in str(open_image(tmp_path / "b.zarr").unwritten())


def test_commands_say_it_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.zarr"
    array = stored(path, np.ones((4, 64, 64), np.uint8))
    file_of_chunk(array, path, 1, 0, 1).unlink()
    assert app.run(["convert", "--labels", str(path), "--out", str(tmp_path / "a.tif")]) == 0
    assert capsys.readouterr().err.count("chunks without a file are read as 7: 1 of 4 in sections 2-3") == 1


def test_where_nobody_can_tell_nothing_is_said(tmp_path: Path) -> None:
    # What this program writes is whole, and empty chunks have no files.
    strokes = np.zeros((2, 1500, 1500), np.uint8)
    strokes[1, 3:9, 3:9] = 1
    write_image(tmp_path / "own.zarr", strokes.shape, np.uint8, strokes.__getitem__, placement=Placement())
    assert not (tmp_path / "own.zarr" / "0" / "c" / "1" / "1").exists()
    assert open_labels(tmp_path / "own.zarr").unwritten() is None
    # Too many to be listed.
    many = zarr.create_array(tmp_path / "many.zarr", shape=(600, 600), chunks=(1, 1), dtype=np.uint8)
    many[0, 0] = 1
    assert open_image(tmp_path / "many.zarr").unwritten() is None
    # A zip is not looked into.
    with zarr.storage.ZipStore(tmp_path / "a.zarr.zip", mode="w") as store:
        zarr.create_array(store, shape=(8, 8), chunks=(4, 8), dtype=np.uint8)[:4] = 1
    assert open_image(tmp_path / "a.zarr.zip").unwritten() is None
    np.save(tmp_path / "a.npy", np.ones((8, 8), np.uint8))
    assert open_image(tmp_path / "a.npy").unwritten() is None
