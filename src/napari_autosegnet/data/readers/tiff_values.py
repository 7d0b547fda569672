"""What the numbers in a TIFF stand for: inverted, calibrated, or colors that are not RGB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_autosegnet.data.readers.pixel_values import PixelValues, inverted, polynomial
from napari_autosegnet.errors import UserError

if TYPE_CHECKING:
    import tifffile

#: Kinds of series that tifffile makes of the pages alone.
PLAIN_KINDS = ("generic", "uniform")
#: Photometric interpretations (TIFF tag 262) whose numbers are not what they seem, and what to call them.
_OTHER_COLORS = {
    5: "CMYK",
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32803: "raw camera pixels",
    32844: "LogL",
    32845: "LogLuv",
    34892: "raw camera pixels",
}
_MIN_IS_WHITE, _YCBCR = 0, 6
#: Of which tifffile makes RGB while it decodes.
JPEG = (6, 7, 33007, 34892)
_FAX = (2, 3, 4)
#: ImageJ's numbers for calibration functions: those that are polynomials, for none, and the names of others.
_POLYNOMIALS, _NO_CALIBRATION = range(4), 20
_FUNCTIONS = {4: "exponential", 5: "power", 6: "log", 7: "Rodbard", 8: "gamma variate", 21: "uncalibrated OD"}


def pixel_values(file: tifffile.TiffFile, pages: Sequence[Any], path: Path) -> tuple[PixelValues | None, list[str]]:
    """What the numbers in pages stand for (None: for themselves), and what is to be told of it.

    Min-is-white pictures are inverted, as Pillow shows them. In what ImageJ wrote the tag is but its inverting lookup
    table, and tifffile gives it to all arrays of booleans: the numbers are those that the writer had. ImageJ's
    calibration functions are applied.

    Raises
    ------
    UserError
        When the colors or the calibration are of a kind that cannot be read.
    """
    keyframes = {id(page.keyframe): page.keyframe for page in pages if page is not None}
    conventions = {_is_min_is_white(keyframe) for keyframe in keyframes.values()}
    if len(conventions) > 1:
        raise UserError(f"in {path} the smallest number is white in some planes and black in others; save it again")
    keyframe = next(iter(keyframes.values()))
    _check_colors(keyframe, path)
    notes = []
    if file.is_shaped and file.series[0].kind in PLAIN_KINDS:
        notes.append(f"{path} holds other planes than its writer describes; it is read plane by plane")
    orientation = int(keyframe.tags.valueof(274, 1))
    if orientation != 1:
        notes.append(f"{path} is read as it is stored; its orientation tag ({orientation}) asks viewers to turn it")
    dtype = np.dtype(keyframe.dtype)
    if keyframe.is_imagej or file.is_imagej:
        values = _calibration(file, dtype, path)
        if values is not None:
            notes.append(f"{path}: ImageJ's calibration function is applied to its numbers")
        elif conventions == {True}:
            notes.append(f"{path} has ImageJ's inverting lookup table; its numbers are read as ImageJ tells them")
        return values, notes
    if conventions == {True} and dtype.kind == "b" and str(keyframe.software).startswith("tifffile"):
        notes.append(f"{path} has bits of tifffile, which calls them min-is-white unasked; they are read as they are")
    elif conventions == {True}:
        if dtype.kind in "bui":
            notes.append(f"{path} is min-is-white (its smallest number is white): its values are inverted")
            return inverted(dtype, int(keyframe.bitspersample)), notes
        notes.append(f"{path} says that its smallest value is white; {dtype} values are read as they are")
    return None, notes


def _is_min_is_white(keyframe: tifffile.TiffPage) -> bool:
    # Where the tag is missing, only fax pictures are.
    return int(keyframe.photometric) == _MIN_IS_WHITE and (262 in keyframe.tags or keyframe.compression in _FAX)


def _check_colors(keyframe: tifffile.TiffPage, path: Path) -> None:
    kind = int(keyframe.photometric)
    name = _OTHER_COLORS.get(kind)
    if kind == _YCBCR and keyframe.compression not in JPEG and keyframe.samplesperpixel == 3:
        name = "YCbCr"
    if name is not None:
        raise UserError(f"the colors of {path} are {name}; save it as gray or RGB")


def _calibration(file: tifffile.TiffFile, dtype: np.dtype[Any], path: Path) -> PixelValues | None:
    about = file.imagej_metadata or {}
    function = about.get("cf", 0)
    coefficients: list[float] = []
    while isinstance(value := about.get(f"c{len(coefficients)}"), int | float):
        coefficients.append(float(value))
    # ImageJ calibrates gray images of 8 and 16 bits.
    if dtype.kind not in "ui" or dtype.itemsize > 2 or function == _NO_CALIBRATION:
        return None
    if function in _POLYNOMIALS:
        is_damaged = f"c{len(coefficients)}" in about or not np.isfinite(coefficients).all()
        if len(coefficients) < 2 and not is_damaged:
            return None
        if is_damaged:
            raise UserError(f"the calibration in {path} is damaged; save it again with ImageJ")
        return polynomial(dtype, coefficients, clip=bool(about.get("zeroclip", False)))
    raise UserError(
        f"{path} is calibrated by ImageJ's function {_FUNCTIONS.get(function, function)}, which is not applied here; "
        "in ImageJ set Analyze > Calibrate to None, or convert it to 32 bits, and save it"
    )
