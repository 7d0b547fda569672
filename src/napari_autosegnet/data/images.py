"""Images of every kind, opened lazily: one way to read them all.

TIFF pages and tiles are decoded when they are asked for, Zarr chunks and memory-mapped files are
touched only where a read falls on them. Physical scale, translation and unit travel with the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from napari_autosegnet.data.array_stack import stack_of_array
from napari_autosegnet.data.readers.folders import folder_files
from napari_autosegnet.data.readers.formats import ReadRequest, open_path
from napari_autosegnet.data.selection import Selection
from napari_autosegnet.data.stack import ImageStack, check_finite
from napari_autosegnet.errors import UserError, one_line
from napari_autosegnet.events import Note, Report
from napari_autosegnet.units import Placement, triple

__all__ = [
    "ImageStack",
    "check_finite",
    "folder_files",
    "image_from_array",
    "open_image",
    "open_labels",
    "open_selected",
    "tell_notes",
]


def open_image(
    path: str | Path,
    *,
    time: int | None = None,
    channels: Sequence[str] | None = None,
    axes: str | None = None,
    files: Sequence[Path] | None = None,
) -> ImageStack:
    """Open an image of any format in `napari_autosegnet.data.readers`.

    Parameters
    ----------
    path : str or Path
        TIFF: multi-page, RGB, OME and ImageJ axes. A folder of images is one stack, in natural order
        of the names, and its images may differ in size. Zarr: version 2 or 3; OME-Zarr: 0.4 or 0.5,
        level 0. HDF5: ``file.h5:/volumes/raw`` where a file holds several datasets.
    time : int, optional
        Time point to read, needed when there are several.
    channels : sequence of str, optional
        Channels to read, by name or by number (from 0); all by default.
    axes : str, optional
        Names of the axes, such as ``tczyx``, of a TIFF, MRC, NIfTI, DM3, DM4, or plain array (Zarr, HDF5, .npy).
        An OME-Zarr has its own.
    files : sequence of Path, optional
        Of a folder only these, in this order.

    Raises
    ------
    UserError
        When there is no such file, it is of another kind or damaged, its pixels are not real numbers,
        it has axes that cannot be told apart, or it has several time points and ``time`` is not given.
    """
    stack = _open(ReadRequest(Path(path), time, None if axes is None else axes.lower(), files=files))
    return stack if channels is None else stack.with_channels(channels)


def open_selected(path: str | Path, read: Selection, files: Sequence[Path] | None = None) -> ImageStack:
    """Open what is selected of an image; see `open_image`."""
    return open_image(path, time=read.time_point, channels=read.channels, axes=read.axes, files=files)


def open_labels(
    path: str | Path, *, time: int | None = None, axes: str | None = None, files: Sequence[Path] | None = None
) -> ImageStack:
    """Open a label image: as `open_image`, but a palette picture is read as its indices, and planes are no colors."""
    return _open(ReadRequest(Path(path), time, None if axes is None else axes.lower(), labels=True, files=files))


def tell_notes(stacks: Iterable[ImageStack], report: Report) -> None:
    """Report the notes on how images and labels were read, each once."""
    for note in dict.fromkeys(note for stack in stacks for note in (*stack.notes, stack.unwritten())):
        if note is not None:
            report(Note(text=note))


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
    placement = Placement(triple(scale, 1.0), triple(translation, 0.0))
    return stack_of_array(array, axes, name=name, placement=placement, time=None)


def _open(request: ReadRequest) -> ImageStack:
    try:
        return open_path(request)
    except UserError:
        raise
    except PermissionError as error:
        place = error.filename or request.path
        raise UserError(f"cannot read {place}: {error.strerror}; ask its owner for permission") from error
    except Exception as error:  # each library has errors of its own for damaged files
        raise UserError(
            f"cannot open {request.path}, it may be damaged ({one_line(error)}); copy it again, or save it again"
        ) from error
