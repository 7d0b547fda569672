"""MRC files as mrcfile writes them, and as IMOD does."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from napari_autosegnet.data.images import open_image, open_labels
from napari_autosegnet.errors import UserError


def write(path: Path, pixels: np.ndarray, voxel: tuple[float, float, float] | None = (3.54, 3.54, 12.0)) -> Path:
    with mrcfile.new(path, pixels) as file:
        if voxel is not None:
            file.voxel_size = voxel  # x, y, z
    return path


@pytest.mark.parametrize("suffix", ["mrc", "rec", "st", "ali", "map"])
@pytest.mark.parametrize("dtype", ["i1", "i2", "u2", "f2", "f4"])
def test_sections_scale_and_unit(tmp_path: Path, suffix: str, dtype: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 100, (4, 20, 30)).astype(dtype) - np.dtype(dtype).type(
        dtype[0] != "u"
    )
    stack = open_image(write(tmp_path / f"a.{suffix}", pixels))
    assert (stack.name, stack.shape, stack.dtype, stack.is_2d) == ("a", (4, 20, 30), np.dtype(dtype), False)
    assert stack.scale == (12.0, 3.54, 3.54) and stack.unit == "angstrom" and not stack.notes
    assert list(stack.files) == [tmp_path / f"a.{suffix}"]
    for index, section in enumerate(pixels):
        np.testing.assert_array_equal(stack.section(index)[0], section)
    np.testing.assert_array_equal(stack.read(slice(1, 3), slice(2, 9), slice(25, None))[0], pixels[1:3, 2:9, 25:])


def test_planes_series_and_files_without_a_voxel_size(tmp_path: Path) -> None:
    pixels = np.arange(2 * 3 * 4 * 5, dtype=np.int16).reshape(2, 3, 4, 5)
    plane = open_labels(write(tmp_path / "plane.mrc", pixels[0, 0], None))
    assert plane.is_2d and plane.scale == (1.0, 1.0, 1.0) and plane.unit is None
    series = write(tmp_path / "series.mrc", pixels)
    with pytest.raises(UserError, match="has 2 time points"):
        open_image(series)
    np.testing.assert_array_equal(open_image(series, time=1).section(2)[0], pixels[1, 2])
    np.testing.assert_array_equal(open_image(series, axes="czyx").section(2), pixels[:, 2])


def test_a_file_without_a_known_ending_is_told_by_its_first_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a.mrc", np.ones((2, 8, 9), np.int8)).rename(tmp_path / "tomogram")
    assert open_image(tmp_path / "tomogram").shape == (2, 8, 9)


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_header_says_which_axis_is_which_and_whether_bytes_are_signed(tmp_path: Path, order: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 6), dtype=np.uint8)
    path = write(tmp_path / "a.mrc", pixels.view(np.int8))
    header: Any = mrcfile.open(path, header_only=True).header.copy()
    header.mapc, header.maps = 3, 1
    content = bytearray(header.astype(header.dtype.newbyteorder(order)).tobytes()) + pixels.tobytes()
    content[212:214] = b"DD" if order == "<" else b"\x11\x11"
    path.write_bytes(content)
    np.testing.assert_array_equal(open_image(path).read(*[slice(None)] * 3)[0], pixels.view(np.int8).transpose(2, 1, 0))
    content[152:160] = struct.pack(f"{order}2i", 1146047817, 0)  # IMOD: unsigned
    path.write_bytes(content)
    stack = open_image(path)
    assert stack.dtype == np.uint8 and list(stack.files) == [path]
    np.testing.assert_array_equal(stack.read(*[slice(None)] * 3)[0], pixels.transpose(2, 1, 0))
    content[156:160] = struct.pack(f"{order}i", 1)
    path.write_bytes(content)
    assert open_image(path).dtype == np.int8


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="tells no memory of mapped files")
def test_what_was_read_of_a_large_file_is_no_memory_of_the_process(tmp_path: Path) -> None:
    def mapped() -> int:
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile"))
        return int(line.split()[1]) // 1024

    path = write(tmp_path / "a.mrc", np.zeros((64, 1, 1), np.int8))
    header = bytearray(path.read_bytes()[:1024])
    header[:12] = header[28:40] = struct.pack("<3i", 1024, 1024, 64)
    path.write_bytes(header)
    with open(path, "r+b") as file:
        file.truncate(1024 + 64 * 2**20)
    stack = open_image(path)
    before = mapped()
    for index in range(stack.sections):
        assert not stack.section(index).any()
    assert mapped() - before < 16


def test_what_is_damaged_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mrc", np.ones((4, 20, 30), np.float32))
    whole = path.read_bytes()
    for size, message in (
        (len(whole) - 1, "shorter than its header says"),
        (900, "is not an MRC file, or is damaged"),
        (0, "MRC"),
    ):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=message) as error:
            open_image(path)
        assert "\n" not in str(error.value) and "copy the file again" in str(error.value)
    path.write_bytes(b"\xff" * len(whole))
    with pytest.raises(UserError, match="is not an MRC file, or is damaged"):
        open_image(path)
    path.write_bytes(whole[:8] + struct.pack("<i", 2) + whole[12:])  # half of the sections
    (note,) = open_image(path).notes
    assert "4800 bytes longer than its header says" in note
    write(tmp_path / "c.mrc", np.ones((8, 8), np.complex64))
    with pytest.raises(UserError, match="whole or real numbers"):
        open_image(tmp_path / "c.mrc")
