"""PNG, JPEG and BMP: a section."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.readers.formats import Format, ReadRequest, lossy_labels
from napari_autosegnet.data.readers.section_files import SectionFiles, sections_at_once
from napari_autosegnet.data.stack import Array, ImageStack, time_point
from napari_autosegnet.errors import UserError

if TYPE_CHECKING:
    import PIL.Image

#: Modes of Pillow whose numbers are neither gray nor red, green and blue.
_OTHER_COLORS = ("CMYK", "YCbCr", "LAB", "HSV")


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
            raise UserError(f"{file} is no PNG, JPEG or BMP, or damaged; copy it again") from error


def _describe(file: Path, *, labels: bool) -> tuple[tuple[int, int], int, np.dtype[Any]]:
    with _opened(file) as picture:
        if labels and picture.format == "JPEG":
            raise lossy_labels(file)
        if picture.mode in _OTHER_COLORS:
            raise UserError(f"the colors of {file} are {picture.mode}; save it as gray or RGB")
        _, channels, dtype = _picture_mode(picture.mode, labels=labels)
        return (picture.height, picture.width), channels, np.dtype(dtype)


def _decode(file: Path, *, labels: bool) -> Array:
    with _opened(file) as picture:
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
