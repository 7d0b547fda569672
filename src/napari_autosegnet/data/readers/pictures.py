"""PNG, JPEG and BMP: a section."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.array_stack import time_point
from napari_autosegnet.data.label_values import without_erased
from napari_autosegnet.data.readers.formats import Format, ReadRequest, lossy_labels
from napari_autosegnet.data.readers.section_files import SectionFiles, sections_at_once
from napari_autosegnet.data.stack import Array, ImageStack
from napari_autosegnet.errors import UserError

if TYPE_CHECKING:
    import PIL.Image

#: What Pillow calls the formats that are read; MPO is the JPEG of many cameras.
_FORMATS = ("PNG", "JPEG", "MPO", "BMP", "DIB")
#: PNG's numbers for gray with alpha, colors, and colors with alpha.
_NOT_PLAIN_GRAY = (2, 4, 6)
#: A tag of EXIF.
_ORIENTATION = 274
#: Modes of Pillow whose numbers are neither gray nor red, green and blue.
_OTHER_COLORS = ("CMYK", "YCbCr", "LAB", "HSV")


def open_picture(request: ReadRequest) -> ImageStack:
    path = request.path
    time_point(None, request.time, path)
    shape, channels, dtype, notes = _describe(path, labels=request.labels)
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
        notes=notes,
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


@contextmanager
def _opened(file: Path) -> Iterator[PIL.Image.Image]:
    from PIL import Image

    with warnings.catch_warnings():
        # Sections of more than 90 megapixels are ordinary here, not an attack.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(file) as picture:
                yield picture
        except Image.DecompressionBombError as error:
            raise UserError(f"{file} is too large for a picture file; save it as TIFF or Zarr") from error
        except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for files that are damaged
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise UserError(f"{file} is not a PNG, JPEG or BMP, or is damaged; copy it again") from error


def _describe(file: Path, *, labels: bool) -> tuple[tuple[int, int], int, np.dtype[Any], list[str]]:
    """Height and width, channels, type of pixels, and what is to be known of how it is read."""
    with _opened(file) as picture:
        if picture.format not in _FORMATS:
            raise UserError(f"{file} is {picture.format}, whatever its name says; save it again as PNG or TIFF")
        if labels and picture.format in ("JPEG", "MPO"):
            raise lossy_labels(file)
        pictures = getattr(picture, "n_frames", 1)
        if picture.format == "PNG" and pictures > 1:
            raise UserError(f"{file} holds {pictures} pictures; save each in a file of its own")
        if picture.mode in _OTHER_COLORS:
            raise UserError(f"the colors of {file} are {picture.mode}; save it as gray or RGB")
        notes = []
        if _loses_bits(file, picture):
            if labels:
                raise UserError(f"{file} has 16 bits and colors or alpha, which are read with 8; save it as gray")
            notes.append(f"{file} has 16 bits and colors or alpha, which are read with 8; TIFF keeps them")
        # Pillow would decode a whole PNG to look for a tag behind its pixels.
        has_tags = picture.format != "PNG" or "exif" in picture.info
        orientation = picture.getexif().get(_ORIENTATION, 1) if has_tags else 1
        if orientation != 1:
            notes.append(f"{file} is read as it is stored; its orientation tag ({orientation}) asks viewers to turn it")
        _, channels, dtype = _picture_mode(picture.mode, labels=labels)
        return (picture.height, picture.width), channels, np.dtype(dtype), notes


def _loses_bits(file: Path, picture: PIL.Image.Image) -> bool:
    """Whether it is a PNG of which Pillow reads the upper 8 of 16 bits."""
    if picture.format != "PNG":
        return False
    with file.open("rb") as handle:
        depth, colors = handle.read(26)[24:]
    return depth == 16 and colors in _NOT_PLAIN_GRAY


def _decode(file: Path, *, labels: bool) -> Array:
    with _opened(file) as picture:
        mode, channels, dtype = _picture_mode(picture.mode, labels=labels)
        if labels and picture.mode in ("LA", "RGBA"):
            without_erased(np.moveaxis(np.asarray(picture), -1, 0), file)
        pixels = np.asarray(picture.convert(mode) if mode else picture).astype(dtype, copy=False)
    return np.moveaxis(pixels, -1, 0) if channels > 1 else pixels[np.newaxis]


FORMAT = Format(
    "PNG, JPEG, BMP",
    open_picture,
    suffixes=(".png", ".jpg", ".jpeg", ".bmp"),
    magic=((0, b"\x89PNG\r\n\x1a\n"), (0, b"\xff\xd8\xff")),
    is_section=True,
)
