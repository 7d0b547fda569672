"""Images of every kind, opened lazily: one way to read them all.

TIFF pages and tiles are decoded when they are asked for, Zarr chunks and memory-mapped files are
touched only where a read falls on them. Physical scale, translation and unit travel with the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_autosegnet.data.readers.pictures import PICTURE_SUFFIXES, image_files, stack_of_files
from napari_autosegnet.data.readers.tiff import TIFF_SUFFIXES, TiffRequest, open_tiff
from napari_autosegnet.data.readers.zarr import open_zarr
from napari_autosegnet.data.stack import (
    ImageStack,
    check_finite,
    stack_of_array,
    stack_of_unnamed,
    time_point,
    triple,
)
from napari_autosegnet.errors import UserError, one_line
from napari_autosegnet.events import Note, Report
from napari_autosegnet.files import refuse_address
from napari_autosegnet.ome_zarr.paths import looks_like_zarr

__all__ = ["ImageStack", "check_finite", "image_from_array", "open_image", "open_labels", "tell_notes"]


def open_image(
    path: str | Path,
    *,
    time: int | None = None,
    channels: Sequence[str] | None = None,
    axes: str | None = None,
    files: Sequence[Path] | None = None,
) -> ImageStack:
    """Open a TIFF, PNG, JPEG, a folder of those, a .npy file, a Zarr array or an OME-Zarr image.

    Parameters
    ----------
    path : str or Path
        TIFF: multi-page, RGB, OME and ImageJ axes. A folder of images is one stack, in natural order
        of the names, and its images may differ in size. Zarr: version 2 or 3; OME-Zarr: 0.4 or 0.5,
        level 0.
    time : int, optional
        Time point to read, needed when there are several.
    channels : sequence of str, optional
        Channels to read, by name or by number (from 0); all by default.
    axes : str, optional
        Names of the axes, such as ``tczyx``, of a TIFF or a plain array (Zarr, .npy). An OME-Zarr names its own.
    files : sequence of Path, optional
        Of a folder only these, in this order.

    Raises
    ------
    UserError
        When there is no such file, it is of another kind or damaged, its pixels are no real numbers,
        it has axes that cannot be told apart, or it has several time points and ``time`` is not given.
    """
    stack = _open(Path(path), time, labels=False, axes=None if axes is None else axes.lower(), files=files)
    return stack if channels is None else stack.with_channels(channels)


def open_labels(
    path: str | Path, *, time: int | None = None, axes: str | None = None, files: Sequence[Path] | None = None
) -> ImageStack:
    """Open a label image: as `open_image`, but a palette picture is read as its indices, and planes are no colours."""
    return _open(Path(path), time, labels=True, axes=None if axes is None else axes.lower(), files=files)


def tell_notes(stacks: Iterable[ImageStack], report: Report) -> None:
    """Tell what is to be known of how images and labels were read, each line once."""
    for note in dict.fromkeys(note for stack in stacks for note in stack.notes):
        report(Note(text=note))


def folder_files(path: Path) -> list[Path] | None:
    """The files of a folder of images, a section each; None when the path is something else.

    Raises
    ------
    UserError
        When it is a folder without images.
    """
    return image_files(path) if path.is_dir() and not looks_like_zarr(path) else None


def image_from_array(
    array: Any,
    *,
    name: str = "image",
    channel_axis: int | None = None,
    scale: Sequence[float] | None = None,
    translation: Sequence[float] | None = None,
) -> ImageStack:
    """Stack over anything that is indexed like a numpy array: numpy, zarr, dask.

    Parameters
    ----------
    array : array-like
        ``(y, x)`` or ``(z, y, x)``, with one more axis when ``channel_axis`` is given.
    channel_axis : int, optional
        Axis of the channels; negative counts from the end (-1 for RGB). RGB is never guessed here.
    scale, translation : sequence of float, optional
        Per spatial axis; a 2D image may give two or three numbers.

    Raises
    ------
    UserError
        When the array has another number of axes.
    """
    dimensions = len(array.shape)
    spatial = dimensions - (channel_axis is not None)
    if spatial not in (2, 3):
        hint = "say which axis holds the channels, or take one time point" if spatial > 3 else "give at least y and x"
        raise UserError(f"{name} has {spatial} axes besides channels where 2 (y, x) or 3 (z, y, x) are needed; {hint}")
    axes = list("zyx"[-spatial:])
    if channel_axis is not None:
        axes.insert(channel_axis % dimensions, "c")
    return stack_of_array(
        array, axes, name=name, scale=triple(scale, 1.0), translation=triple(translation, 0.0), time=None
    )


def _open(
    path: Path, time: int | None, *, labels: bool, axes: str | None = None, files: Sequence[Path] | None = None
) -> ImageStack:
    if not path.exists():
        refuse_address(path, "only files on a disk are read; download it, or mount it")
        raise UserError(f"there is no file or folder {path}; check the path")
    try:
        if path.is_dir():
            if looks_like_zarr(path):
                return open_zarr(path, time, axes)
            time_point(None, time, path)
            return stack_of_files(files or image_files(path), path, is_2d=False, labels=labels)
        suffix = path.suffix.lower()
        if suffix in TIFF_SUFFIXES:
            return open_tiff(TiffRequest(path, time, axes, labels=labels))
        if suffix in PICTURE_SUFFIXES:
            time_point(None, time, path)
            return stack_of_files([path], path, is_2d=True, labels=labels)
        if suffix == ".npy":
            return _open_npy(path, time, axes)
    except UserError:
        raise
    except Exception as error:  # each library has errors of its own for damaged files
        raise UserError(f"cannot open {path}: {one_line(error)}") from error
    raise UserError(
        f"{path} is of no kind that can be read; give TIFF, PNG, JPEG, BMP, .npy, Zarr, OME-Zarr or a folder of images"
    )


def _open_npy(path: Path, time: int | None, axes: str | None) -> ImageStack:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return stack_of_unnamed(array, path, time, axes)
