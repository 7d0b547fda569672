"""Zarr arrays and OME-Zarr images."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

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


def test_a_store_that_was_zipped_with_its_folder(tmp_path: Path) -> None:
    """As file managers do it, those of macOS with a folder of their own beside it."""
    array = np.random.default_rng(0).integers(0, 2**16, (3, 20, 30), dtype=np.uint16)
    store = ome_group(tmp_path / "image.ome.zarr", "0.5", array, "zyx")
    ome_group(store / "labels" / "cells", "0.5", array + 1, "zyx")
    shutil.make_archive(str(tmp_path / "image.zarr"), "zip", tmp_path, store.name)
    with zipfile.ZipFile(tmp_path / "image.zarr.zip", "a") as archive:
        archive.writestr(f"__MACOSX/{store.name}/._zarr.json", "")
    for within in ("", "0", store.name):
        np.testing.assert_array_equal(whole(open_image(tmp_path / "image.zarr.zip" / within))[0], array)
    np.testing.assert_array_equal(whole(open_image(tmp_path / "image.zarr.zip" / "labels" / "cells"))[0], array + 1)


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
    # The names may be wrong: what the user says counts, as for HDF5 and TIFF.
    renamed = open_image(tmp_path / "a.zarr", axes="czyx")
    assert (renamed.channels, renamed.shape) == (2, (3, 10, 12))
    np.testing.assert_array_equal(whole(renamed), data)


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


def plate(path: Path, version: str) -> Path:
    """A plate of two wells, of which the first is not there."""
    zarr_format: Any = 2 if version == "0.4" else 3

    def about(content: dict[str, Any]) -> dict[str, Any]:
        return (
            {name: {"version": "0.4", **value} for name, value in content.items()}
            if version == "0.4"
            else {"ome": {"version": "0.5", **content}}
        )

    wells = [{"path": f"{row}/3", "rowIndex": index, "columnIndex": 0} for index, row in enumerate("BC")]
    rows = [{"name": "B"}, {"name": "C"}]
    content = {"plate": {"columns": [{"name": "3"}], "rows": rows, "wells": wells}}
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format, attributes=about(content))
    group.create_group("C").create_group("3", attributes=about({"well": {"images": [{"path": "f0"}, {"path": "f1"}]}}))
    ome_group(path / "C" / "3" / "f1", version, np.zeros((2, 8, 8), np.uint8), "zyx")
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_plate_names_an_image_that_it_has(tmp_path: Path, version: str) -> None:
    path = plate(tmp_path / "plate.zarr", version)
    image = path / "C" / "3" / "f1"
    for start, kind in ((path, "an OME-Zarr plate"), (image.parent, "a well of an OME-Zarr plate")):
        with pytest.raises(UserError) as error:
            open_image(start)
        assert str(error.value) == f"{start} is {kind}; give one image of it, for example {image}"
    assert open_image(image).shape == (2, 8, 8)


@pytest.mark.parametrize("about", [{}, {"wells": []}, {"wells": [{"path": "X/9"}, {}, 3]}, {"wells": {"path": 1}}, 7])
def test_a_plate_without_images(tmp_path: Path, about: Any) -> None:
    zarr.open_group(tmp_path / "p.zarr", mode="w", attributes={"ome": {"version": "0.5", "plate": about}})
    with pytest.raises(UserError, match=r"is an OME-Zarr plate; give one image of it$"):
        open_image(tmp_path / "p.zarr")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_axes_in_capitals(tmp_path: Path, version: str) -> None:
    array = np.random.default_rng(0).integers(0, 9, (2, 3, 4, 10, 12), dtype=np.uint8)
    path = ome_group(tmp_path / "i.zarr", version, array, "tczyx")
    file = path / (".zattrs" if version == "0.4" else "zarr.json")
    content = json.loads(file.read_text())
    image = (content if version == "0.4" else content["attributes"]["ome"])["multiscales"][0]
    for axis in image["axes"]:
        axis["name"] = axis["name"].upper()
    file.write_text(json.dumps(content))
    stack = open_image(path, time=1)
    assert (stack.channels, stack.scale, stack.unit) == (3, (50.0, 4.0, 4.0), "nanometer")
    np.testing.assert_array_equal(whole(stack), array[1])
    assert open_image(path / "1", time=1).shape == (4, 5, 6)


def test_damaged_ome_metadata_is_named(tmp_path: Path) -> None:
    path = ome_group(tmp_path / "i.zarr", "0.5", np.zeros((2, 8, 8), np.uint8), "zyx")
    content = json.loads((path / "zarr.json").read_text())
    del content["attributes"]["ome"]["multiscales"][0]["datasets"]
    (path / "zarr.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="OME-Zarr metadata") as error:
        open_image(path)
    assert "datasets" in str(error.value) and "\n" not in str(error.value)


def test_damaged_chunk_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    array = zarr.create_array(path, shape=(2, 8, 8), chunks=(1, 8, 8), dtype="u1")
    array[...] = np.random.default_rng(0).integers(0, 255, (2, 8, 8))
    (path / "c" / "1" / "0" / "0").write_bytes(b"rubbish")
    stack = open_image(path)
    stack.section(0)
    with pytest.raises(UserError, match=r"cannot read .*a\.zarr"):
        stack.section(1)


def changed(path: Path, version: str, change: Any) -> Path:
    """Change the metadata of the first image in a store."""
    file = path / (".zattrs" if version == "0.4" else "zarr.json")
    content = json.loads(file.read_text())
    change(content if version == "0.4" else content["attributes"]["ome"])
    file.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_units_of_several_axes_become_one(tmp_path: Path, version: str) -> None:
    def change(ome: dict[str, Any]) -> None:
        ome["multiscales"][0]["axes"][0]["unit"] = "micrometer"
        ome["multiscales"][0]["axes"][1]["unit"] = "nm"

    path = changed(ome_group(tmp_path / "i.zarr", version, np.zeros((2, 8, 8), np.uint8), "zyx"), version, change)
    stack = open_image(path)
    assert (stack.scale, stack.translation, stack.unit) == ((50000.0, 4.0, 4.0), (100000.0, 0.0, 0.0), "nanometer")


@pytest.mark.parametrize(("step", "scale"), [(-50.0, (-50.0, 4.0, 4.0)), (0.0, (4.0, 4.0, 4.0))])
def test_a_scale_that_is_none_is_told(tmp_path: Path, step: float, scale: tuple[float, ...]) -> None:
    def change(ome: dict[str, Any]) -> None:
        ome["multiscales"][0]["datasets"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [step, 4, 4]}]

    path = changed(ome_group(tmp_path / "i.zarr", "0.5", np.zeros((2, 8, 8), np.uint8), "zyx"), "0.5", change)
    stack = open_image(path)
    assert stack.scale == scale
    assert len(stack.notes) == 1 and f"{path}: the size of a voxel in z is" in stack.notes[0]


@pytest.mark.parametrize(
    ("kinds", "told"),
    [
        (["scale", "scale"], "scale, scale"),
        (["translation", "scale"], "translation, scale"),
        (["affine"], "affine"),
        ([], "of an empty list"),
    ],
)
def test_a_level_has_a_scale_and_perhaps_a_translation(tmp_path: Path, kinds: list[str], told: str) -> None:
    def change(ome: dict[str, Any]) -> None:
        steps = [{"type": kind, kind: [2, 4, 4]} for kind in kinds]
        ome["multiscales"][0]["datasets"][1]["coordinateTransformations"] = steps

    path = changed(ome_group(tmp_path / "i.zarr", "0.5", np.zeros((2, 8, 8), np.uint8), "zyx"), "0.5", change)
    with pytest.raises(UserError) as error:
        open_image(path)
    assert str(error.value) == (
        f"'1' in {path} has the transformations {told}; it needs a scale, and may have a translation after it; "
        "write the image again"
    )


def test_values_that_attributes_scale_are_told(tmp_path: Path) -> None:
    pixels = np.zeros((2, 8, 8), np.int16)
    about = {"scale_factor": 0.5, "add_offset": 0.0}
    for dimensions in ({}, {"_ARRAY_DIMENSIONS": ["z", "y", "x"]}):
        path = tmp_path / f"{len(dimensions)}.zarr"
        zarr.create_array(path, data=pixels, attributes={**about, **dimensions}, zarr_format=2)
        assert f"{path}: the attributes scale_factor (0.5) are not applied" in open_image(path).notes[0]


@pytest.mark.parametrize(
    ("kind", "numbers"), [("scale", [1, 1]), ("scale", ["a", 1, 1]), ("translation", [3]), ("translation", 3)]
)
def test_a_scale_needs_a_number_for_each_axis(tmp_path: Path, kind: str, numbers: Any) -> None:
    def change(ome: dict[str, Any]) -> None:
        steps = ome["multiscales"][0]["datasets"][1]["coordinateTransformations"]
        steps[["scale", "translation"].index(kind)][kind] = numbers

    path = changed(ome_group(tmp_path / "i.zarr", "0.5", np.zeros((2, 8, 8), np.uint8), "zyx"), "0.5", change)
    with pytest.raises(UserError) as error:
        open_image(path)
    assert str(error.value) == (
        f"the {kind} of '1' in {path} is {numbers}; it needs 3 numbers, one for each axis; write the image again"
    )


def test_of_several_images_the_first_is_read_and_that_is_told(tmp_path: Path) -> None:
    path = ome_group(tmp_path / "i.zarr", "0.5", np.zeros((2, 8, 8), np.uint8), "zyx", levels=1)
    other = zarr.open_group(path).create_group("other").create_array("0", shape=(3, 8, 8), dtype="u1", chunks=(1, 8, 8))
    other[...] = 7

    def change(ome: dict[str, Any]) -> None:
        second = json.loads(json.dumps(ome["multiscales"][0]))
        second["name"] = "second"
        second["datasets"][0]["path"] = "other/0"
        second["datasets"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [9, 1, 1]}]
        ome["multiscales"].append(second)

    stack = open_image(changed(path, "0.5", change))
    assert stack.shape == (2, 8, 8)
    assert stack.notes == (
        f"{path} holds 2 images (n, second), of which the first is read; for another one give its array, "
        f"for example {path / 'other/0'}",
    )
    stack = open_image(path / "other" / "0")
    assert (stack.shape, stack.scale, stack.unit, int(stack.section(0)[0, 0, 0])) == (
        (3, 8, 8),
        (9, 1, 1),
        "nanometer",
        7,
    )


@pytest.mark.parametrize("version", ["0.1", "0.2", "0.3", "0.6.dev1"])
def test_other_versions_are_named(tmp_path: Path, version: str) -> None:
    kept = "0.5" if version > "0.5" else "0.4"

    def change(ome: dict[str, Any]) -> None:
        (ome if kept == "0.5" else ome["multiscales"][0])["version"] = version

    path = changed(ome_group(tmp_path / "i.zarr", kept, np.zeros((2, 8, 8), np.uint8), "zyx"), kept, change)
    with pytest.raises(UserError, match=f"is OME-Zarr {version}, of which 0.4 and 0.5 are read; convert it"):
        open_image(path)
    # The way out that the line names.
    assert open_image(path / "0", axes="zyx").shape == (2, 8, 8)


def test_axes_without_names_are_asked_for(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=(2, 3, 8, 8), dtype="u1", chunks=(1, 1, 8, 8))
    with pytest.raises(UserError, match="say which is which with --axes, for example --axes czyx"):
        open_image(tmp_path / "a.zarr")
    assert open_image(tmp_path / "a.zarr", axes="czyx").channels == 2
