"""PNG, JPEG and BMP, and what only has such a name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_autosegnet.data.images import open_image, open_labels
from napari_autosegnet.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 20, 30), np.uint8)


def test_what_only_has_the_name_of_a_picture_is_refused(tmp_path: Path) -> None:
    """Pillow would read the first of three sections, and a mask that WebP has changed."""
    tifffile.imwrite(tmp_path / "stack.tif", PIXELS, photometric="minisblack")
    (tmp_path / "stack.tif").rename(tmp_path / "stack.png")
    Image.fromarray(PIXELS[0]).save(tmp_path / "mask.webp", quality=50)
    (tmp_path / "mask.webp").rename(tmp_path / "mask.png")
    for name, said in (("stack.png", "is TIFF"), ("mask.png", "is WEBP")):
        with pytest.raises(UserError, match=f"{name} {said}, whatever its name says; save it again as PNG or TIFF"):
            open_labels(tmp_path / name)


def test_an_animation_is_no_section(tmp_path: Path) -> None:
    frames = [Image.fromarray(each) for each in PIXELS]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match="moving.png holds 3 pictures; save each in a file of its own"):
        open_image(tmp_path / "moving.png")


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits_of_colors_are_read_with_eight_and_that_is_told(channels: int, tmp_path: Path) -> None:
    colors = np.random.default_rng(0).integers(0, 2**16, (20, 30, channels), np.uint16)
    (tmp_path / "deep.png").write_bytes(imagecodecs.png_encode(colors))
    (note,) = open_image(tmp_path / "deep.png").notes
    assert "deep.png has 16 bits and colors or alpha, which are read with 8" in note
    with pytest.raises(UserError, match="16 bits"):
        open_labels(tmp_path / "deep.png")
    (tmp_path / "gray.png").write_bytes(imagecodecs.png_encode(np.ascontiguousarray(colors[..., 0])))
    gray = open_labels(tmp_path / "gray.png")
    np.testing.assert_array_equal(gray.section(0)[0], colors[..., 0])
    assert gray.notes == ()


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_picture_that_is_shown_turned_is_read_as_it_is_stored(kind: str, tmp_path: Path) -> None:
    picture = Image.fromarray(PIXELS[0])
    tags: Any = picture.getexif()
    tags[274] = 3
    for number in range(3):
        picture.save(tmp_path / f"s{number}.{kind}", exif=tags)
    one = open_image(tmp_path / f"s0.{kind}")
    assert one.shape == (1, 20, 30)
    assert [note.partition(f"s0.{kind} ")[2] for note in one.notes] == [
        "is read as it is stored; its orientation tag (3) asks viewers to turn it"
    ]
    (note,) = open_image(tmp_path).notes
    assert note.endswith(f"asks viewers to turn it; the same holds for 2 other files of {tmp_path}")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_strokes_that_were_erased_to_transparent_are_no_labels(mode: str, tmp_path: Path) -> None:
    """Drawing programs keep the color of what is erased, beneath the transparency."""
    pixels = np.zeros((16, 16, len(mode)), np.uint8)
    pixels[:8, :, 0], pixels[:8, :, -1] = 200, 255
    pixels[8:12, :, 0], pixels[8:12, :, -1] = 90, 255
    Image.fromarray(pixels).save(tmp_path / "drawn.png")
    image = open_labels(tmp_path / "drawn.png").section(0)
    assert image.shape[0] == len(mode) - 1 and sorted(np.unique(image[0]).tolist()) == [0, 90, 200]
    pixels[4:6, :, -1] = 0
    Image.fromarray(pixels).save(tmp_path / "erased.png")
    color = "#c80000" if mode == "RGBA" else "#c8"
    with pytest.raises(UserError, match=rf"erased\.png has transparent pixels of the color {color} that other pixels"):
        open_labels(tmp_path / "erased.png").section(0)
    # Of an image the colors are what it is.
    assert (open_image(tmp_path / "erased.png").section(0)[0, :8] == 200).all()
