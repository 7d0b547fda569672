"""Opening images of every kind, lazily."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_autosegnet.data.images import (
    ImageStack,
    check_finite,
    image_from_array,
    open_image,
    open_labels,
)
from napari_autosegnet.data.stack import natural_key
from napari_autosegnet.errors import UserError

ALL = slice(None)


def whole(stack: ImageStack) -> np.ndarray:
    return stack.read(ALL, ALL, ALL)


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 70, 90), dtype=np.uint8)


# ---------------------------------------------------------------- TIFF


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


# ---------------------------------------------------------------- pictures, folders, npy


def test_picture_modes(tmp_path: Path) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rgb = np.stack([grey, grey[::-1], grey.T], -1)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(rgb).save(tmp_path / "rgb.png")
    Image.fromarray(np.dstack([rgb, grey])).save(tmp_path / "rgba.png")
    Image.fromarray(grey.astype(np.uint16) * 200).save(tmp_path / "deep.png")
    Image.fromarray(grey > 100).save(tmp_path / "bits.png")
    palette = Image.new("P", (16, 16))
    palette.putdata((grey % 3).ravel().tolist())
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(tmp_path / "palette.png")

    stack = open_image(tmp_path / "grey.png")
    assert stack.is_2d and (stack.name, stack.sections, stack.scale) == ("grey", 1, (1.0, 1.0, 1.0))
    np.testing.assert_array_equal(stack.section(0)[0], grey)
    for name in ("rgb.png", "rgba.png"):
        np.testing.assert_array_equal(open_image(tmp_path / name).section(0), np.moveaxis(rgb, -1, 0))
    deep = open_image(tmp_path / "deep.png")
    assert deep.dtype == np.uint16
    np.testing.assert_array_equal(deep.section(0)[0], grey.astype(np.uint16) * 200)
    bits = open_image(tmp_path / "bits.png")
    assert bits.dtype == np.uint8
    np.testing.assert_array_equal(bits.section(0)[0], grey > 100)
    assert open_image(tmp_path / "palette.png").channels == 3
    np.testing.assert_array_equal(open_labels(tmp_path / "palette.png").section(0)[0], grey % 3)


def test_folder_is_a_stack_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        Image.fromarray(np.full((20, 30 + number), number, np.uint8)).save(tmp_path / f"slice{number}.png")
    tifffile.imwrite(tmp_path / "slice3.tif", np.full((8, 9), 3, np.uint8))
    (tmp_path / "notes.txt").write_text("not an image")
    stack = open_image(tmp_path)
    assert stack.section_names == ("slice1", "slice2", "slice3", "slice10")
    assert not stack.uniform and not stack.is_2d
    assert [int(stack.section(i).max()) for i in range(4)] == [1, 2, 3, 10]
    assert stack.section_shape(3) == (20, 40)


def test_folder_of_one_size_is_read_as_a_volume(tmp_path: Path, volume: np.ndarray) -> None:
    for index, section in enumerate(volume):
        Image.fromarray(section).save(tmp_path / f"{index}.png")
    stack = open_image(tmp_path)
    np.testing.assert_array_equal(stack.read(slice(1, 4), slice(3, 9), slice(60, 200)), volume[None, 1:4, 3:9, 60:])


def test_natural_key() -> None:
    names = ["a10", "a2", "b1", "a2b", "10", "9"]
    assert sorted(names, key=natural_key) == ["9", "10", "a2", "a2b", "a10", "b1"]


def test_folder_of_different_kinds_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"b\.png is uint8 with 3 channels, a\.png is uint8 with 1"):
        open_image(tmp_path)


def test_npy(tmp_path: Path, volume: np.ndarray) -> None:
    np.save(tmp_path / "v.npy", volume.astype(">f4"))
    stack = open_image(tmp_path / "v.npy")
    assert stack.dtype == np.dtype("f4") and stack.dtype.isnative and whole(stack).dtype.isnative
    np.testing.assert_array_equal(whole(stack)[0], volume)
    np.save(tmp_path / "rgb.npy", np.moveaxis(volume[:3], 0, -1))
    assert open_image(tmp_path / "rgb.npy").channels == 3
    np.save(tmp_path / "many.npy", np.zeros((2, 2, 2, 8, 8), np.uint8))
    with pytest.raises(UserError, match="5 axes without names"):
        open_image(tmp_path / "many.npy")
    np.save(tmp_path / "objects.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"objects\.npy"):
        open_image(tmp_path / "objects.npy")


@pytest.mark.parametrize("dtype", [np.complex64, "U3", "M8[s]", object])
def test_values_that_are_no_real_numbers_are_refused(dtype: Any) -> None:
    with pytest.raises(UserError, match="whole or real numbers"):
        image_from_array(np.zeros((8, 8), dtype=dtype))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.tif", None, "there is no file"),
        ("text.txt", b"x", "of no kind that can be read"),
        ("broken.tif", b"not a tiff", "cannot open"),
        ("broken.png", b"not a png", "cannot open"),
        ("empty.npy", b"", "cannot open"),
    ],
)
def test_what_cannot_be_opened_is_named_in_one_line(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        open_image(tmp_path / name)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_empty_folder_and_empty_image(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no TIFF"):
        open_image(tmp_path)
    with pytest.raises(UserError, match="no pixels"):
        image_from_array(np.zeros((0, 8, 8), np.uint8))


# ---------------------------------------------------------------- Zarr


def ome_group(path: Path, version: str, array: np.ndarray, axes: str, levels: int = 2, **more: Any) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    kinds = {"t": "time", "c": "channel"}
    steps = {"z": 50.0, "y": 4.0, "x": 4.0}
    datasets = []
    for level in range(levels):
        every = tuple(slice(None, None, 2**level) if axis in "yx" else ALL for axis in axes)
        chunks = tuple(1 if axis in "tc" else 8 for axis in axes)
        smaller = array[every]
        group.create_array(str(level), shape=smaller.shape, chunks=chunks, dtype=array.dtype)[...] = smaller
        scale = [steps.get(axis, 1.0) * (2**level if axis in "yx" else 1) for axis in axes]
        origin = [100.0 if axis == "z" else 0.0 for axis in axes]
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": scale},
                    {"type": "translation", "translation": origin},
                ],
            }
        )
    named = [
        {"name": axis, "type": kinds.get(axis, "space"), **({"unit": "nanometer"} if axis in "zyx" else {})}
        for axis in axes
    ]
    image: dict[str, Any] = {"axes": named, "datasets": datasets, "name": "n", **more}
    if version == "0.4":
        group.attrs["multiscales"] = [{**image, "version": "0.4"}]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["tczyx", "czyx", "zyx", "yx", "cyx"])
def test_ome_zarr(tmp_path: Path, version: str, axes: str) -> None:
    sizes = {"t": 2, "c": 2, "z": 3, "y": 20, "x": 30}
    array = np.random.default_rng(0).integers(0, 2**16, [sizes[axis] for axis in axes], dtype=np.uint16)
    path = ome_group(tmp_path / "image.ome.zarr", version, array, axes)
    if "t" in axes:
        with pytest.raises(UserError, match="2 time points"):
            open_image(path)
    stack = open_image(path, time=1 if "t" in axes else None)
    expected = array[1] if "t" in axes else array
    if "c" not in axes:
        expected = expected[None]
    if "z" not in axes:
        expected = expected[:, None]
    np.testing.assert_array_equal(whole(stack), expected)
    np.testing.assert_array_equal(stack.read(slice(0, 2), slice(3, 11), slice(5, 6)), expected[:, :2, 3:11, 5:6])
    assert stack.name == "image" and stack.pyramid_levels == 2 and stack.is_2d == ("z" not in axes)
    assert stack.unit == "nanometer"
    if "z" in axes:
        assert (stack.scale, stack.translation, stack.chunks) == ((50.0, 4.0, 4.0), (100.0, 0.0, 0.0), (8, 8, 8))
    else:
        assert (stack.scale, stack.translation, stack.chunks) == ((1.0, 4.0, 4.0), (0.0, 0.0, 0.0), (1, 8, 8))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_one_level_of_an_ome_zarr_has_its_own_scale(tmp_path: Path, version: str) -> None:
    array = np.random.default_rng(0).integers(0, 9, (3, 20, 30), dtype=np.uint8)
    path = ome_group(tmp_path / "i.zarr", version, array, "zyx")
    stack = open_image(path / "1")
    assert (stack.shape, stack.scale, stack.pyramid_levels) == ((3, 10, 15), (50.0, 8.0, 8.0), 1)


def test_transformations_of_all_levels_come_after_those_of_one(tmp_path: Path) -> None:
    more = {
        "coordinateTransformations": [
            {"type": "scale", "scale": [2.0, 2.0, 2.0]},
            {"type": "translation", "translation": [1.0, 1.0, 1.0]},
        ]
    }
    path = ome_group(tmp_path / "i.zarr", "0.5", np.zeros((2, 8, 8), np.uint8), "zyx", levels=1, **more)
    stack = open_image(path)
    assert (stack.scale, stack.translation) == ((100.0, 8.0, 8.0), (201.0, 1.0, 1.0))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_plain_zarr_arrays(tmp_path: Path, volume: np.ndarray, zarr_format: Any) -> None:
    path = tmp_path / "plain.zarr"
    array = zarr.open_array(path, mode="w", shape=volume.shape, chunks=(2, 32, 16), dtype="u1", zarr_format=zarr_format)
    array[...] = volume
    stack = open_image(path)
    assert (stack.name, stack.chunks, stack.is_2d) == ("plain", (2, 32, 16), False)
    np.testing.assert_array_equal(whole(stack)[0], volume)


def test_named_dimensions_of_a_zarr_array(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 9, (2, 3, 10, 12), dtype=np.uint8)
    array = zarr.create_array(
        tmp_path / "a.zarr",
        shape=data.shape,
        chunks=(1, 1, 10, 12),
        dtype="u1",
        dimension_names=["z", "channel", "y", "x"],
    )
    array[...] = data
    stack = open_image(tmp_path / "a.zarr")
    assert (stack.channels, stack.shape, stack.chunks) == (3, (2, 10, 12), (1, 10, 12))
    np.testing.assert_array_equal(whole(stack), data.swapaxes(0, 1))


def test_zarr_groups_that_are_no_image(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "empty.zarr", mode="w")
    with pytest.raises(UserError, match="is empty"):
        open_image(tmp_path / "empty.zarr")
    group = zarr.open_group(tmp_path / "many.zarr", mode="w")
    for name in ("raw", "mask"):
        group.create_array(name, shape=(4, 8, 8), dtype="u1", chunks=(4, 8, 8))
    with pytest.raises(UserError, match="give one of mask, raw"):
        open_image(tmp_path / "many.zarr")
    assert open_image(tmp_path / "many.zarr" / "raw").shape == (4, 8, 8)
    del group["mask"]
    assert open_image(tmp_path / "many.zarr").shape == (4, 8, 8)


def test_damaged_ome_metadata_is_named(tmp_path: Path) -> None:
    path = ome_group(tmp_path / "i.zarr", "0.5", np.zeros((2, 8, 8), np.uint8), "zyx")
    content = json.loads((path / "zarr.json").read_text())
    del content["attributes"]["ome"]["multiscales"][0]["datasets"]
    (path / "zarr.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="OME-Zarr metadata") as error:
        open_image(path)
    assert "datasets" in str(error.value) and "\n" not in str(error.value)


# ---------------------------------------------------------------- laziness, checks, arrays


class Watched:
    """An array that notes what is read of it."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.asked: list[Any] = []

    def __getitem__(self, index: Any) -> Any:
        self.asked.append(index)
        return self.array[index]


def test_only_the_region_asked_for_is_touched(volume: np.ndarray) -> None:
    watched = Watched(volume)
    stack = image_from_array(watched, scale=(4, 2, 1), translation=(1, 2))
    assert watched.asked == []
    stack.read(slice(1, 2), slice(5, 9), slice(-3, None))
    assert watched.asked == [(slice(1, 2), slice(5, 9), slice(87, 90))]
    assert (stack.scale, stack.translation) == ((4.0, 2.0, 1.0), (0.0, 1.0, 2.0))
    assert stack.read(slice(3, 1), ALL, ALL).shape == (1, 0, 70, 90)
    assert len(watched.asked) == 1
    with pytest.raises(IndexError):
        stack.section(5)


def test_channel_axis(volume: np.ndarray) -> None:
    colour = np.stack([volume, volume[::-1]], axis=-1)
    stack = image_from_array(colour, channel_axis=-1)
    assert (stack.channels, stack.shape) == (2, volume.shape)
    np.testing.assert_array_equal(whole(stack), np.moveaxis(colour, -1, 0))
    with pytest.raises(UserError, match="4 axes besides channels"):
        image_from_array(colour)


def test_booleans_are_read_as_bytes() -> None:
    stack = image_from_array(np.eye(8, dtype=bool))
    assert stack.dtype == np.uint8 and stack.section(0).dtype == np.uint8


def test_nan_is_refused_by_section() -> None:
    array = np.zeros((3, 8, 8), np.float32)
    array[2, 1, 1] = np.nan
    array[2, 1, 2] = np.inf
    stack = image_from_array(array, name="noisy")
    check_finite(stack.section(0), stack, 0)
    with pytest.raises(UserError, match="section 2 of noisy has 2 pixels that are NaN or infinite"):
        check_finite(stack.section(2), stack, 2)


def test_damaged_chunk_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    array = zarr.create_array(path, shape=(2, 8, 8), chunks=(1, 8, 8), dtype="u1")
    array[...] = np.random.default_rng(0).integers(0, 255, (2, 8, 8))
    (path / "c" / "1" / "0" / "0").write_bytes(b"rubbish")
    stack = open_image(path)
    stack.section(0)
    with pytest.raises(UserError, match=r"cannot read .*a\.zarr"):
        stack.section(1)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)), tile=st.sampled_from([None, 16, 32]))
def test_tiff_round_trip(tmp_path: Path, shape: tuple[int, int, int], tile: int | None) -> None:
    array = np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)
    path = tmp_path / "a.tif"
    how: dict[str, Any] = {"tile": (tile, tile)} if tile else {}
    tifffile.imwrite(path, array, photometric="minisblack", compression="zlib", **how)
    np.testing.assert_array_equal(whole(open_image(path)).reshape(shape), array)


# ---------------------------------------------------------------- real data


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("isbi2012/train-volume.tif", "200da3d452d726e6c9ca1ce04b869d4edb727320d23b516d01cce707dc8c4760"),
        ("isbi2012/train-labels.tif", "a7cb64000a1a7e542682927e19c91339f58f9f178e0bcce4e207371116f0ca36"),
        ("vnc/mitochondria.tif", "7c517294c663818b459be907505c0998caaad026cddf3cd8f9fb28c5d814c50b"),
        ("industrial/crops-images.tif", "409c9992292bfcad752f7f5bfc43d514aeffac8aba9b82924709275fe6dab3d2"),
    ],
)
def test_real_stacks_are_read_as_published(shared_data: Path, name: str, digest: str) -> None:
    assert hashlib.sha256(whole(open_image(shared_data / name)).tobytes()).hexdigest() == digest


def test_real_photographs_of_many_sizes(shared_data: Path) -> None:
    stack = open_image(shared_data / "industrial" / "full" / "images")
    assert stack.sections == 319 and not stack.uniform and stack.dtype == np.uint8
    assert stack.section(7).shape == (1, *stack.section_shape(7))
