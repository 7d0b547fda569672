"""Images with their labels: paired, checked, and read as classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_autosegnet.data.annotations import parse_classes
from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.data.labeled_stacks import open_labeled, pair_stacks
from napari_autosegnet.data.selection import Selection
from napari_autosegnet.errors import UserError

REST = "everything else not annotated"
RED_AND_BLUE = np.where(np.eye(8, dtype=bool)[..., None], [255, 0, 0], [0, 0, 255]).astype(np.uint8)


def saved(folder: Path, **arrays: np.ndarray) -> dict[str, Path]:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return {name: folder / f"{name}.npy" for name in arrays}


def test_labeled_stack(tmp_path: Path) -> None:
    labels = np.zeros((3, 8, 9), np.int32)
    labels[0, :2], labels[0, 2:3], labels[2, 0, 0] = 1, 2, 2
    paths = saved(tmp_path, image=np.ones((3, 8, 9), np.uint8), labels=labels)
    (stack,) = open_labeled([paths["image"]], [paths["labels"]])
    assert stack.annotated_pixels.tolist() == [[18, 9], [0, 0], [0, 1]]
    np.testing.assert_array_equal(stack.target(0), labels[0])
    assert stack.target(0).dtype == np.uint8


def test_classes_are_those_of_all_files_together(tmp_path: Path) -> None:
    paths = saved(tmp_path, i=np.ones((8, 8), np.uint8), a=np.full((8, 8), 1), b=np.full((8, 8), 3))
    stacks = open_labeled([paths["i"]] * 2, [paths["a"], paths["b"]])
    assert [stack.annotated_pixels.tolist() for stack in stacks] == [[[64, 0]], [[0, 64]]]
    assert stacks[0].mapping == stacks[1].mapping


@pytest.mark.parametrize(
    ("image", "labels", "classes", "message"),
    [
        ((3, 8, 8), np.zeros((2, 8, 8), np.uint8), None, "has 3 sections and its labels .* have 2"),
        ((3, 8, 8), np.zeros((3, 8, 9), np.uint8), None, "section 0 .* is 8x8 pixels and of its labels .* 8x9"),
        ((8, 8), np.full((8, 8), 0.5, np.float32), None, "hold fractions, as an image does"),
        ((8, 8), np.zeros((8, 8), np.uint8), None, "nothing is annotated"),
        ((8, 8), np.ones((8, 8), np.uint8), None, "only one class"),
        ((8, 8), np.eye(8, dtype=np.uint8), "0:a,2:b", r"name 2 \(b\), which no label has; the values .* are 0, 1"),
        ((8, 8), RED_AND_BLUE, "0:a,1:b", "color picture; name its colors, .* '#0000ff:NAME,#ff0000:NAME'"),
        ((8, 8), RED_AND_BLUE, "#ff0000:a,#00ff00:b", r"name #00ff00 \(b\), which .* occur are #0000ff, #ff0000"),
        ((8, 8), RED_AND_BLUE * np.uint16(2), None, "color picture with values up to 510; save them with 8 bits"),
        ((8, 8), np.arange(192, dtype=np.uint8).reshape(8, 8, 3), None, "in 64 colors, .* name the colors that"),
        ((8, 8), RED_AND_BLUE * [0, 0, 1], None, "class .value #0000ff; #000000 is .* '#000000:background,#0000ff:obj"),
    ],
)
def test_labels_that_do_not_fit(
    tmp_path: Path, image: tuple[int, ...], labels: np.ndarray, classes: str | None, message: str
) -> None:
    paths = saved(tmp_path, image=np.ones(image, np.uint8), labels=labels)
    with pytest.raises(UserError, match=message) as error:
        open_labeled([paths["image"]], [paths["labels"]], classes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("turned", ["image", "labels"])
def test_channels_that_may_be_sections_are_named(tmp_path: Path, turned: str) -> None:
    """ImageJ calls the planes of a stack channels if nobody told it what they are."""
    pixels = np.ones((5, 8, 8), np.uint8)
    pixels[0, :4] = 2
    paths = {name: tmp_path / f"{name}.tif" for name in ("image", "labels")}
    for name, path in paths.items():
        tifffile.imwrite(path, pixels, imagej=True, metadata={"axes": "CYX" if name == turned else "ZYX"})
    with pytest.raises(UserError, match=f"{turned}.tif has 5 channels and .* as many sections; .* use --axes zyx"):
        open_labeled([paths["image"]], [paths["labels"]])
    (stack,) = open_labeled([paths["image"]], [paths["labels"]], read=Selection(axes="zyx"))
    assert stack.image.sections == stack.labels.sections == 5


def test_counts_files_and_channels_must_fit(tmp_path: Path) -> None:
    eye = np.eye(8, dtype=np.uint8) + 1
    paths = saved(tmp_path, image=eye, rgb=np.dstack([eye] * 3), labels=eye)
    with pytest.raises(UserError, match="no image is given"):
        open_labeled([], [])
    with pytest.raises(UserError, match="2 images and 1 label file are"):
        open_labeled([paths["image"]] * 2, [paths["labels"]])
    with pytest.raises(UserError, match="there is no file"):
        open_labeled([paths["image"]], [tmp_path / "absent.tif"])
    with pytest.raises(UserError, match="has 3 channels"):
        open_labeled([paths["image"], paths["rgb"]], [paths["labels"]] * 2)
    # A gray label picture saved as RGB is taken for what it is.
    (stack,) = open_labeled([paths["image"]], [paths["rgb"]])
    np.testing.assert_array_equal(stack.target(0), eye)


def test_colors_are_classes(tmp_path: Path) -> None:
    """A mask painted in another program: a section without color is black or white, not 0 or 255."""
    plain = np.zeros((8, 8, 3), np.uint8)
    plain[:4] = 255
    paths = saved(tmp_path, image=np.ones((2, 8, 8), np.uint8), labels=np.stack([RED_AND_BLUE, plain]))
    (stack,) = open_labeled([paths["image"]], [paths["labels"]], "#FF0000:edge,#0000ff:cell,#ffffff:paper")
    assert stack.annotated_pixels.tolist() == [[8, 56, 0], [0, 0, 32]]
    np.testing.assert_array_equal(stack.target(0), 2 - np.eye(8))
    np.testing.assert_array_equal(stack.target(1), np.repeat([3, 0], 4)[:, None].repeat(8, 1))
    assert stack.mapping.describe() == "#ff0000 -> 1 edge, #0000ff -> 2 cell, #ffffff -> 3 paper, " + REST
    (unnamed,) = open_labeled([paths["image"]], [paths["labels"]])
    assert [each.color for each in unnamed.mapping.classes] == ["#0000ff", "#ff0000", "#ffffff"]
    assert unnamed.mapping.describe() == "#0000ff -> 1 #0000ff, #ff0000 -> 2 #ff0000, #ffffff -> 3 #ffffff, " + REST


def test_gray_labels_may_be_named_by_colors(tmp_path: Path) -> None:
    paths = saved(tmp_path, image=np.ones((8, 8), np.uint8), labels=np.eye(8, dtype=np.uint8) * 255)
    (stack,) = open_labeled([paths["image"]], [paths["labels"]], "#000000:a,#ffffff:b")
    np.testing.assert_array_equal(stack.target(0), 1 + np.eye(8))


def test_whole_numbers_in_floats_are_labels(tmp_path: Path) -> None:
    """As programs write them that compute in floats; NaN is not annotated."""
    labels = np.eye(8, dtype=np.float32) + 1
    labels[0] = np.nan
    paths = saved(tmp_path, image=np.ones((8, 8), np.uint8), labels=labels)
    for classes in (None, "1:a,2:b"):
        (stack,) = open_labeled([paths["image"]], [paths["labels"]], classes)
        np.testing.assert_array_equal(stack.target(0)[1:], labels[1:])
        assert not stack.target(0)[0].any()
        assert stack.annotated_pixels.tolist() == [[49, 7]]
    with pytest.raises(UserError, match="occur are 1, 2$"):
        open_labeled([paths["image"]], [paths["labels"]], "1:a,3:b")


def test_sections_that_are_named_in_two_orders_are_no_pair() -> None:
    image, labels = image_from_array(np.ones((2, 8, 8), np.uint8)), image_from_array(np.ones((2, 8, 8), np.uint8) * 2)
    image.section_names, labels.section_names = ("a", "b"), ("b", "a")
    with pytest.raises(UserError, match="in different orders"):
        pair_stacks([image], [labels], "1:a,2:b")


def test_pairs_of_arrays() -> None:
    image = image_from_array(np.ones((8, 8), np.uint8))
    labels = image_from_array(np.eye(8, dtype=np.uint8))
    mapping = parse_classes("0:a,1:b")
    (stack,) = pair_stacks([image], [labels], mapping)
    assert stack.mapping is mapping
    assert stack.annotated_pixels.tolist() == [[56, 8]]


# ---------------------------------------------------------------- real data


def test_isbi_labels_are_two_classes(shared_data: Path) -> None:
    folder = shared_data / "isbi2012"
    (stack,) = open_labeled([folder / "train-volume.tif"], [folder / "train-labels.tif"])
    assert stack.mapping.describe() == "0 -> 1 class 0, 255 -> 2 class 255, everything else not annotated"
    share = stack.annotated_pixels.sum(0) / stack.annotated_pixels.sum()
    assert share[0] == pytest.approx(0.2196, abs=1e-4)


def test_vnc_merged_classes(shared_data: Path) -> None:
    folder = shared_data / "vnc"
    membranes = ",".join(f"{value}:membrane" for value in (0, 32, 64, 96, 128))
    (stack,) = open_labeled(
        [folder / "raw.tif"], [folder / "labels.tif"], f"{membranes},159:glia,191:mitochondrion,223:synapse,255:cell"
    )
    pixels = stack.annotated_pixels.sum(0)
    assert pixels.sum() == 20 * 1024 * 1024  # every value is named
    np.testing.assert_allclose(pixels / pixels.sum(), [0.172, 0.028, 0.054, 0.0056, 0.741], atol=2e-3)


def test_numbered_objects_are_no_classes(tmp_path: Path) -> None:
    labels = np.zeros((60, 60), np.uint16)
    for number in range(12):
        labels[10 * (number // 4) + 2 : 10 * (number // 4) + 8, 10 * (number % 4) + 2 : 10 * (number % 4) + 8] = (
            number + 1
        )
    paths = saved(tmp_path, image=np.ones((60, 60), np.uint8), labels=labels)
    with pytest.raises(UserError, match="12 values, each in one piece.* use --classes 0:background,1-12:object"):
        open_labeled([paths["image"]], [paths["labels"]])
    (stack,) = open_labeled([paths["image"]], [paths["labels"]], "0:background,1-12:object")
    assert stack.mapping.describe() == "0 -> 1 background, 1-12 -> 2 object, everything else not annotated"
    np.testing.assert_array_equal(stack.target(0), np.where(labels > 0, 2, 1))
    # Cells may touch.
    labels[2:8, 8:12] = 1
    paths = saved(tmp_path, image=np.ones((60, 60), np.uint8), labels=labels)
    with pytest.raises(UserError, match="12 values, each in one piece"):
        open_labeled([paths["image"]], [paths["labels"]])
    # A class is in several places, and touches others.
    labels[50:55, 50:55] = 1
    paths = saved(tmp_path, image=np.ones((60, 60), np.uint8), labels=labels)
    assert len(open_labeled([paths["image"]], [paths["labels"]])[0].mapping.classes) == 12
