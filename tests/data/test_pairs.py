"""Images and labels are paired by the names of their files, one to one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_autosegnet.data.labeled_stacks import open_labeled
from napari_autosegnet.data.pairs import given_pairs, open_pair, paired_files, tell_pairs
from napari_autosegnet.data.selection import Selection
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Event, PairMatched


def pictures(folder: Path, names: Sequence[str], kind: str = "png") -> Path:
    """Pictures whose one gray value is their place in ``names``, from 1."""
    folder.mkdir(exist_ok=True)
    for value, name in enumerate(names, start=1):
        Image.fromarray(np.full((16, 16), value, np.uint8)).save(folder / f"{name}.{kind}")
    return folder


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_folders_are_paired_by_names(tmp_path: Path, kind: str) -> None:
    images = pictures(tmp_path / "images", ["c1", "c1_2", "c2"], kind)
    labels = pictures(tmp_path / "labels", ["c1_masks", "c1_2_masks", "c2_masks"], kind)
    image, marks = open_pair(images, labels)
    assert image.section_names == ("c1", "c1_2", "c2")
    assert marks.section_names == ("c1_masks", "c1_2_masks", "c2_masks")
    for stack in (image, marks):
        assert [int(stack.section(index)[0, 0, 0]) for index in range(3)] == [1, 2, 3]
    (labeled,) = open_labeled([images], [labels])
    assert [int(labeled.target(index)[0, 0]) for index in range(3)] == [1, 2, 3]
    assert told([labeled]) == [
        PairMatched(image="c1", labels="c1_masks"),
        PairMatched(image="c1_2", labels="c1_2_masks"),
        PairMatched(image="c2", labels="c2_masks"),
    ]


def told(stacks: Any) -> list[Event]:
    found: list[Event] = []
    tell_pairs(stacks, found.append)
    return found


def test_folders_that_do_not_pair_are_refused(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", ["s1", "s2", "s3", "s4"])
    labels = pictures(tmp_path / "labels", ["s1_mask", "s2_mask", "s4_mask", "s5_mask"])
    with pytest.raises(UserError, match="images without labels: s3; labels without an image: s5_mask"):
        open_labeled([images], [labels])


def test_one_folder_may_hold_both(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "both", ["a", "b"])
    for value, name in enumerate("ab", start=1):
        colors = np.zeros((16, 16, 3), np.uint8)
        Image.fromarray(colors).save(folder / f"{name}.png")
        Image.fromarray(np.full((16, 16), value, np.uint8)).save(folder / f"{name}_mask.png")
    (labeled,) = open_labeled([folder], [folder])
    assert (labeled.image.channels, labeled.image.section_names) == (3, ("a", "b"))
    assert [int(labeled.target(index)[0, 0]) for index in range(2)] == [1, 2]
    plain = pictures(tmp_path / "plain", ["a", "b"])
    with pytest.raises(UserError, match=r"is given for images and labels; name its label files"):
        paired_files(plain, plain)


def test_links_go_by_their_own_names(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", ["a", "b"])
    store = pictures(tmp_path / "store", ["7f", "3c"])
    (tmp_path / "labels").mkdir()
    for name, target in (("a_mask", "7f"), ("b_mask", "3c")):
        (tmp_path / "labels" / f"{name}.png").symlink_to(store / f"{target}.png")
    _, marks = open_pair(images, tmp_path / "labels")
    assert [int(marks.section(index)[0, 0, 0]) for index in range(2)] == [1, 2]


def test_patterns_are_paired_by_names(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", ["c1", "c1_2"])
    labels = pictures(tmp_path / "labels", ["c1_masks", "c1_2_masks"])
    ours, theirs = given_pairs([images / "*.png"], [labels / "*.png"])
    assert {(one.stem, other.stem) for one, other in zip(ours, theirs, strict=True)} == {
        ("c1", "c1_masks"),
        ("c1_2", "c1_2_masks"),
    }
    with pytest.raises(UserError, match="no file matches"):
        given_pairs([images / "*.tif"], [labels / "*.png"])
    with pytest.raises(UserError, match="labels without an image: c1_2_masks"):
        given_pairs([images / "c1.png"], [labels / "*.png"])


def test_lists_are_taken_in_their_order_unless_names_contradict() -> None:
    def paths(*names: str) -> list[Path]:
        return [Path(name) for name in names]

    for images, labels in (
        (paths("raw.tif", "more.tif"), paths("first.tif", "second.tif")),
        (paths("a/img.tif", "b/img.tif"), paths("a/mask.tif", "b/mask.tif")),
        (paths("x.tif", "x.tif"), paths("p.tif", "q.tif")),
        (paths("s1.tif", "s2.tif"), paths("m/s1.tif", "m/s2.tif")),
    ):
        assert given_pairs(images, labels) == (images, labels)
    for images, labels in (
        (paths("c1.tif", "c1_2.tif"), paths("c1_2_masks.tif", "c1_masks.tif")),
        (paths("a/img.tif", "b/img.tif"), paths("b/mask.tif", "a/mask.tif")),
        (paths("s1.tif", "s2.tif", "s3.tif", "s4.tif"), paths("s1_m.tif", "s2_m.tif", "s4_m.tif", "s5_m.tif")),
    ):
        with pytest.raises(UserError, match="by their names '.*' belong to it; give the labels in the order"):
            given_pairs(images, labels)
    with pytest.raises(UserError, match="2 images and 1 label file are"):
        given_pairs(paths("a.tif", "b.tif"), paths("a.tif"))


def test_many_pairs_are_told_in_some_lines(tmp_path: Path) -> None:
    names = [f"{number:02d}" for number in range(20)]
    images, labels = pictures(tmp_path / "i", names), pictures(tmp_path / "l", names)
    events = told(open_labeled([images], [labels], "1:a,2:b"))
    assert len(events) == 8 and {event.event for event in events} == {"pair"}
    assert events[-1] == PairMatched(image="07", labels="07", more=12)


def test_pairs_that_are_called_alike_are_told_with_their_folders(tmp_path: Path) -> None:
    for day, others in (("day1", []), ("day2", ["other"])):
        (tmp_path / day).mkdir()
        pictures(tmp_path / day, ["image", *others, "mask"])
        pictures(tmp_path / day / "i", ["a", "b"])
        pictures(tmp_path / day / "l", ["a", "b"])
    patterns = [tmp_path / "*" / "image.png"], [tmp_path / "*" / "mask.png"]
    assert told(open_labeled(*patterns, "2:a,3:b")) == [
        PairMatched(image=f"{day}/image", labels=f"{day}/mask") for day in ("day1", "day2")
    ]
    folders = [[tmp_path / day / side for day in ("day1", "day2")] for side in "il"]
    assert told(open_labeled(*folders, "1:a,2:b")) == [
        PairMatched(image=f"{day}/i/{name}", labels=f"{day}/l/{name}") for day in ("day1", "day2") for name in "ab"
    ]


def test_industrial_images_are_paired_by_names(shared_data: Path) -> None:
    ours, theirs = paired_files(
        shared_data / "industrial" / "full" / "images", shared_data / "industrial" / "full" / "masks"
    )
    assert ours is not None and theirs is not None and len(ours) == 319
    assert [file.stem for file in ours] == [file.stem for file in theirs]


def test_one_time_point_of_image_and_labels(tmp_path: Path) -> None:
    pixels = np.arange(2 * 3 * 16 * 16, dtype=np.uint16).reshape(2, 3, 16, 16)
    marks = np.ones((2, 3, 16, 16), np.uint8)
    marks[1, :, :8] = 2
    for name, array in (("image", pixels), ("series", marks), ("still", marks[1])):
        np.save(tmp_path / f"{name}.npy", array)
    read = Selection(time_point=1, axes="tzyx")
    for name in ("series", "still"):
        (stack,) = open_labeled([tmp_path / "image.npy"], [tmp_path / f"{name}.npy"], read=read)
        np.testing.assert_array_equal(stack.image.section(0)[0], pixels[1, 0])
        np.testing.assert_array_equal(stack.target(0), marks[1, 0])


def test_one_channel_of_an_image(tmp_path: Path) -> None:
    pixels = np.arange(2 * 3 * 16 * 16, dtype=np.uint16).reshape(3, 2, 16, 16)
    marks = np.ones((3, 16, 16), np.uint8)
    marks[:, :8] = 2
    np.save(tmp_path / "image.npy", pixels)
    np.save(tmp_path / "labels.npy", marks)
    read = Selection(channels=("1",), axes="zcyx")
    (stack,) = open_labeled([tmp_path / "image.npy"], [tmp_path / "labels.npy"], read=read)
    assert stack.image.channels == 1
    np.testing.assert_array_equal(stack.image.section(2), pixels[2, 1:])
    np.testing.assert_array_equal(stack.target(2), marks[2])


def test_a_file_is_no_label_of_itself(tmp_path: Path) -> None:
    file = tmp_path / "classes.tif"
    Image.fromarray(np.eye(32, dtype=np.uint8)).save(file)
    with pytest.raises(UserError, match=r"classes.tif is given as an image and as its labels; give the labels"):
        open_pair(file, file)
