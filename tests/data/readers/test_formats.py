"""The registry of formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_autosegnet.data.images import open_image
from napari_autosegnet.data.readers import formats, npy
from napari_autosegnet.data.readers.formats import Format, without_ending
from napari_autosegnet.errors import UserError


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
