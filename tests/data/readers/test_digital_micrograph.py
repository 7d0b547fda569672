"""DM3 and DM4 files as DigitalMicrograph writes them: big-endian tags around little-endian values."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ncempy", reason="the extra formats is not installed")

from damaged_files import damaged
from napari_autosegnet.data.images import open_image
from napari_autosegnet.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 2**16, (4, 20, 30), np.uint16)
#: Number of a pixel type, and of the values in a tag.
KINDS = {"i2": (1, 2), "f4": (2, 6), "u1": (6, 8), "i4": (7, 3), "i1": (9, 9), "u2": (10, 4), "f8": (12, 7)}


def tag(name: str, content: bytes, version: int, kind: int = 21) -> bytes:
    length = struct.pack(">Q", len(content)) if version == 4 else b""
    return struct.pack(">BH", kind, len(name)) + name.encode("latin-1") + length + content


def group(name: str, tags: list[bytes], version: int) -> bytes:
    return tag(name, b"\x01\x00" + struct.pack(">Q" if version == 4 else ">I", len(tags)) + b"".join(tags), version, 20)


def value(name: str, code: str, number: float, version: int) -> bytes:
    encoded = {"I": 5, "f": 6}[code]
    word = ">2Q" if version == 4 else ">2I"
    return tag(name, b"%%%%" + struct.pack(word, 1, encoded) + struct.pack(f"<{code}", number), version)


def values(name: str, encoded: int, content: bytes, count: int, version: int) -> bytes:
    word = ">4Q" if version == 4 else ">4I"
    return tag(name, b"%%%%" + struct.pack(word, 3, 20, encoded, count) + content, version)


def image(pixels: np.ndarray, version: int, kind: int, encoded: int, scale: float = 4.0, unit: str = "nm") -> bytes:
    one = [value("Origin", "f", 0, version), value("Scale", "f", scale, version)]
    one.append(values("Units", 4, unit.encode("utf-16-le"), len(unit), version))
    dimension = group("Dimension", [group("", one, version) for _ in pixels.shape], version)
    about = [
        group("Calibrations", [dimension], version),
        values("Data", encoded, pixels.tobytes(), pixels.size, version),
        value("DataType", "I", kind, version),
        group("Dimensions", [value("", "I", size, version) for size in reversed(pixels.shape)], version),
    ]
    return group("", [group("ImageData", about, version)], version)


def write(path: Path, version: int, *images: bytes) -> Path:
    thumbnail = image(np.zeros((8, 8), np.uint32), version, 23, 5, 1.0, "")
    tags = group("ImageList", [thumbnail, *images], version)
    word = ">IQI" if version == 4 else ">III"
    root = b"\x01\x00" + struct.pack(">Q" if version == 4 else ">I", 1) + tags
    path.write_bytes(struct.pack(word, version, len(root), 1) + root + bytes(8))
    return path


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
