"""Masks whose edges are soft, and labels that only look a little like them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from scipy import ndimage

from napari_autosegnet.data.images import open_image
from napari_autosegnet.data.labeled_stacks import open_labeled
from napari_autosegnet.data.soft_edges import soft_colors, soft_edges
from napari_autosegnet.errors import UserError

DISTANCES = np.hypot(*np.mgrid[-80:80, -80:80])


def soft_disk(values: int = 8) -> np.ndarray:
    """A disk whose edge is four pixels wide, in some gray values from 0 to 255."""
    steps = np.round(np.clip((50 - DISTANCES) / 4, 0, 1) * (values - 1))
    return np.asarray(steps * 255 / (values - 1)).astype(np.uint8)


def cells() -> np.ndarray:
    """Seven classes in many places each, which touch one another."""
    places = np.random.default_rng(0).integers(0, 160, (2, 60))
    seeds = np.zeros((160, 160), np.uint8)
    seeds[tuple(places)] = np.arange(60) % 7 + 1
    nearest = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
    return seeds[tuple(nearest)]


def test_values_along_edges_are_no_classes(tmp_path: Path) -> None:
    """Seven classes were trained of a mask like this."""
    PIL.Image.fromarray(np.ones((160, 160), np.uint8)).save(tmp_path / "image.png")
    PIL.Image.fromarray(soft_disk()).save(tmp_path / "mask.png")
    with pytest.raises(UserError, match="use --classes 0-127:background,128-255:object, else name") as error:
        open_labeled([tmp_path / "image.png"], [tmp_path / "mask.png"])
    assert "have 8 values, most of which lie along the edges of 0, 255," in str(error.value)
    (stack,) = open_labeled([tmp_path / "image.png"], [tmp_path / "mask.png"], "0-127:background,128-255:object")
    assert np.array_equal(stack.target(0), 1 + (soft_disk() > 127))


@pytest.mark.parametrize("way", [PIL.Image.Resampling.BILINEAR, PIL.Image.Resampling.LANCZOS])
def test_scaled_masks_of_three_classes(way: PIL.Image.Resampling) -> None:
    """Of a scaled mask with class 127 inside of 255, all values occur."""
    mask = np.select([DISTANCES < 20, DISTANCES < 50], [127, 255]).astype(np.uint8)
    scaled = np.array(PIL.Image.fromarray(mask).resize((400, 400), way))
    edges = soft_edges([scaled])
    assert edges is not None and edges.classes == (0, 127, 255)
    assert "--classes 0-63:NAME,64-191:NAME,192-255:NAME," in edges.describe()
    hard = np.array(PIL.Image.fromarray(mask).resize((400, 400), PIL.Image.Resampling.NEAREST))
    # Between 0 and 255 lies 127, so that an edge of these two passes it.
    assert (edges.hardened(scaled) == hard).mean() > 0.97


def test_labels_of_many_classes_have_no_soft_edges() -> None:
    strokes = np.zeros((160, 160), np.uint8)
    for number in range(40):
        strokes[4 * number : 4 * number + 2, 3 * number : 3 * number + 12] = number % 7 + 1
    membranes = cells()
    membranes[ndimage.maximum_filter(membranes, 5) != ndimage.minimum_filter(membranes, 5)] = 4
    rings = (DISTANCES // 2 % 7).astype(np.uint8)
    image = np.random.default_rng(0).integers(0, 16, (160, 160), np.uint8)
    for labels in (cells(), strokes, membranes, rings, image, np.zeros((160, 160), np.uint8), strokes.astype(int) - 1):
        assert soft_edges([labels]) is None


def test_the_first_sections_may_be_empty() -> None:
    empty = np.zeros((160, 160), np.uint8)
    edges = soft_edges([empty, soft_disk(), empty])
    assert edges is not None and edges.classes == (0, 255)


def test_the_nerve_cord_has_nine_classes(shared_data: Path) -> None:
    labels = open_image(shared_data / "vnc" / "labels.tif")
    assert soft_edges(labels.section(section)[0] for section in range(4)) is None


COLORS = (0x000000, 0xFF0000, 0x0000FF)


def in_colors(values: np.ndarray, colors: tuple[int, ...] = COLORS) -> np.ndarray:
    """Class numbers from 0 as a picture (y, x, 3)."""
    return np.array([[color >> 16, color >> 8 & 255, color & 255] for color in colors], np.uint8)[values]


def as_numbers(picture: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(picture.astype(np.int64), -1, 0)
    return np.asarray(red << 16 | green << 8 | blue)


def drawn(way: str) -> tuple[np.ndarray, np.ndarray]:
    """A blue disk in a red one as a drawing program exports it, and the classes without soft edges."""
    large = np.select([np.hypot(*np.mgrid[-320:320, -320:320]) < size for size in (80, 200)], [2, 1]).astype(np.uint8)
    picture = PIL.Image.fromarray(in_colors(large))
    hard = np.array(PIL.Image.fromarray(large).resize((160, 160), PIL.Image.Resampling.NEAREST))
    if way == "JPEG":
        file = io.BytesIO()
        PIL.Image.fromarray(in_colors(hard)).save(file, "JPEG", quality=85)
        return np.array(PIL.Image.open(file).convert("RGB")), hard
    return np.array(picture.resize((160, 160), PIL.Image.Resampling[way])), hard


@pytest.mark.parametrize("way", ["BOX", "BILINEAR", "LANCZOS", "JPEG"])
def test_colors_along_edges_are_no_classes(way: str, tmp_path: Path) -> None:
    picture, hard = drawn(way)
    PIL.Image.fromarray(np.ones((160, 160), np.uint8)).save(tmp_path / "image.png")
    PIL.Image.fromarray(picture).save(tmp_path / "mask.png")
    files = [tmp_path / "image.png"], [tmp_path / "mask.png"]
    with pytest.raises(UserError, match="most of which lie along the edges of .* colors near these, too") as error:
        open_labeled(*files)
    line = str(error.value)
    asked = line.split("--classes '")[1].split("'")[0]
    assert asked.count(":NAME") == 3 and "\n" not in line
    for name in ("background", "cell", "nucleus") if way != "JPEG" else ():
        asked = asked.replace("NAME", name, 1)
    colors = sorted(int(part[1:7], 16) for part in asked.split(","))
    named = {number: f"#{colors[at]:06x}:{name}" for number, (at, name) in enumerate(((0, "b"), (2, "c"), (1, "n")))}
    (stack,) = open_labeled(*files, ",".join(named.values()))
    target = stack.target(0)
    assert (target[target > 0] == 1 + hard[target > 0]).mean() > 0.97 and (target > 0).mean() > 0.99
    assert stack.annotated_pixels.tolist() == [np.bincount(target.ravel(), minlength=4)[1:].tolist()]
    assert "as the nearest, everything else not annotated" in stack.mapping.describe()
    # Colors that are not named stay what nobody annotated, and so does what is near them.
    (stack,) = open_labeled(*files, f"{named[1]},{named[2]}")
    assert (stack.target(0)[hard == 0] == 0).mean() > 0.98
    assert (stack.target(0)[hard == 2] == 2).mean() > 0.95


def test_exact_colors_have_no_soft_edges(tmp_path: Path) -> None:
    okabe = (0x000000, 0xE69F00, 0x56B4E9, 0x009E73, 0xF0E442, 0x0072B2, 0xD55E00, 0xCC79A7)
    grays = (0x000000, 0x202020, 0x404040, 0x606060, 0x808080, 0xA0A0A0, 0xFF0000, 0xFF4040)
    strokes = np.zeros((160, 160), np.uint8)
    for number in range(40):
        strokes[4 * number : 4 * number + 2, 3 * number : 3 * number + 12] = number % 7 + 1
    membranes = cells()
    membranes[ndimage.maximum_filter(membranes, 5) != ndimage.minimum_filter(membranes, 5)] = 4
    for palette in (okabe, grays):
        for labels in (cells(), strokes, membranes, (DISTANCES // 2 % 7).astype(np.uint8)):
            assert soft_colors([as_numbers(in_colors(labels, palette))]) is None
    assert soft_colors([np.random.default_rng(0).integers(0, 2**24, (160, 160))]) is None
    # A color that is not named is none of those that are, however near.
    PIL.Image.fromarray(np.ones((160, 160), np.uint8)).save(tmp_path / "image.png")
    PIL.Image.fromarray(in_colors(cells(), grays)).save(tmp_path / "mask.png")
    (stack,) = open_labeled([tmp_path / "image.png"], [tmp_path / "mask.png"], "#202020:a,#404040:b")
    assert np.array_equal(stack.target(0) > 0, cells() < 3)
