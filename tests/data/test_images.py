"""Opening images of every kind, lazily."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_autosegnet.data.images import (
    ImageStack,
    check_finite,
    image_from_array,
    open_image,
    open_labels,
)
from napari_autosegnet.errors import UserError

ALL = slice(None)


def whole(stack: ImageStack) -> np.ndarray:
    return stack.read(ALL, ALL, ALL)


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 70, 90), dtype=np.uint8)


# ---------------------------------------------------------------- pictures, folders, npy


def test_picture_modes(tmp_path: Path) -> None:
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rgb = np.stack([gray, gray[::-1], gray.T], -1)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    Image.fromarray(rgb).save(tmp_path / "rgb.png")
    Image.fromarray(np.dstack([rgb, gray])).save(tmp_path / "rgba.png")
    Image.fromarray(gray.astype(np.uint16) * 200).save(tmp_path / "deep.png")
    Image.fromarray(gray > 100).save(tmp_path / "bits.png")
    palette = Image.new("P", (16, 16))
    palette.putdata((gray % 3).ravel().tolist())
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(tmp_path / "palette.png")

    stack = open_image(tmp_path / "gray.png")
    assert stack.is_2d and (stack.name, stack.sections, stack.scale) == ("gray", 1, (1.0, 1.0, 1.0))
    np.testing.assert_array_equal(stack.section(0)[0], gray)
    for name in ("rgb.png", "rgba.png"):
        np.testing.assert_array_equal(open_image(tmp_path / name).section(0), np.moveaxis(rgb, -1, 0))
    deep = open_image(tmp_path / "deep.png")
    assert deep.dtype == np.uint16
    np.testing.assert_array_equal(deep.section(0)[0], gray.astype(np.uint16) * 200)
    bits = open_image(tmp_path / "bits.png")
    assert bits.dtype == np.uint8
    np.testing.assert_array_equal(bits.section(0)[0], gray > 100)
    assert open_image(tmp_path / "palette.png").channels == 3
    np.testing.assert_array_equal(open_labels(tmp_path / "palette.png").section(0)[0], gray % 3)


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


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (
            ["s001", "s002", "s004", "s005"],
            "1 section left out in the numbers of the files, first between s002 and s004",
        ),
        (["t1_z10", "t1_z20", "t1_z50", "t1_z60"], "2 sections left out"),
        (["s001", "s002", "s003"], ""),
        (["s10", "s20", "s30"], ""),
        (["s3", "s17", "s40"], ""),
        (["s1", "s2", "s90"], ""),
        (["a1", "b2", "b4"], ""),
        (["a", "b", "c"], ""),
        (["a1"], ""),
        (["1_1", "1_2", "2_1"], ""),
    ],
)
def test_sections_that_a_folder_leaves_out_are_told(tmp_path: Path, names: list[str], told: str) -> None:
    for name in names:
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / f"{name}.png")
    notes = open_image(tmp_path).notes
    assert told in notes[0] and notes[0].endswith("they are taken for neighbors") if told else notes == ()
    assert open_labels(tmp_path).notes == ()


def test_a_time_point_that_is_not_there_is_refused(tmp_path: Path, volume: np.ndarray) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    Image.fromarray(volume[0]).save(tmp_path / "a.png")
    Image.fromarray(volume[0]).save(folder / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", volume)
    np.save(tmp_path / "a.npy", volume)
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as writer:
        for size in (20, 30):
            writer.write(volume[0, :size])
    for path in (folder, *(tmp_path / name for name in ("a.png", "a.tif", "a.npy", "mixed.tif"))):
        assert open_image(path, time=0).section(0).shape[0] == 1
        for opened in (open_image, open_labels):
            with pytest.raises(UserError, match="has one time point, so time point 7 cannot be read"):
                opened(path, time=7)


def test_another_time_point_of_chosen_channels(tmp_path: Path) -> None:
    movie = np.random.default_rng(0).integers(0, 256, (3, 2, 4, 20, 30), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "movie.ome.tif", movie, metadata={"axes": "TCZYX"})
    stack = open_image(tmp_path / "movie.ome.tif", time=0, channels=["1"])
    assert stack.time_points == 3 and np.array_equal(whole(stack), movie[0, 1:])
    later = stack.at_time(2)
    assert np.array_equal(whole(later), movie[2, 1:]) and np.array_equal(whole(stack), movie[0, 1:])
    assert later.selection == {"time point": 2, "channels chosen": [1]}


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
    assert stack.notes == ()
    np.save(tmp_path / "three.npy", volume[:3])
    assert "is read as sections; of channels, use --axes cyx" in open_image(tmp_path / "three.npy").notes[0]
    assert open_image(tmp_path / "three.npy", axes="cyx").notes == ()
    np.save(tmp_path / "rgb.npy", np.moveaxis(volume[:3], 0, -1))
    assert open_image(tmp_path / "rgb.npy").channels == 3
    np.save(tmp_path / "four.npy", np.moveaxis(volume[:4], 0, -1))
    four = open_image(tmp_path / "four.npy")
    assert four.channels == 3 and "read as red, green, blue, and transparency" in four.notes[0]
    assert open_image(tmp_path / "four.npy", axes="yxz").sections == 4
    np.save(tmp_path / "many.npy", np.zeros((2, 2, 2, 8, 8), np.uint8))
    with pytest.raises(UserError, match="5 axes without names; say which is which with --axes"):
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
        ("text.txt", b"x", "is not in a format that can be read"),
        ("broken.tif", b"not a tiff", "cannot open"),
        ("broken.png", b"not a png", "is not a PNG, JPEG or BMP, or is damaged"),
        ("empty.npy", b"", "holds no numbers, or is damaged"),
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
    color = np.stack([volume, volume[::-1]], axis=-1)
    stack = image_from_array(color, channel_axis=-1)
    assert (stack.channels, stack.shape) == (2, volume.shape)
    np.testing.assert_array_equal(whole(stack), np.moveaxis(color, -1, 0))
    with pytest.raises(UserError, match="4 axes besides channels"):
        image_from_array(color)


def test_booleans_are_read_as_bytes() -> None:
    stack = image_from_array(np.eye(8, dtype=bool))
    assert stack.dtype == np.uint8 and stack.section(0).dtype == np.uint8


def test_nan_is_refused_by_section() -> None:
    array = np.zeros((3, 8, 8), np.float32)
    array[2, 1, 1] = np.nan
    array[2, 1, 2] = np.inf
    stack = image_from_array(array, name="noisy")
    check_finite(stack.section(0), stack, 0)
    with pytest.raises(UserError, match="section 2 of noisy is NaN or infinite in 2 pixels"):
        check_finite(stack.section(2), stack, 2)


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
