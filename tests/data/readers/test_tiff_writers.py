"""TIFFs of many writers: pixels, axes, scale and unit are those that were written."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_autosegnet.data.images import open_image, open_labels

ALL = slice(None)
UNITS = {"nm": "nanometer", "um": "micrometer", "micron": "micrometer", "µm": "micrometer", "mm": "millimeter"}
STEPS = [0.25, 0.5, 1.0, 2.0, 5.0, 40.0]
LOSSLESS = [None, "lzw", "zlib", "deflate", "packbits", "zstd", "lzma"]
#: Which predictors a compression has.
PREDICTED = {"lzw", "zlib", "deflate", "zstd", "lzma"}
DTYPES = [np.uint8, np.uint16, np.uint32, np.int8, np.int16, np.int32, np.float16, np.float32, np.float64]

some_matrix = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass
class Written:
    """What a writer was given, as `ImageStack` should tell it: pixels ``(c, z, y, x)``."""

    pixels: np.ndarray
    is_2d: bool
    time: int | None = None
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    unit: str | None = None
    levels: int = 1
    dtype: Any = None


def check(path: Path, written: Written) -> None:
    stack = open_image(path, time=written.time)
    assert (stack.channels, *stack.shape) == written.pixels.shape
    assert stack.is_2d == written.is_2d
    assert stack.dtype == (written.dtype or written.pixels.dtype) and stack.dtype.isnative
    assert stack.scale == pytest.approx(written.scale, rel=1e-5) and stack.unit == written.unit
    assert stack.pyramid_levels == written.levels
    found = stack.read(ALL, ALL, ALL)
    np.testing.assert_array_equal(found, written.pixels)
    depth, height, width = stack.shape
    part = (slice(depth // 2, depth), slice(height // 3, height - 1), slice(width // 4, width - 2))
    np.testing.assert_array_equal(stack.read(*part), written.pixels[:, part[0], part[1], part[2]])
    np.testing.assert_array_equal(stack.section(depth - 1), written.pixels[:, -1])
    if stack.channels == 1:
        labels = open_labels(path, time=written.time)
        np.testing.assert_array_equal(labels.read(ALL, ALL, ALL), written.pixels)


def noise(shape: tuple[int, ...], dtype: Any, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return generator.normal(scale=100, size=shape).astype(dtype)
    if np.dtype(dtype).kind == "b":
        return generator.random(shape) > 0.5
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


@st.composite
def storage(draw: st.DrawFn, dtype: Any) -> dict[str, Any]:
    """How a file is laid out: all that must make no difference."""
    how: dict[str, Any] = {
        "byteorder": draw(st.sampled_from("<>")),
        "bigtiff": draw(st.booleans()),
        "compression": draw(st.sampled_from(LOSSLESS)),
    }
    how |= draw(st.sampled_from([{}, {"rowsperstrip": 1}, {"rowsperstrip": 7}, {"tile": (16, 16)}, {"tile": (16, 48)}]))
    if how["compression"] in PREDICTED and draw(st.booleans()) and np.dtype(dtype) != np.float16:
        how["predictor"] = True
    return how


sides = st.tuples(st.integers(9, 40), st.integers(9, 60))


@some_matrix
@given(data=st.data())
def test_tifffile(tmp_path: Path, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    kind = data.draw(st.sampled_from(["yx", "zyx", "yxs", "zyxs", "syx"]))
    depth, samples = data.draw(st.integers(2, 5)), data.draw(st.sampled_from([3, 4]))
    size = data.draw(sides)
    how = data.draw(storage(dtype))
    shape = {
        "yx": size,
        "zyx": (depth, *size),
        "yxs": (*size, samples),
        "zyxs": (depth, *size, samples),
        "syx": (samples, *size),
    }[kind]
    array = noise(shape, dtype, depth)
    if "s" in kind:
        how |= {"photometric": "rgb", "planarconfig": "separate" if kind == "syx" else "contig"}
        how["extrasamples"] = ["unassalpha"] if samples == 4 else None
        how["metadata"] = None  # what tifffile itself describes may be sections; see test_tiff_axes.py
    else:
        how["photometric"] = "minisblack"
        how["metadata"] = data.draw(st.sampled_from([None, {}, {"axes": kind.upper()}]))
    tifffile.imwrite(tmp_path / "a.tif", array, **how)
    pixels = {
        "yx": lambda: array[np.newaxis, np.newaxis],
        "zyx": lambda: array[np.newaxis],
        "yxs": lambda: np.moveaxis(array, -1, 0)[:3, np.newaxis],
        "zyxs": lambda: np.moveaxis(array, -1, 0)[:3],
        "syx": lambda: array[:3, np.newaxis],
    }[kind]()
    check(tmp_path / "a.tif", Written(pixels, is_2d="z" not in kind))


@some_matrix
@given(data=st.data())
def test_ome_tiff(tmp_path: Path, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from([np.uint8, np.uint16, np.int16, np.uint32, np.float32]))
    leading = data.draw(st.sampled_from(["", "Z", "C", "CZ", "ZC", "TZ", "TCZ", "TZC", "ZT", "CTZ", "TC"]))
    counts = {axis: data.draw(st.integers(2, 4), label=axis) for axis in leading}
    size = data.draw(sides)
    array = noise((*counts.values(), *size), dtype, len(leading))
    steps = {axis: data.draw(st.sampled_from(STEPS)) for axis in "ZYX"}
    unit = data.draw(st.sampled_from(["nm", "µm", "mm"]))
    metadata: dict[str, Any] = {"axes": leading + "YX"}
    for axis, step in steps.items():
        metadata |= {f"PhysicalSize{axis}": step, f"PhysicalSize{axis}Unit": unit}
    levels = data.draw(st.integers(0, 2))
    how = data.draw(storage(dtype))
    with tifffile.TiffWriter(
        tmp_path / "a.ome.tif", ome=True, bigtiff=how.pop("bigtiff"), byteorder=how.pop("byteorder")
    ) as writer:
        writer.write(array, photometric="minisblack", subifds=levels, metadata=metadata, **how)
        for level in range(1, levels + 1):
            step = 2**level
            writer.write(array[..., ::step, ::step], photometric="minisblack", subfiletype=1, **how)
    time = None if "T" not in leading else counts["T"] - 1
    at = array if time is None else array.take(time, axis=leading.index("T"))
    rest = leading.replace("T", "")
    at = at.reshape(*(counts[axis] for axis in rest), *size)
    for axis in "ZC":
        if axis not in rest:
            at, rest = at[np.newaxis], axis + rest
    pixels = at.transpose(rest.index("C"), rest.index("Z"), 2, 3)
    scale = (steps["Z"], steps["Y"], steps["X"])
    check(
        tmp_path / "a.ome.tif",
        Written(pixels, "Z" not in leading, time, scale=scale, unit=UNITS[unit], levels=levels + 1),
    )


@some_matrix
@given(data=st.data())
def test_imagej(tmp_path: Path, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from([np.uint8, np.uint16, np.int16, np.float32]))
    leading = data.draw(st.sampled_from(["", "Z", "C", "ZC", "TZ", "TZC", "TC"]))
    counts = {axis: data.draw(st.integers(2, 4), label=axis) for axis in leading}
    size = data.draw(sides)
    array = noise((*counts.values(), *size), dtype, len(leading))
    steps = {axis: data.draw(st.sampled_from(STEPS)) for axis in "ZYX"}
    unit = data.draw(st.sampled_from(["nm", "um", "micron", "mm", "pixel"]))
    metadata: dict[str, Any] = {"axes": leading + "YX", "spacing": steps["Z"], "unit": unit}
    stored, expected = array, array
    if dtype == np.int16:
        # Fiji has no signed pixels: it stores larger ones and says how much larger.
        stored = (array.astype(np.int32) + 32768).astype(np.uint16)
        metadata |= {"cf": 0, "c0": -32768.0, "c1": 1.0, "vunit": "Gray Value"}
    tifffile.imwrite(
        tmp_path / "a.tif",
        stored,
        imagej=True,
        metadata=metadata,
        resolution=(1 / steps["X"], 1 / steps["Y"]),
        byteorder=data.draw(st.sampled_from("<>")),
        compression=data.draw(st.sampled_from([None, "zlib", "lzw"])),
    )
    time = None if "T" not in leading else 1
    at = expected if time is None else expected[1]
    rest = leading.replace("T", "")
    if "Z" not in rest:
        at, rest = at[np.newaxis], "Z" + rest
    if "C" not in rest:
        at, rest = at[:, np.newaxis], rest + "C"
    scaled = unit != "pixel"
    check(
        tmp_path / "a.tif",
        Written(
            at.swapaxes(0, 1),
            "Z" not in leading,
            time,
            scale=(steps["Z"], steps["Y"], steps["X"]) if scaled else (1.0, 1.0, 1.0),
            unit=UNITS.get(unit),
        ),
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_imagej_beyond_4_gib(tmp_path: Path, dtype: Any, byteorder: Any) -> None:
    """One page, and behind it the planes one after the other: what Fiji writes when the pages would not fit."""
    planes = noise((7, 20, 30), dtype, 0)
    path = tmp_path / "a.tif"
    description = "ImageJ=1.54f\nimages=7\nslices=7\nunit=nm\nspacing=40.0\n"
    how: dict[str, Any] = {"resolution": (0.25, 0.25), "photometric": "minisblack", "byteorder": byteorder}
    tifffile.imwrite(path, planes[0], description=description, metadata=None, **how)
    with open(path, "ab") as handle:
        handle.write(planes[1:].astype(planes.dtype.newbyteorder(byteorder)).tobytes())
    check(path, Written(planes[np.newaxis], False, scale=(40.0, 4.0, 4.0), unit="nanometer"))


def pillow_pictures() -> Iterator[tuple[str, Image.Image, np.ndarray]]:
    gray = noise((23, 31), np.uint8, 0)
    color = noise((23, 31, 3), np.uint8, 1)
    yield "L", Image.fromarray(gray), gray[np.newaxis]
    yield "1", Image.fromarray(gray > 127), (gray > 127)[np.newaxis].astype(np.uint8)
    yield "I;16", Image.fromarray(noise((23, 31), np.uint16, 2)), noise((23, 31), np.uint16, 2)[np.newaxis]
    yield "I", Image.fromarray(noise((23, 31), np.int32, 3)), noise((23, 31), np.int32, 3)[np.newaxis]
    yield "F", Image.fromarray(noise((23, 31), np.float32, 4)), noise((23, 31), np.float32, 4)[np.newaxis]
    yield "RGB", Image.fromarray(color), np.moveaxis(color, -1, 0)
    yield "RGBA", Image.fromarray(np.dstack([color, gray])), np.moveaxis(color, -1, 0)
    yield "LA", Image.fromarray(np.dstack([gray, gray])), gray[np.newaxis]


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma", "group4"])
def test_pillow(tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "a.tif"
    for mode, picture, pixels in pillow_pictures():
        if compression == "group4" and mode != "1":
            continue
        for white in (False, True):
            if white and mode not in ("1", "L"):
                continue
            picture.save(path, compression=compression, tiffinfo={262: 0} if white else {})
            check(path, Written(pixels[:, np.newaxis], is_2d=True))
        more = [picture] * 3
        picture.save(path, compression=compression, save_all=True, append_images=more)
        check(path, Written(np.repeat(pixels[:, np.newaxis], 4, axis=1), is_2d=False))


@pytest.mark.parametrize("how", [{}, {"compression": "zlib"}, {"compression": "packbits", "rowsperstrip": 5}], ids=str)
@pytest.mark.parametrize("writer", ["shaped", "bare", "ome"])
def test_booleans_of_tifffile(tmp_path: Path, how: dict[str, Any], writer: str) -> None:
    """It calls them min-is-white without being asked, and means what is in the array."""
    mask = noise((3, 21, 37), np.bool_, 0)
    more: dict[str, Any] = {"shaped": {}, "bare": {"metadata": None}, "ome": {"ome": True, "metadata": {"axes": "ZYX"}}}
    tifffile.imwrite(tmp_path / "a.tif", mask, **how, **more[writer])
    check(tmp_path / "a.tif", Written(mask[np.newaxis].astype(np.uint8), is_2d=False, dtype=np.uint8))


@pytest.mark.parametrize("bits", [2, 4, 6, 10, 12, 14])
def test_packed_whole_numbers(tmp_path: Path, bits: int) -> None:
    """Cameras of 10 and 12 bits."""
    array = noise((3, 20, 32), np.uint16, 0) >> (16 - bits)
    stored = array.astype(np.uint8 if bits < 8 else np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stored, bitspersample=bits, photometric="minisblack")
    check(tmp_path / "a.tif", Written(stored[np.newaxis], is_2d=False))
    tifffile.imwrite(tmp_path / "a.tif", stored, bitspersample=bits, photometric="miniswhite")
    np.testing.assert_array_equal(open_image(tmp_path / "a.tif").section(1)[0], 2**bits - 1 - stored[1])


@pytest.mark.parametrize("tile", [None, (16, 16, 16)])
def test_pages_with_a_depth_of_their_own(tmp_path: Path, tile: Any) -> None:
    array = noise((7, 20, 33), np.uint16, 0)
    tifffile.imwrite(
        tmp_path / "a.tif", array, volumetric=True, tile=tile, photometric="minisblack", compression="zlib"
    )
    check(tmp_path / "a.tif", Written(array[np.newaxis], is_2d=False))


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("in_pages", [False, True])
def test_pyramids_without_ome(tmp_path: Path, levels: int, in_pages: bool) -> None:
    array = noise((64, 96), np.uint8, 0)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(array, tile=(16, 16), subifds=0 if in_pages else levels, photometric="minisblack", metadata=None)
        for level in range(1, levels + 1):
            writer.write(
                array[:: 2**level, :: 2**level],
                tile=(16, 16),
                subfiletype=1,
                photometric="minisblack",
                metadata=None,
            )
    check(tmp_path / "a.tif", Written(array[np.newaxis, np.newaxis], is_2d=True, levels=levels + 1))


def test_sections_that_are_written_one_by_one(tmp_path: Path) -> None:
    sections = noise((5, 20, 30), np.uint16, 0)
    ways: list[Callable[[Path], None]] = []

    def one_by_one(path: Path) -> None:
        with tifffile.TiffWriter(path) as writer:
            for section in sections:
                writer.write(section, photometric="minisblack")

    def contiguous(path: Path) -> None:
        with tifffile.TiffWriter(path) as writer:
            for section in sections:
                writer.write(section, photometric="minisblack", contiguous=True)

    def appended(path: Path) -> None:
        for section in sections:
            tifffile.imwrite(path, section, photometric="minisblack", append=path.exists())

    ways += [one_by_one, contiguous, appended]
    for number, way in enumerate(ways):
        path = tmp_path / f"{number}.tif"
        way(path)
        check(path, Written(sections[np.newaxis], is_2d=False))


def test_one_section_and_sides_of_one_pixel(tmp_path: Path) -> None:
    for shape in itertools.product((1, 2), (1, 5), (1, 6)):
        array = noise(shape, np.uint8, 0)
        for how in ({"photometric": "minisblack"}, {"imagej": True, "metadata": {"axes": "ZYX"}}, {"ome": True}):
            if "imagej" in how and 1 in shape[1:]:
                continue  # tifffile writes this as a page of another shape than it describes
            metadata = {"axes": "ZYX"} if "ome" in how else how.get("metadata", {})
            tifffile.imwrite(tmp_path / "a.tif", array, **{**how, "metadata": metadata})
            found = open_image(tmp_path / "a.tif").read(ALL, ALL, ALL)
            np.testing.assert_array_equal(found.reshape(shape), array, err_msg=f"{shape} {how}")
