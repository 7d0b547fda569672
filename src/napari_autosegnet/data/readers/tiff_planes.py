"""Whether a TIFF holds the planes that it describes, and all of their pixels."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_autosegnet.data.readers.tiff_pages import file_of
from napari_autosegnet.errors import UserError
from napari_autosegnet.plain_text import counted, listed

if TYPE_CHECKING:
    import tifffile


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
