"""Gatan DigitalMicrograph (DM3, DM4): one image or stack, mapped into memory."""

from __future__ import annotations

import math
import re
import sys
import warnings
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.array_stack import stack_of_file
from napari_autosegnet.data.readers.formats import Format, ReadRequest
from napari_autosegnet.data.stack import ImageStack
from napari_autosegnet.errors import UserError, one_line
from napari_autosegnet.units import in_one_unit

#: Pixel types by their number. Another one is that of the colors, in which thumbnails are.
_DTYPES = {
    1: "<i2", 2: "<f4", 3: "<c8", 6: "u1", 7: "<i4", 9: "i1", 10: "<u2", 11: "<u4", 12: "<f8", 13: "<c16", 14: "?",
}  # fmt: skip
_COLORS = 23


def open_digital_micrograph(request: ReadRequest) -> ImageStack:
    path = request.path
    try:
        tags = _read_tags(path)
        present = [_Image(tags, number) for number in _image_numbers(tags)]
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged file leads to
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the operating system, not of the library
        raise UserError(
            f"{path} is not a DigitalMicrograph file, or is damaged ({one_line(error)}); copy the file again"
        ) from error
    images = [image for image in present if len(image.shape) >= 2 and image.kind != _COLORS]
    if not images:
        raise UserError(
            f"{path} holds no gray image, only colors or a spectrum; save it as TIFF with DigitalMicrograph"
        )
    image = images[0]
    notes = [f"{path} holds {len(images)} images, of which the first is read"] if len(images) > 1 else []
    if image.kind not in _DTYPES:
        raise UserError(f"{path} has pixels of an unknown kind ({image.kind}); save it as TIFF with DigitalMicrograph")
    dtype = np.dtype(_DTYPES[image.kind])
    if min(image.shape) < 1 or path.stat().st_size < image.begin + math.prod(image.shape) * dtype.itemsize:
        raise UserError(f"{path} is shorter than its header says, or its header is damaged; copy the file again")
    array: npt.NDArray[Any] = np.memmap(path, dtype, "r", image.begin, image.shape)
    return stack_of_file(
        array,
        path,
        time=request.time,
        wanted=request.axes,
        stated="zyx"[-len(image.shape) :] if len(image.shape) <= 3 else None,
        placement=in_one_unit(image.sizes, image.units),
        notes=notes,
    )


class _Image:
    """What the tags say of one image: shape, place in the file, and size and unit of a voxel (z, y, x)."""

    def __init__(self, tags: dict[str, Any], number: int) -> None:
        about = f".ImageList.{number}.ImageData."
        axes = [axis for axis in range(1, 5) if f"{about}Dimensions.{axis}" in tags]  # x comes first
        self.kind = int(tags[f"{about}DataType"])
        self.begin = int(tags[f"{about}Data.arrayOffset"])
        self.shape = tuple(int(tags[f"{about}Dimensions.{axis}"]) for axis in reversed(axes))
        along = f"{about}Calibrations.Dimension."
        sizes = [tags.get(f"{along}{axis}.Scale") for axis in (3, 2, 1)]
        # As many digits as the file has.
        self.sizes = [None if size is None else float(f"{float(size):.6g}") for size in sizes]
        self.units = [str(tags.get(f"{along}{axis}.Units", "")) for axis in (3, 2, 1)]


def _image_numbers(tags: dict[str, Any]) -> list[int]:
    matches = (re.fullmatch(r"\.ImageList\.(\d+)\.ImageData\.DataType", name) for name in tags)
    return sorted(int(each[1]) for each in matches if each)


def _read_tags(path: Path) -> dict[str, Any]:
    """Values in the file by their path; for long ones, such as pixels, their offset."""
    if not path.stat().st_size:
        raise ValueError("it is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _library().fileDM(path) as file:
            tags: dict[str, Any] = file.allTags
    return tags


@cache
def _library() -> Any:
    """The module of ncempy for these files alone: its package would import matplotlib's windows, in seconds."""
    package = find_spec("ncempy")
    assert package is not None and package.submodule_search_locations
    spec = spec_from_file_location("ncempy_io_dm", Path(package.submodule_search_locations[0]) / "io" / "dm.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


FORMAT = Format(
    "DigitalMicrograph", open_digital_micrograph, suffixes=(".dm3", ".dm4"), module="ncempy", extra="formats"
)
