"""What a TIFF says of its pixels: their axes, what their numbers stand for, a voxel's size, and what is missing."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_autosegnet.data.readers.pixel_values import PixelValues, inverted, polynomial
from napari_autosegnet.data.readers.tiff_pages import file_of
from napari_autosegnet.errors import UserError
from napari_autosegnet.plain_text import counted, listed
from napari_autosegnet.units import Placement, in_one_unit, positive, unit_name

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
_MIN_IS_WHITE, _RGB, _YCBCR = 0, 2, 6
#: Of which tifffile makes RGB while it decodes.
JPEG = (6, 7, 33007, 34892)
_FAX = (2, 3, 4)
_CENTIMETER = 3  # a unit of resolution
#: ImageJ's numbers for calibration functions: those that are polynomials, for none, and the names of others.
_POLYNOMIALS, _NO_CALIBRATION = range(4), 20
_FUNCTIONS = {4: "exponential", 5: "power", 6: "log", 7: "Rodbard", 8: "gamma variate", 21: "uncalibrated OD"}


def tiff_axes(
    series: tifffile.TiffPageSeries, path: Path, *, wanted: str | None, labels: bool, alone: bool
) -> tuple[list[str], bool]:
    """Names of a series' axes (t, c, z, y, x; s for samples beside channels), and whether alpha comes last.

    Parameters
    ----------
    wanted : str, optional
        What the user says that they are, such as ``zyx``.
    labels : bool
        Labels have no colors.
    alone : bool
        The file is one section.

    Raises
    ------
    UserError
        When they cannot be told, or ``wanted`` are others.
    """
    inner = series.keyframe.axes
    letters = series.axes
    if wanted is not None:
        letters = _wanted_axes(series, path, wanted)
    elif not _states_axes(series):
        if series.shape[-len(inner) :] == series.keyframe.shape:
            # Sides of one pixel confuse the guess of a series' axes; those of a page are sure.
            letters = "".join("Q" if axis in inner else axis for axis in letters[: -len(inner)]) + inner
        if _may_be_sections(series) and not alone:
            letters = "ZYX" if labels and len(letters) == 3 else _ask_for_axes(series, path)
    names = {"Y": "y", "X": "x", "Z": "z", "T": "t", "C": "c", "S": "s" if "C" in letters else "c"}
    unnamed = [axis for axis in letters if axis not in names]
    if len(unnamed) > 1 or (unnamed and "Z" in letters):
        raise UserError(
            f"{path} has the axes {letters}, of which {', '.join(unnamed)} could be anything; "
            "name them with --axes, such as --axes tczyx, or save it with the axes (T)(C)(Z)YX, for example as OME-TIFF"
        )
    for axis in unnamed:  # plain multi-page TIFF: the pages are the sections
        names[axis] = "z"
    axes = [names[axis] for axis in letters]
    samples_are_channels = "S" in inner and axes[len(axes) - len(inner) + inner.index("S")] == "c"
    alpha = samples_are_channels and series.keyframe.samplesperpixel in (2, 4) and bool(series.keyframe.extrasamples)
    return axes, alpha


def _wanted_axes(series: tifffile.TiffPageSeries, path: Path, wanted: str) -> str:
    shape = series.shape
    longer = [index for index, size in enumerate(shape) if size > 1 or index >= len(shape) - 2]
    places = range(len(shape)) if len(wanted) == len(shape) else longer
    if len(wanted) != len(places) or len(set(wanted)) != len(wanted) or set(wanted) - set("tczyx"):
        sizes = " x ".join(map(str, shape))
        raise UserError(f"{path} has {len(shape)} axes ({sizes}), not '{wanted}'; name each once by t, c, z, y or x")
    named = dict(zip(places, wanted.upper(), strict=True))
    free = iter([axis for axis in "TCZ" if axis not in wanted.upper()])
    return "".join(named.get(index) or next(free) for index in range(len(shape)))


def _states_axes(series: tifffile.TiffPageSeries) -> bool:
    """Whether tifffile's own description names the axes."""
    return '"axes":' in (series.keyframe.shaped_description or "")


def _may_be_sections(series: tifffile.TiffPageSeries) -> bool:
    """Whether colors, a plane for each, may be sections: tifffile writes both alike by default."""
    keyframe = series.keyframe
    return (
        keyframe.axes == "SYX"
        and keyframe.photometric == _RGB
        and keyframe.is_shaped
        and series.shape[-3:] == keyframe.shape
    )


def _ask_for_axes(series: tifffile.TiffPageSeries, path: Path) -> str:
    count = series.shape[-3]
    rest = "t" if len(series.shape) == 4 else ""
    raise UserError(
        f"{path} holds {count} planes that may be sections or colors, and it does not say which; "
        f"use --axes {rest}zyx for sections or --axes {'z' if rest else ''}cyx for colors"
    )


def check_planes(
    file: tifffile.TiffFile,
    series: tifffile.TiffPageSeries,
    path: Path,
    *,
    axes: Sequence[str],
    time: int,
    of_several: bool,
) -> None:
    """Refuse a file that describes other planes than it holds, or was cut off.

    What is missing would be read as black, or left out without a word.

    Parameters
    ----------
    axes : sequence of str
        Of the series, as `tiff_axes` gives them.
    time : int
        The time point that is read; others may be incomplete.
    of_several : bool
        The file holds other images, too.

    Raises
    ------
    UserError
        Says what is missing.
    """
    pages = _described_pages(file, series, path, of_several=of_several)
    if series.dataoffset is not None and not series.is_multifile:
        end = series.dataoffset + math.prod(series.shape) * series.dtype.itemsize
        if end > file.filehandle.size:
            raise UserError(f"{path} is cut off: its pixels end beyond the end of the file; copy the file again")
    leading = series.shape[: len(series.shape) - len(series.keyframe.shape)]
    numbers = np.arange(len(pages))
    if math.prod(leading) == len(pages):
        numbers = numbers.reshape(leading)
        if "t" in axes[: len(leading)]:
            numbers = numbers.take([time], axis=list(axes).index("t"))
    wanted = numbers.ravel().tolist()
    missing = [number for number in wanted if _is_missing(pages[number])]
    if missing:
        raise UserError(
            f"{path} describes {counted(len(wanted), 'plane')}, of which {len(missing)} are not in it (counted from 0: "
            f"{listed(missing, 6)}); copy it again, or save the planes that are there as a new file"
        )
    check_extents([pages[number] for number in wanted], path)


def _described_pages(
    file: tifffile.TiffFile, series: tifffile.TiffPageSeries, path: Path, *, of_several: bool
) -> list[Any]:
    """The pages of a series, None for those that a description names and that are in no file."""
    described = math.prod(series.shape) // max(1, math.prod(series.keyframe.shape))
    in_file = len(file.pages)
    if series.kind == "imagej" and file.imagej_metadata:
        images = int(file.imagej_metadata.get("images", 1))
        if images > 1 and in_file > 1 and in_file not in (images, images // series.keyframe.samplesperpixel):
            raise _disagreement(path, images, in_file)
    if in_file == 1 and series.kind in ("imagej", "shaped") and series.dataoffset is not None:
        return [series.keyframe]  # the planes lie one after the other behind it
    in_series = sum(len(level) for one in file.series for level in one.levels if not level.keyframe.is_subifd)
    if in_series < in_file and not of_several and not series.is_multifile and _more_of_the_same(file, series):
        raise _disagreement(path, described, in_file)
    try:
        pages = list(series)
    except IndexError as error:
        raise _disagreement(path, described, in_file - series.keyframe.index) from error
    if series.kind in ("imagej", "shaped") and len(pages) != described:
        raise _disagreement(path, described, in_file - series.keyframe.index)
    return pages


def _disagreement(path: Path, described: int, there: int) -> UserError:
    return UserError(
        f"{path} describes {counted(described, 'plane')} and holds {there}: it was cut off, or changed by another "
        "program; copy it again, or save it again with the program that wrote it"
    )


def _more_of_the_same(file: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> bool:
    """Whether there are pages like those of the series that belong to nothing; thumbnails are of another size."""
    used = {page.offset for one in file.series for level in one.levels for page in level if page is not None}
    keyframe = series.keyframe
    for index in range(len(file.pages)):
        page = file.pages[index].aspage()
        if page.offset not in used and not page.is_reduced:
            return (page.shape, page.dtype) == (keyframe.shape, keyframe.dtype)
    return False


def _is_missing(page: Any) -> bool:
    """Whether a plane was never written; single tiles may be empty in whole-slide images."""
    return page is None or not any(page.databytecounts) or not any(page.dataoffsets)


def check_extents(pages: Sequence[Any], path: Path) -> None:
    """Refuse pages whose pixels end beyond the end of the file, which was cut off.

    Raises
    ------
    UserError
        Names the first of them.
    """
    sizes: dict[str, int] = {}
    for number, page in enumerate(pages):
        place = file_of(page)
        if place not in sizes:
            sizes[place] = os.path.getsize(place)
        end = max(map(int.__add__, map(int, page.dataoffsets), map(int, page.databytecounts)))
        if end > sizes[place]:
            where = path if os.path.samefile(place, path) else f"{place}, which {path} needs,"
            raise UserError(
                f"{where} is cut off: plane {number} of {len(pages)} ends beyond the end of the file; "
                "copy the file again"
            )


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


def stated_placement(file: tifffile.TiffFile) -> Placement:
    """Voxel size and unit as ImageJ, a Zeiss microscope (LSM) or a slide scanner states it; else (1, 1, 1).

    Plain resolution tags (dots per inch) are left aside: they are hardly ever the microscope's.
    """
    first = file.pages[0].aspage()
    sizes: list[float | None] = [None] * 3  # in micrometers
    if file.lsm_metadata is not None:
        sizes = [
            size and size * 1e6 for size in (positive(file.lsm_metadata.get(f"VoxelSize{axis}")) for axis in "ZYX")
        ]
    elif first.is_svs:
        sizes = [None, *[_aperio_pixel(first.description)] * 2]
    elif first.is_ndpi and int(first.resolutionunit) == _CENTIMETER:
        sizes = [None, *(positive(1e4 / each if each else None) for each in reversed(first.resolution))]
    else:
        return _imagej_placement(file)
    return in_one_unit(sizes, ["micrometer"] * 3)


def _aperio_pixel(description: str) -> float | None:
    found = re.search(r"\|\s*MPP\s*=\s*([0-9.]+)", description)
    return None if found is None else positive(found[1])


def _imagej_placement(file: tifffile.TiffFile) -> Placement:
    about = file.imagej_metadata if file.is_imagej else None
    unit = str((about or {}).get("unit") or "pixel")
    if not about or unit_name(unit) is None:
        return in_one_unit([None] * 3, [unit] * 3)
    tags = file.pages[0].aspage().tags
    steps = []
    for name in ("YResolution", "XResolution"):
        numerator, denominator = tags[name].value if name in tags else (0, 1)
        steps.append(denominator / numerator if numerator and denominator else 1.0)
    spacing = about.get("spacing")
    depth = positive(abs(spacing) if isinstance(spacing, int | float) else None)
    units = [str(about.get(name) or unit) for name in ("zunit", "yunit")]
    return in_one_unit([depth, *steps], [*units, unit])
