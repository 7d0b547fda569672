"""Strips and tiles in every compression that tifffile knows, read where they are asked for."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage
from tifffile import COMPRESSION, TIFF

from napari_autosegnet.data.images import open_image
from napari_autosegnet.data.readers.tiff_pages import SEGMENT_CACHE_BYTES
from napari_autosegnet.errors import UserError

ALL = slice(None)
#: Written by Pillow, not by tifffile.
FAX = {"CCITTRLE": "tiff_ccitt", "CCITT_T4": "group3", "CCITT_T6": "group4"}
#: Read, but written by nothing here: frames of electron counting cameras, and JPEG as it was before 1995.
UNWRITTEN = {"EER_V0", "EER_V1", "EER_V2", "OJPEG", "ALT_JPEG"}
WRITTEN = [
    "NONE",
    "LZW",
    "JPEG",
    "ADOBE_DEFLATE",
    "DEFLATE",
    "PACKBITS",
    "APERIO_JP2000_YCBC",
    "JPEG_2000_LOSSY",
    "APERIO_JP2000_RGB",
    "JPEG2000",
    "LERC",
    "JPEG_LOSSY",
    "LZMA",
    "ZSTD_DEPRECATED",
    "WEBP_DEPRECATED",
    "PNG",
    "JPEGXR_NDPI",
    "JPEGXR",
    "ZSTD",
    "WEBP",
    "JPEGXL",
    "PIXTIFF",
    "JPEGXL_DNG",
]


def picture(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Something smooth, as lossy compressions like it."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=shape), 2)
    gray = (noise - noise.min()) / np.ptp(noise)
    return (gray * (1 if np.dtype(dtype).kind == "f" else min(np.iinfo(dtype).max, 4000))).astype(dtype)


def ways_to_write(compression: str) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    for dtype, kind, layout in itertools.product(
        (np.uint8, np.uint16, np.float32), ("gray", "rgb", "planar"), ({}, {"rowsperstrip": 9}, {"tile": (16, 32)})
    ):
        shape = {"gray": (3, 40, 50), "rgb": (3, 40, 50, 3), "planar": (3, 3, 40, 50)}[kind]
        how: dict[str, Any] = {"photometric": "minisblack" if kind == "gray" else "rgb", "metadata": None, **layout}
        if kind == "planar":
            how["planarconfig"] = "separate"
        yield picture(shape, dtype), {**how, "compression": compression}


@pytest.mark.parametrize("compression", WRITTEN)
def test_every_compression_in_strips_and_tiles_gray_and_color(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a.tif"
    read = 0
    for array, how in ways_to_write(compression):
        try:
            tifffile.imwrite(path, array, **how)
            expected = tifffile.imread(path)
        except Exception:  # not every compression takes every type
            continue
        channels = {2: None, 3: -1, 5: 1}[int(how["photometric"] == "rgb") + 2 + 2 * ("planarconfig" in how)]
        expected = expected[np.newaxis] if channels is None else np.moveaxis(expected, channels, 0)
        stack = open_image(path)
        assert (stack.dtype, stack.shape) == (array.dtype, (3, 40, 50))
        part = stack.read(slice(1, 3), slice(12, 30), slice(30, 45))
        np.testing.assert_array_equal(part, expected[:, 1:3, 12:30, 30:45], err_msg=str(how))
        np.testing.assert_array_equal(stack.read(ALL, ALL, ALL), expected, err_msg=str(how))
        read += 1
    assert read >= 3


@pytest.mark.parametrize("compression", FAX)
def test_fax_compressions(tmp_path: Path, compression: str) -> None:
    mask = np.random.default_rng(0).random((40, 50)) > 0.5
    Image.fromarray(mask).save(tmp_path / "a.tif", compression=FAX[compression])
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages[0].aspage().compression == COMPRESSION[compression]
    np.testing.assert_array_equal(open_image(tmp_path / "a.tif").section(0)[0], mask)


def test_what_tifffile_can_decode_is_tested_here() -> None:
    def readable(compression: int) -> bool:
        try:
            decoder: Any = TIFF.DECOMPRESSORS[compression]
            decoder(None)
        except (KeyError, ImportError):
            return False
        except Exception:
            return True
        return True

    names = {member.name for member in COMPRESSION if readable(member)}
    fax = {COMPRESSION[name].name for name in FAX}
    assert names == set(WRITTEN) | fax | UNWRITTEN


@pytest.mark.parametrize("compression", [32809, 34715, 48124, 60000], ids=["THUNDERSCAN", "JBIG2", "JETRAW", "unknown"])
def test_a_compression_that_cannot_be_read_is_named_with_what_to_do(tmp_path: Path, compression: int) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture((20, 30), np.uint8), compression="lzw", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].aspage().tags["Compression"].overwrite(compression)
    with pytest.raises(UserError, match=r"a\.tif is compressed with .*; save it without compression, or with LZW"):
        open_image(path)


def test_without_imagecodecs_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture((20, 30), np.uint8), compression="lzw", metadata=None)
    codecs: dict[int, Any] = {}
    monkeypatch.setattr(TIFF.DECOMPRESSORS, "_codecs", codecs)
    monkeypatch.setattr(tifffile.tifffile, "imagecodecs", type("Bare", (), {})())
    with pytest.raises(UserError, match=r"compressed with LZW, which needs the package imagecodecs.*pip install"):
        open_image(path)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="the standard library reads Zstd")
def test_without_imagecodecs_no_zstd_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture((20, 30), np.uint8), compression="zstd", metadata=None)
    codecs: dict[int, Any] = {}
    monkeypatch.setattr(TIFF.DECOMPRESSORS, "_codecs", codecs)
    # What tifffile imports where there is no imagecodecs.
    monkeypatch.setattr(tifffile.tifffile, "imagecodecs", importlib.import_module("tifffile._imagecodecs"))
    with pytest.raises(UserError, match=r"compressed with ZSTD, which needs the package imagecodecs.*pip install"):
        open_image(path)


@pytest.mark.parametrize("compression", ["jpeg", "zstd", "lzw", "jpeg2000"])
def test_threads_read_what_one_reads(tmp_path: Path, compression: str) -> None:
    array = picture((8, 70, 90), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, compression=compression, tile=(16, 16), photometric="minisblack")
    expected = tifffile.imread(tmp_path / "a.tif")
    stack = open_image(tmp_path / "a.tif")

    def read(section: int) -> np.ndarray:
        return stack.section(section % 8)[0]

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(read, range(64)))
    np.testing.assert_array_equal(np.stack(found[:8]), expected)
    np.testing.assert_array_equal(np.stack(found[56:]), expected)


def test_only_so_much_stays_decoded(tmp_path: Path) -> None:
    array = np.zeros((80, 1024, 1024), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, compression="zlib", photometric="minisblack")
    stack = open_image(tmp_path / "a.tif")
    pages: Any = stack.source.array  # type: ignore[attr-defined]
    for section in range(stack.sections):
        stack.section(section)
    assert sum(segment.nbytes for segment in pages.segments.values()) <= SEGMENT_CACHE_BYTES


def test_files_of_a_set_have_decoders_of_their_own(tmp_path: Path) -> None:
    """JPEG decoders are made while a file is open; those of a set are closed by then."""
    planes = picture((3, 48, 64), np.uint8)
    names = [f"plane{number}.ome.tif" for number in range(3)]
    places = "".join(
        f'<TiffData FirstZ="{number}" IFD="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{name}</UUID></TiffData>'
        for number, name in enumerate(names)
    )
    for plane, name in zip(planes, names, strict=True):
        text = (
            '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:{name}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" '
            f'SizeX="64" SizeY="48" SizeZ="3" SizeC="1" SizeT="1"><Channel ID="Channel:0:0"/>{places}'
            "</Pixels></Image></OME>"
        )
        tifffile.imwrite(tmp_path / name, plane, description=text, metadata=None, compression="jpeg")
    expected = np.stack([tifffile.imread(tmp_path / name, is_ome=False) for name in names])
    np.testing.assert_array_equal(open_image(tmp_path / names[1]).read(ALL, ALL, ALL)[0], expected)


def test_damaged_strips_are_named_without_the_decoder_s_words(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture((3, 40, 50), np.uint8), compression="zlib", photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as file:
        place, size = file.pages[1].dataoffsets[0], file.pages[1].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[place : place + size] = bytes(size)
    path.write_bytes(content)
    stack = open_image(path)
    stack.section(0)
    with pytest.raises(UserError, match=r"sections 1-1: the ADOBE DEFLATE data in .* are damaged; copy the file again"):
        stack.section(1)
