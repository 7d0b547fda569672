"""The axes of a TIFF: stated, given, or asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_autosegnet.data.images import ImageStack, open_image, open_labels
from napari_autosegnet.errors import UserError

ALL = slice(None)


def whole(stack: ImageStack) -> np.ndarray:
    return stack.read(ALL, ALL, ALL)


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (10, 32, 48), dtype=np.uint8)


@pytest.mark.parametrize("count", [3, 4])
def test_planes_that_may_be_sections_or_colors_are_asked_for(tmp_path: Path, volume: np.ndarray, count: int) -> None:
    path = tmp_path / "a.tif"
    with pytest.warns(DeprecationWarning, match="stored as RGB"):
        tifffile.imwrite(path, volume[:count])
    with pytest.raises(UserError, match="may be sections or colors.*--axes zyx for sections or --axes cyx for colors"):
        open_image(path)
    sections = open_image(path, axes="zyx")
    assert (sections.sections, sections.channels) == (count, 1)
    np.testing.assert_array_equal(whole(sections)[0], volume[:count])
    colors = open_image(path, axes="cyx")
    assert (colors.sections, colors.channels, colors.is_2d) == (1, 3, True)
    np.testing.assert_array_equal(colors.section(0), volume[:3])
    # Class numbers have no colors, and a file of a folder is one section.
    np.testing.assert_array_equal(whole(open_labels(path))[0], volume[:count])
    assert open_image(tmp_path).channels == 3


def test_what_says_its_axes_is_not_asked(tmp_path: Path, volume: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    with pytest.warns(DeprecationWarning):
        tifffile.imwrite(path, volume[:4], metadata={"axes": "ZYX"})
    np.testing.assert_array_equal(whole(open_image(path))[0], volume[:4])
    with pytest.warns(DeprecationWarning):
        tifffile.imwrite(path, volume[:3], metadata={"axes": "CYX"})
    assert open_image(path).channels == 3
    tifffile.imwrite(path, volume[:3], photometric="rgb", planarconfig="separate", metadata=None)
    assert open_image(path).channels == 3
    tifffile.imwrite(path, np.moveaxis(volume[:3], 0, -1))
    np.testing.assert_array_equal(open_image(path).section(0), volume[:3])


def test_axes_that_are_given_win_over_those_of_the_file(tmp_path: Path, volume: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, volume, imagej=True)  # tifffile calls the first axis of an ImageJ file channels
    assert open_image(path).channels == 10
    stack = open_image(path, axes="ZYX")
    assert stack.selection == {"axes": "zyx"}
    np.testing.assert_array_equal(whole(stack)[0], volume)
    np.testing.assert_array_equal(whole(open_labels(path, axes="zyx"))[0], volume)
    for wrong in ("zy", "zzyx", "zxq", "tzyx"):
        with pytest.raises(UserError, match=r"a\.tif has 3 axes \(10 x 32 x 48\), not '"):
            open_image(path, axes=wrong)
    tifffile.imwrite(path, volume.reshape(2, 5, 32, 48), photometric="minisblack")
    with pytest.raises(UserError, match="has the axes QQYX.*--axes tczyx"):
        open_image(path)
    np.testing.assert_array_equal(whole(open_image(path, axes="czyx")), volume.reshape(2, 5, 32, 48))
    np.testing.assert_array_equal(whole(open_image(path, axes="tzyx", time=1))[0], volume[5:])
