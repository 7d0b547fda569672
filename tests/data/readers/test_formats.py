"""The registry of formats."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from format_files import written_by_others
from napari_autosegnet.data.images import open_image
from napari_autosegnet.data.readers import formats, npy
from napari_autosegnet.data.readers.formats import Format, without_ending
from napari_autosegnet.errors import UserError
from napari_autosegnet.ome_zarr.write import write_image
from napari_autosegnet.units import Placement


def test_every_ending_belongs_to_one_format() -> None:
    endings = [suffix for each in formats.formats() for suffix in each.suffixes]
    assert len(endings) == len(set(endings)) and {".tif", ".png", ".npy", ".zarr", ".mrc", ".h5"} <= set(endings)
    names = ("a.tif", "a.ome.tiff", "a.OME.ZARR", "a.JPG", "a.rec", "a.hdf5", "a.npy")
    assert {without_ending(name) for name in names} == {"a"}
    assert without_ending("a.txt") == "a.txt" and without_ending(".tif") == ".tif"


def test_files_without_a_known_ending_are_told_by_their_first_bytes(tmp_path: Path) -> None:
    pixels = np.arange(80, dtype=np.uint8).reshape(8, 10)
    tifffile.imwrite(tmp_path / "tiff.odd", pixels)
    Image.fromarray(pixels).save(tmp_path / "png", "PNG")
    with open(tmp_path / "array.bin", "wb") as file:
        np.save(file, pixels)
    for name in ("tiff.odd", "png", "array.bin"):
        np.testing.assert_array_equal(open_image(tmp_path / name).section(0)[0], pixels)


def test_a_missing_library_is_told_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.odd").write_bytes(b"x")
    odd = Format("Odd", npy.open_npy, suffixes=(".odd",), module="no_such_library", extra="formats")
    monkeypatch.setattr(formats, "formats", lambda: (odd,))
    with pytest.raises(
        UserError, match=r"is Odd, which needs no_such_library; pip install 'napari-autosegnet\[formats\]'"
    ):
        open_image(tmp_path / "a.odd")


def test_what_was_cut_off_is_one_line_in_every_format(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 99, (3, 40, 50), np.int8)
    placement = Placement((4.0, 4.0, 4.0), unit="angstrom")
    write_image(tmp_path / "image.ome.zarr", pixels.shape, pixels.dtype, pixels.__getitem__, placement=placement)
    tried = {"PNG, JPEG, BMP", "a folder of TIFF, PNG, JPEG or BMP images"}  # see test_images
    for place in (*written_by_others(tmp_path, pixels), tmp_path / "image.ome.zarr"):
        source = formats.parts_of(place)[0]
        tried.add(formats.format_of(source).name)
        np.testing.assert_array_equal(open_image(place).read(*[slice(None)] * 3)[0], pixels)
        files = sorted(file for file in source.rglob("*") if file.is_file()) if source.is_dir() else [source]
        refused = 0
        for file in files[:8]:
            whole = file.read_bytes()
            for content in (b"", whole[: len(whole) // 2], whole[:-1]):
                file.write_bytes(content)
                try:
                    found = open_image(place).read(*[slice(None)] * 3)[0]
                except UserError as error:
                    assert "\n" not in str(error) and source.name.partition(".")[0] in str(error), error
                    refused += 1
                else:
                    np.testing.assert_array_equal(found, pixels, f"{file} was cut off")
            file.write_bytes(whole)
        assert refused >= 2, place
    assert tried >= {each.name for each in formats.formats() if each.module is None or find_spec(each.module)}
