"""DM3 and DM4 files as DigitalMicrograph writes them: big-endian tags around little-endian values."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

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
