"""Stacks over arrays: anything indexed like a numpy array, whose axes are known or guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_autosegnet.data.gray_values import Window
from napari_autosegnet.data.label_values import without_erased
from napari_autosegnet.data.pixel_files import ChunkFiles, files_of_array, release_pages, unwritten_chunks
from napari_autosegnet.data.stack import Array, ImageStack, PixelSource
from napari_autosegnet.errors import UserError
from napari_autosegnet.units import Placement

#: Several times as many as the largest volumes have; more means that another axis was taken for z, or damage.
MAX_SECTIONS = 10**6
#: Up to this many planes of an array whose axes have no names may just as well be channels.
_MAX_DOUBTFUL_PLANES = 4
_UNKNOWN = Placement()


@dataclass
class ArraySource(PixelSource):
    """Anything indexed like a numpy array; ``axes`` are its axes by name (t, c, z, y, x).

    With ``erased``, the name of labels, a channel of transparency comes after those that are used; it says what of
    them was erased.
    """

    array: Any
    axes: Sequence[str]
    time: int
    channels: int
    erased: str | None = None

    def read(self, z: slice, y: slice, x: slice) -> Array:
        release_pages(self.array)
        where: dict[str, Any] = {
            "t": self.time,
            "c": slice(0, self.channels + (self.erased is not None)),
            "z": z,
            "y": y,
            "x": x,
        }
        pixels = np.asarray(self.array[tuple(where[axis] for axis in self.axes)])
        left = [axis for axis in self.axes if axis != "t"]
        pixels = pixels.transpose([left.index(axis) for axis in "czyx" if axis in left])
        if "z" not in left:
            pixels = pixels[..., np.newaxis, :, :]
        pixels = pixels if "c" in left else pixels[np.newaxis]
        return pixels if self.erased is None else without_erased(pixels, self.erased)

    def files(self) -> Sequence[Path]:
        return files_of_array(self.array, {self.axes.index("t"): self.time} if "t" in self.axes else None)

    def representative_parts(self, section: int) -> list[Window] | None:
        files = self.files()
        if not isinstance(files, ChunkFiles) or "z" not in self.axes:
            return None
        z, y, x = (self.axes.index(axis) for axis in "zyx")
        places = files.representative_places(z, section // files.unit[z])
        rows_columns = {(place[y], place[x]) for place in places}  # several channels may lie in files of their own
        height, width = files.unit[y], files.unit[x]
        return [
            (slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width))
            for row, column in sorted(rows_columns)
        ]

    def at_time(self, time: int) -> ArraySource:
        return replace(self, time=time)

    def unwritten(self) -> str | None:
        return unwritten_chunks(self.files(), self.axes, getattr(self.array, "fill_value", 0))


def stack_of_array(
    array: Any,
    axes: Sequence[str],
    *,
    name: str,
    time: int | None,
    alpha: bool = False,
    labels: bool = False,
    chunks: Sequence[int] | None = None,
    path: Path | None = None,
    placement: Placement = _UNKNOWN,
    notes: Sequence[str] = (),
    **about: Any,
) -> ImageStack:
    """Stack over an array with these axes; ``alpha``: the last of its channels is left out."""
    sizes = dict(zip(axes, array.shape, strict=True))
    if not {"y", "x"} <= set(axes):
        raise UserError(f"{path or name} has the axes {', '.join(axes)}; an image needs y and x")
    if sizes.get("z", 1) > MAX_SECTIONS:
        raise UserError(
            f"{path or name} says that it has {sizes['z']} sections, more than the {MAX_SECTIONS} that can be read; "
            "cut out a part, or check the order of its axes"
        )
    channels = sizes.get("c", 1) - alpha
    by_axis = dict(zip(axes, chunks, strict=True)) if chunks else {}
    point = time_point(sizes.get("t"), time, path or name, axes)
    return ImageStack(
        ArraySource(array, list(axes), point, channels, str(path or name) if alpha and labels else None),
        name=name,
        path=path,
        shapes=[(sizes["y"], sizes["x"])] * sizes.get("z", 1),
        channels=channels,
        dtype=array.dtype,
        scale=placement.scale,
        translation=placement.translation,
        unit=placement.unit,
        is_2d="z" not in axes,
        chunks=(by_axis.get("z", 1), by_axis["y"], by_axis["x"]) if by_axis else None,
        time_points=sizes.get("t", 1),
        selection={"time point": point} if point else {},
        notes=[*notes, *(f"{path or name}: {note}" for note in placement.notes)],
        **about,
    )


def stack_of_file(
    array: Any,
    path: Path,
    *,
    time: int | None,
    wanted: str | None,
    stated: Sequence[str] | None = None,
    notes: Sequence[str] = (),
    **about: Any,
) -> ImageStack:
    """Stack over the array in a file.

    Parameters
    ----------
    wanted : str, optional
        Its axes as the user names them, such as ``tczyx``.
    stated : sequence of str, optional
        Its axes as the file names them. Without either, they are ``[z,] y, x``, and a last axis of 3 or 4 is RGB(A).
    """
    shape = array.shape
    if wanted is not None:
        if len(wanted) != len(shape) or len(set(wanted)) != len(wanted) or set(wanted) - set("tczyx"):
            raise UserError(f"{path} has {len(shape)} axes, not '{wanted}'; name each once by t, c, z, y or x")
        stack = stack_of_array(array, wanted, name=path.name, path=path, time=time, notes=notes, **about)
        stack.selection["axes"] = wanted
        return stack
    alpha = False
    if stated is None:
        stated = _usual_axes(shape, path)
        alpha = "c" in stated and shape[-1] == 4
        if alpha:
            note = "the last axis is read as red, green, blue, and transparency, which is left out; else use --axes"
            notes = [*notes, f"{path}: {note}"]
        elif stated == "zyx" and 1 < shape[0] <= _MAX_DOUBTFUL_PLANES:
            note = "the first of its axes, which have no names, is read as sections; of channels, use --axes cyx"
            notes = [*notes, f"{path}: {note}"]
    return stack_of_array(array, stated, name=path.name, path=path, time=time, alpha=alpha, notes=notes, **about)


def _usual_axes(shape: Sequence[int], path: Path) -> str:
    """What the axes of an array without names most likely are."""
    color = len(shape) in (3, 4) and shape[-1] in (3, 4)
    spatial = len(shape) - color
    if len(shape) < 2:
        raise UserError(f"{path} has {len(shape)} axes, and an image at least y and x; give an image")
    if spatial not in (2, 3):
        raise UserError(
            f"{path} has {len(shape)} axes without names; say which is which with --axes, for example "
            f"--axes {'tczyx'[-len(shape) :]}"
        )
    return "zyx"[-spatial:] + "c" * color


def time_point(points: int | None, time: int | None, where: object, axes: Sequence[str] = ()) -> int:
    """Index on the time axis, or the error that says what to choose."""
    if points is None or points == 1:
        if time not in (None, 0):
            raise UserError(f"{where} has one time point, so time point {time} cannot be read; leave it out")
        return 0
    if time is None:
        choice = f"choose one with --time (0 to {points - 1})"
        if axes and "z" not in axes:
            choice += f", or take all of them as sections with --axes {''.join(axes).replace('t', 'z')}"
        raise UserError(f"{where} has {points} time points; {choice}")
    if not 0 <= time < points:
        raise UserError(f"{where} has the time points 0 to {points - 1}, not {time}; choose one of them")
    return time
