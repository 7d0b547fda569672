"""DM3 and DM4 files as DigitalMicrograph writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ncempy", reason="the extra formats is not installed")

from damaged_files import damaged
from digital_micrograph_files import KINDS, image, write
from napari_autosegnet.data.images import open_image
from napari_autosegnet.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 2**16, (4, 20, 30), np.uint16)


@pytest.mark.parametrize("version", [3, 4])
def test_sections_scale_and_unit(tmp_path: Path, version: int) -> None:
    for dtype, (kind, encoded) in KINDS.items():
        pixels = PIXELS.astype(dtype)
        stack = open_image(write(tmp_path / f"a.dm{version}", version, image(pixels, version, kind, encoded)))
        assert (stack.name, stack.shape, stack.dtype, stack.is_2d) == ("a", (4, 20, 30), np.dtype(dtype), False)
        assert stack.scale == (4, 4, 4) and stack.unit == "nanometer" and not stack.notes
        assert list(stack.files) == [tmp_path / f"a.dm{version}"]
        np.testing.assert_array_equal(stack.section(2)[0], pixels[2])
    plane = image(PIXELS[0], version, 10, 4, 0.5, "µm")
    stack = open_image(write(tmp_path / f"b.dm{version}", version, plane, plane))
    assert stack.is_2d and stack.scale[1:] == (0.5, 0.5) and stack.unit == "micrometer"
    assert "holds 2 images, of which the first is read" in stack.notes[0]
    np.testing.assert_array_equal(stack.section(0)[0], PIXELS[0])


def test_what_is_damaged_or_no_image_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dm4", 4, image(PIXELS, 4, 10, 4))
    whole = path.read_bytes()
    refused = 0
    for content in damaged(whole, cut_at=(0, 3, 30, 300, len(whole) // 2), header=1200):
        path.write_bytes(content)
        try:
            open_image(path).section(0)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and "a.dm4" in str(error) and ";" in str(error), error
    assert refused > 10
    for wrong in (image(PIXELS[0, 0], 4, 10, 4), image(np.zeros((2, 2), np.uint32), 4, 23, 5)):
        with pytest.raises(UserError, match="holds no gray image, only colors or a spectrum; save it as TIFF"):
            open_image(write(path, 4, wrong))
