"""TIFFs with endings and descriptions of their own: large ones, of Zeiss microscopes, and of slide scanners."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from format_files import write_lsm
from napari_autosegnet.cli import app
from napari_autosegnet.data.images import open_image
from napari_autosegnet.errors import UserError

GRAY = np.random.default_rng(0).integers(0, 255, (4, 40, 50), np.uint8)
COLORS = np.random.default_rng(1).integers(0, 255, (64, 80, 3), np.uint8)


def write_svs(path: Path, pixels: np.ndarray) -> None:
    """The image, a thumbnail, a level, a label and a macro picture, as Aperio's scanners write them."""
    tiled: Any = {"metadata": None, "photometric": "rgb", "tile": (16, 16)}
    small: Any = {"metadata": None, "photometric": "rgb"}
    with tifffile.TiffWriter(path) as file:
        file.write(pixels, description="Aperio Image Library v1.0\r\n80x64|AppMag = 20|MPP = 0.5|Left = 1", **tiled)
        file.write(pixels[::8, ::8], **small)
        file.write(pixels[::2, ::2], **tiled)
        file.write(pixels[:8, :8], subfiletype=1, **small)
        file.write(pixels[:8, :16], subfiletype=9, **small)


def write_ndpi(path: Path, pixels: np.ndarray) -> None:
    """One plane as Hamamatsu's scanners write it: an offset has 8 bytes, and the upper halves of values follow."""
    height, width, samples = pixels.shape
    begin, count = 12, 14
    values = begin + 2 + 16 * count + 8
    data = values + 24
    tags = [
        *((256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, values), (259, 3, 1, 1), (262, 3, 1, 2)),
        *(
            (271, 2, 4, int.from_bytes(b"Ham")),
            (273, 4, 1, data),
            (277, 3, 1, samples),
            (278, 4, 1, height),
            (279, 4, 1, pixels.nbytes),
        ),
        *((282, 5, 1, values + 8), (283, 5, 1, values + 16), (296, 3, 1, 3), (65420, 4, 1, 1)),
    ]
    path.write_bytes(
        b"II*\0"
        + struct.pack("<QH", begin, count)
        + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        + struct.pack("<Q", 0)
        + bytes(4 * count)
        + struct.pack("<3Hxx4I", 8, 8, 8, 20_000, 1, 25_000, 1)  # pixels per centimeter, x and y
        + pixels.tobytes()
    )


@pytest.mark.parametrize("ending", ["btf", "tf2", "tf8", "ome.btf"])
def test_large_tiffs(tmp_path: Path, ending: str) -> None:
    about: Any = {"axes": "ZYX", "PhysicalSizeX": 4.0, "PhysicalSizeXUnit": "nm"} if "ome" in ending else {}
    path = tmp_path / f"a.{ending}"
    tifffile.imwrite(path, GRAY, bigtiff=True, photometric="minisblack", metadata=about)
    stack = open_image(path)
    assert (stack.name, stack.shape, stack.unit) == ("a", GRAY.shape, "nanometer" if about else None)
    np.testing.assert_array_equal(stack.read(*[slice(None)] * 3)[0], GRAY)


@pytest.mark.parametrize("pixels", [GRAY, np.stack([GRAY, 255 - GRAY, GRAY // 2], axis=1)], ids=["gray", "channels"])
def test_lsm(tmp_path: Path, pixels: np.ndarray) -> None:
    write_lsm(tmp_path / "a.lsm", pixels)
    stack = open_image(tmp_path / "a.lsm")
    assert (stack.name, stack.shape, stack.channels) == ("a", GRAY.shape, pixels.size // GRAY.size)
    assert (stack.scale, stack.unit) == ((0.04, 0.005, 0.004), "micrometer")
    for index, section in enumerate(pixels):
        np.testing.assert_array_equal(stack.section(index), section.reshape(-1, 40, 50))


@pytest.mark.parametrize(("ending", "size"), [("svs", (0.5, 0.5)), ("ndpi", (0.4, 0.5))])
def test_slides(tmp_path: Path, ending: str, size: tuple[float, float], capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"a.{ending}"
    {"svs": write_svs, "ndpi": write_ndpi}[ending](path, COLORS)
    stack = open_image(path)
    assert (stack.name, stack.shape, stack.channels) == ("a", (1, 64, 80), 3)
    assert (stack.scale[1:], stack.unit) == (size, "micrometer")
    np.testing.assert_array_equal(stack.section(0), np.moveaxis(COLORS, -1, 0))
    whole = path.read_bytes()
    for content in (b"", whole[:9], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(UserError) as error:
            open_image(path)
        assert path.name in str(error.value) and "\n" not in str(error.value)
    out = tmp_path / f"out.{ending}"
    np.save(tmp_path / "labels.npy", GRAY)
    assert app.run(["convert", "--labels", str(tmp_path / "labels.npy"), "--out", str(out)]) == 1
    assert "labels are converted to" in capsys.readouterr().err and not out.exists()
