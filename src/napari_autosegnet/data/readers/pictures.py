"""PNG, JPEG and BMP: a section."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.readers.formats import Format, ReadRequest
from napari_autosegnet.data.readers.section_files import SectionFiles, sections_at_once
from napari_autosegnet.data.stack import Array, ImageStack, time_point
from napari_autosegnet.errors import UserError


def open_picture(request: ReadRequest) -> ImageStack:
    path = request.path
    time_point(None, request.time, path)
    shape, channels, dtype = _describe(path, labels=request.labels)
    return ImageStack(
        SectionFiles([path], lambda file: _decode(file, labels=request.labels)),
        name=path.name,
        path=path,
        shapes=[shape],
        channels=channels,
        dtype=dtype,
        is_2d=True,
        sections_at_once=sections_at_once(shape[0] * shape[1] * channels * dtype.itemsize),
        section_names=(path.stem,),
    )


def _picture_mode(mode: str, *, labels: bool) -> tuple[str | None, int, npt.DTypeLike]:
    """What a Pillow mode is turned into (None: read as it is), its channels and pixel type."""
    if mode == "P":
        # In a label picture the palette only colors the class numbers.
        return (None, 1, np.uint8) if labels else ("RGB", 3, np.uint8)
    if mode == "1":
        return None, 1, np.uint8
    if mode in ("L", "LA", "La"):
        return (None if mode == "L" else "L"), 1, np.uint8
    if mode.startswith("I;16"):
        return None, 1, np.uint16
    if mode in ("I", "F"):
        return None, 1, np.int32 if mode == "I" else np.float32
    return (None if mode == "RGB" else "RGB"), 3, np.uint8


def _describe(file: Path, *, labels: bool) -> tuple[tuple[int, int], int, np.dtype[Any]]:
    from PIL import Image

    with warnings.catch_warnings():
        # Sections of more than 90 megapixels are ordinary here, not an attack.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(file) as picture:
                _, channels, dtype = _picture_mode(picture.mode, labels=labels)
                return (picture.height, picture.width), channels, np.dtype(dtype)
        except Image.DecompressionBombError as error:
            raise UserError(f"{file} is too large for a picture file; save it as TIFF or Zarr") from error


def _decode(file: Path, *, labels: bool) -> Array:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(file) as picture:
            mode, channels, dtype = _picture_mode(picture.mode, labels=labels)
            pixels = np.asarray(picture.convert(mode) if mode else picture).astype(dtype, copy=False)
    return np.moveaxis(pixels, -1, 0) if channels > 1 else pixels[np.newaxis]


FORMAT = Format(
    "PNG, JPEG, BMP",
    open_picture,
    suffixes=(".png", ".jpg", ".jpeg", ".bmp"),
    magic=((0, b"\x89PNG\r\n\x1a\n"), (0, b"\xff\xd8\xff")),
    is_section=True,
)
