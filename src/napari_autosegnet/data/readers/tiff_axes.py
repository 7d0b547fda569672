"""What the axes of a TIFF are, as far as it says so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_autosegnet.errors import UserError

if TYPE_CHECKING:
    import tifffile

_RGB = 2  # a photometric interpretation


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
