"""HDF5 files as h5py writes them, with the metadata of ilastik, Fiji and CREMI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from napari_autosegnet.data.images import open_image, open_labels
from napari_autosegnet.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 20, 30), dtype=np.uint8)


def write(
    path: Path, pixels: np.ndarray = PIXELS, name: str = "data", about: dict[str, Any] | None = None, **how: Any
) -> Path:
    with h5py.File(path, "a") as file:
        dataset = file.create_dataset(name, data=pixels, **how)
        dataset.attrs.update(about or {})
    return path


@pytest.mark.parametrize("how", [{}, {"chunks": (2, 8, 8)}, {"chunks": (1, 20, 30), "compression": "gzip"}])
def test_the_only_dataset_is_read_section_by_section(tmp_path: Path, how: dict[str, Any]) -> None:
    path = write(tmp_path / "stack.h5", name="volumes/raw", **how)
    for given in (path, Path(f"{path}:/volumes/raw"), Path(f"{path}:volumes/raw"), Path(f"{path}:/volumes")):
        stack = open_image(given)
        assert (stack.name, stack.shape, stack.dtype) == ("stack", PIXELS.shape, np.uint8)
        assert stack.path == Path(f"{path}:/volumes/raw") and list(stack.files) == [path]
        assert stack.chunks == how.get("chunks") and stack.unit is None
        for index, section in enumerate(PIXELS):
            np.testing.assert_array_equal(stack.section(index)[0], section)
        np.testing.assert_array_equal(stack.read(slice(1, 3), slice(5, 9), slice(25, 40))[0], PIXELS[1:3, 5:9, 25:])


def test_several_datasets_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "cremi.hdf", name="volumes/raw")
    write(path, (PIXELS > 100).astype(np.uint64), "volumes/labels/clefts")
    write(path, np.zeros(3), "annotations/ids")
    path = path.rename(tmp_path / "cremi.h5")
    listed = f"{path}:/volumes/labels/clefts, {path}:/volumes/raw"
    for given, message in (
        (path, f"{path} holds 2 datasets; give one of {listed}"),
        (Path(f"{path}:/volumes"), f"holds 2 datasets; give one of {listed}"),
        (Path(f"{path}:/raw"), f"has no dataset raw; give one of {listed}"),
    ):
        with pytest.raises(UserError) as error:
            open_image(given)
        assert str(error.value).endswith(message)
    labels = open_labels(Path(f"{path}:/volumes/labels/clefts"))
    np.testing.assert_array_equal(labels.section(3)[0], PIXELS[3] > 100)
    monkeypatch.chdir(tmp_path)  # it begins like an address
    assert open_image("cremi.h5:/volumes/raw").shape == PIXELS.shape
    with pytest.raises(UserError, match=r"there is no file or folder .*absent\.h5; check"):
        open_image("absent.h5:/volumes/raw")


def ilastik(axes: str) -> str:
    return json.dumps({"axes": [{"key": axis, "typeFlags": 2, "resolution": 0, "description": ""} for axis in axes]})


@pytest.mark.parametrize(
    ("about", "scale", "translation", "unit"),
    [
        ({"element_size_um": [0.05, 0.004, 0.004]}, (0.05, 0.004, 0.004), (0, 0, 0), "micrometer"),
        ({"resolution": [40.0, 4.0, 4.0], "offset": [400, 0, 8.0]}, (40, 4, 4), (400, 0, 8), None),
        ({"resolution": [40.0, 4.0, 4.0], "units": ["nm", "nm", "nm"]}, (40, 4, 4), (0, 0, 0), "nanometer"),
        ({"resolution": [0.04, 4.0, 4.0], "unit": [b"um", b"nm", b"nm"]}, (40, 4, 4), (0, 0, 0), "nanometer"),
        ({"resolution": 4.0}, (1, 1, 1), (0, 0, 0), None),
    ],
)
def test_voxel_sizes(tmp_path: Path, about: dict[str, Any], scale: Any, translation: Any, unit: str | None) -> None:
    stack = open_image(write(tmp_path / "a.h5", about=about))
    assert (stack.scale, stack.translation, stack.unit) == (scale, translation, unit)


def test_axes_are_named_by_the_file_or_asked_for(tmp_path: Path) -> None:
    pixels = np.arange(2 * 3 * 4 * 5 * 6, dtype=np.uint16).reshape(2, 3, 4, 5, 6)
    write(tmp_path / "tagged.h5", pixels, about={"axistags": ilastik("tzyxc")})
    write(tmp_path / "axes.h5", pixels, about={"axes": list("tzyxc")})
    with h5py.File(write(tmp_path / "labels.h5", pixels), "a") as file:
        for dimension, name in zip(file["data"].dims, ("time", "z", "y", "x", "channel"), strict=True):
            dimension.label = name
    for name in ("tagged", "axes", "labels"):
        with pytest.raises(UserError, match="has 2 time points"):
            open_image(tmp_path / f"{name}.h5")
        stack = open_image(tmp_path / f"{name}.h5", time=1)
        assert (stack.channels, stack.shape) == (6, (3, 4, 5))
        np.testing.assert_array_equal(stack.section(2), np.moveaxis(pixels[1, 2], -1, 0))
    write(tmp_path / "plain.h5", pixels)
    with pytest.raises(UserError, match="5 axes without names; say which is which with --axes"):
        open_image(tmp_path / "plain.h5")
    assert open_image(tmp_path / "plain.h5", axes="ctzyx", time=0).shape == (4, 5, 6)


def test_what_is_damaged_or_missing_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", chunks=(1, 20, 30), compression="gzip")
    whole = path.read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"a\.h5 is not an HDF5 file, or is damaged .*copy the file again") as error:
            open_image(path)
        assert "\n" not in str(error.value)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        dataset = file.create_dataset("data", data=PIXELS, chunks=(1, 20, 30), compression="gzip")
        place = dataset.id.get_chunk_info(2).byte_offset
    with open(tmp_path / "b.h5", "r+b") as raw:
        raw.seek(place)
        raw.write(b"\xff" * 40)
    stack = open_image(tmp_path / "b.h5")
    np.testing.assert_array_equal(stack.section(1)[0], PIXELS[1])
    with pytest.raises(UserError, match=r"cannot read .*b\.h5:/data, sections 2-2") as error:
        stack.section(2)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="holds no images"):
        open_image(write(tmp_path / "c.h5", np.zeros(5)))
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((1, 20, 30))
    settings.set_filter(32999, h5py.h5z.FLAG_OPTIONAL)
    with h5py.File(tmp_path / "d.h5", "w") as file:
        space, kind = h5py.h5s.create_simple(PIXELS.shape), h5py.h5t.NATIVE_UINT8
        h5py.h5d.create(file.id, b"data", kind, space, settings)
    with pytest.raises(UserError, match=r"compressed with filter 32999.*pip install 'napari-autosegnet\[formats\]'"):
        open_image(tmp_path / "d.h5")


def test_chunks_that_were_never_written_are_told(tmp_path: Path) -> None:
    """As where a recording broke off: HDF5 reads them as zeros."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("raw", (10, 64, 64), "u1", chunks=(1, 32, 64))
        dataset[:6] = 7
        dataset.attrs["scale_factor"] = np.array([2.0])
    found = open_image(tmp_path / "a.h5").notes
    assert [note.partition(": ")[2] for note in found] == [
        "the attributes scale_factor (2.0) are not applied: numbers are read as stored",
        "8 of 20 chunks were never written and are read as 0",
    ]
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["raw"][6:] = 7
        del file["raw"].attrs["scale_factor"]
    assert open_image(tmp_path / "a.h5").notes == ()


def test_a_virtual_dataset_needs_its_files(tmp_path: Path) -> None:
    part = write(tmp_path / "part.h5")
    layout = h5py.VirtualLayout(PIXELS.shape, np.uint8)
    layout[:] = h5py.VirtualSource("part.h5", "data", PIXELS.shape)
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    stack = open_image(tmp_path / "whole.h5")
    assert list(stack.files) == [tmp_path / "whole.h5", part]
    np.testing.assert_array_equal(stack.section(1)[0], PIXELS[1])
    del stack
    part.unlink()
    with pytest.raises(UserError, match=r"has pixels in .*part\.h5, which is missing"):
        open_image(tmp_path / "whole.h5")
