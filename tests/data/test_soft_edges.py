"""Masks whose edges are soft, and labels that only look a little like them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from scipy import ndimage

from napari_autosegnet.data.images import open_image
from napari_autosegnet.data.labeled_stacks import open_labeled
from napari_autosegnet.data.soft_edges import soft_edges
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
