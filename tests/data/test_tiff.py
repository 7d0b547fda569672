"""TIFF files of every kind, lazily."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_autosegnet.data.images import (
    ImageStack,
    open_image,
)
from napari_autosegnet.errors import UserError

ALL = slice(None)


def whole(stack: ImageStack) -> np.ndarray:
    return stack.read(ALL, ALL, ALL)


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 70, 90), dtype=np.uint8)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"compression": "zlib", "predictor": True},
        {"compression": "zlib", "tile": (32, 16)},
        {"compression": "zlib", "rowsperstrip": 7},
        {"tile": (16, 32)},
        {"bigtiff": True, "byteorder": ">"},
    ],
    ids=lambda how: "-".join(how) or "plain",
)
def test_multi_page_tiff_is_a_stack(tmp_path: Path, volume: np.ndarray, how: dict[str, Any]) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, volume, photometric="minisblack", **how)
    stack = open_image(path)
    assert (stack.name, stack.path, stack.shape, stack.channels) == ("stack", path, (5, 70, 90), 1)
    assert not stack.is_2d
    assert stack.uniform and stack.pyramid_levels == 1
    assert stack.chunks == ((1, *how["tile"]) if "tile" in how else None)
    np.testing.assert_array_equal(whole(stack)[0], volume)
    np.testing.assert_array_equal(stack.section(3)[0], volume[3])


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, ImageStack]:
    array = np.random.default_rng(1).integers(0, 2**16, (4, 53, 75, 3), dtype=np.uint16)
    path = tmp_path_factory.mktemp("tiled") / "rgb.tif"
    tifffile.imwrite(path, array, photometric="rgb", tile=(16, 32), compression="zlib", predictor=True)
    return array, open_image(path)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.tuples(st.integers(0, size), st.integers(0, size)) for size in (4, 53, 75)]))
def test_any_region_of_a_tiled_rgb_tiff(
    tiled: tuple[np.ndarray, ImageStack], bounds: tuple[tuple[int, int], ...]
) -> None:
    array, stack = tiled
    cut = [slice(*sorted(bound)) for bound in bounds]
    found = stack.read(*cut)
    np.testing.assert_array_equal(found, np.moveaxis(array[tuple(cut)], -1, 0))
    assert found.dtype == np.uint16


def test_only_the_tiles_asked_for_are_decoded(tmp_path: Path, volume: np.ndarray) -> None:
    path = tmp_path / "tiled.tif"
    tifffile.imwrite(path, volume, photometric="minisblack", tile=(16, 16), compression="zlib")
    stack = open_image(path)
    pages = stack._source.array  # type: ignore[attr-defined]
    stack.read(slice(2, 3), slice(0, 16), slice(16, 32))
    assert set(pages._cache) == {(2, 1)}


def test_planar_and_transparent_samples(tmp_path: Path) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (40, 50, 4), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "rgba.tif", rgba, photometric="rgb", extrasamples=["unassalpha"], compression="zlib")
    planar = np.ascontiguousarray(np.moveaxis(rgba[..., :3], -1, 0))
    tifffile.imwrite(tmp_path / "planar.tif", planar, photometric="rgb", planarconfig="separate", compression="zlib")
    for name in ("rgba.tif", "planar.tif"):
        stack = open_image(tmp_path / name)
        assert (stack.channels, stack.is_2d, stack.sections) == (3, True, 1)
        np.testing.assert_array_equal(stack.section(0), planar)
        np.testing.assert_array_equal(stack.read(ALL, slice(5, 20), slice(7, 9))[:, 0], planar[:, 5:20, 7:9])


def test_ome_tiff_axes_scale_and_time(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 2**16, (2, 3, 4, 20, 30), dtype=np.uint16)
    path = tmp_path / "movie.ome.tif"
    metadata = {
        "axes": "TZCYX",
        "PhysicalSizeX": 4.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 5.0,
        "PhysicalSizeYUnit": "nm",
        "PhysicalSizeZ": 50.0,
        "PhysicalSizeZUnit": "nm",
    }
    tifffile.imwrite(path, array, metadata=metadata, compression="zlib")
    with pytest.raises(UserError, match="2 time points; say which one"):
        open_image(path)
    with pytest.raises(UserError, match="0 to 1, not 2"):
        open_image(path, time=2)
    stack = open_image(path, time=1)
    assert (stack.name, stack.channels, stack.shape) == ("movie", 4, (3, 20, 30))
    assert (stack.scale, stack.unit) == ((50.0, 5.0, 4.0), "nanometer")
    np.testing.assert_array_equal(whole(stack), array[1].transpose(1, 0, 2, 3))


def test_imagej_scale(tmp_path: Path, volume: np.ndarray) -> None:
    path = tmp_path / "imagej.tif"
    tifffile.imwrite(
        path, volume, imagej=True, resolution=(4.0, 2.0), metadata={"axes": "ZYX", "spacing": 3.0, "unit": "um"}
    )
    stack = open_image(path)
    assert (stack.scale, stack.unit) == ((3.0, 0.5, 0.25), "micrometer")
    np.testing.assert_array_equal(whole(stack)[0], volume)


def test_ome_tiff_pyramid_reads_level_0(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = tmp_path / "pyramid.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(array, subifds=1, tile=(32, 32), metadata={"axes": "YX"})
        writer.write(array[::2, ::2], subfiletype=1, tile=(32, 32))
    stack = open_image(path)
    assert (stack.pyramid_levels, stack.is_2d, stack.shape) == (2, True, (1, 64, 64))
    np.testing.assert_array_equal(stack.section(0)[0], array)


def test_pages_of_different_sizes(tmp_path: Path) -> None:
    path = tmp_path / "mixed.tif"
    sections = [np.full((10 + i, 20 - i), i, np.uint8) for i in range(3)]
    with tifffile.TiffWriter(path) as writer:
        for section in sections:
            writer.write(section, photometric="minisblack")
    stack = open_image(path)
    assert not stack.uniform and stack.sections == 3 and not stack.is_2d
    assert stack.section_shape(2) == (12, 18)
    for index, section in enumerate(sections):
        np.testing.assert_array_equal(stack.section(index)[0], section)
    with pytest.raises(UserError, match="differ in size"):
        _ = stack.shape
    with pytest.raises(UserError, match="differ in size"):
        whole(stack)


def test_truncated_tiff_is_named(tmp_path: Path, volume: np.ndarray) -> None:
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, volume, photometric="minisblack", compression="zlib")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"cut\.tif ends early"):
        open_image(path)


def test_several_stacks_in_one_tiff_are_refused(tmp_path: Path, volume: np.ndarray) -> None:
    path = tmp_path / "two.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(volume, photometric="minisblack")
        writer.write(volume[:, :9], photometric="minisblack")
    with pytest.raises(UserError, match="save each in a file of its own"):
        open_image(path)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)), tile=st.sampled_from([None, 16, 32]))
def test_tiff_round_trip(tmp_path: Path, shape: tuple[int, int, int], tile: int | None) -> None:
    array = np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)
    path = tmp_path / "a.tif"
    how: dict[str, Any] = {"tile": (tile, tile)} if tile else {}
    tifffile.imwrite(path, array, photometric="minisblack", compression="zlib", **how)
    np.testing.assert_array_equal(whole(open_image(path)).reshape(shape), array)
