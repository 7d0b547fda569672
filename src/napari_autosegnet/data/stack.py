"""A stack of sections: what every kind of image file becomes.

An `ImageStack` is a series of sections ``(c, y, x)`` with their physical scale, read lazily from a
`PixelSource`.
"""

from __future__ import annotations

import copy
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.gray_values import Window
from napari_autosegnet.data.pixel_files import ChunkFiles, files_of_array, release_pages
from napari_autosegnet.data.unwritten import unwritten_chunks
from napari_autosegnet.errors import UserError, one_line
from napari_autosegnet.plain_text import counted
from napari_autosegnet.units import Placement, Triple

Array = npt.NDArray[Any]

#: Several times as many as the largest volumes have; more means that another axis was taken for z, or damage.
MAX_SECTIONS = 10**6
#: Up to this many planes of an array whose axes have no names may just as well be channels.
_MAX_DOUBTFUL_PLANES = 4
_UNKNOWN = Placement()


class PixelSource(ABC):
    """Where the pixels come from."""

    @abstractmethod
    def read(self, z: slice, y: slice, x: slice) -> Array:
        """Region of uniform sections as ``(c, z, y, x)``; the slices are plain (start, stop, step 1)."""

    @abstractmethod
    def files(self) -> Sequence[Path]:
        """The files that the pixels lie in, as far as they are known; chunks of background may be missing."""

    def unwritten(self) -> str | None:
        """A line on sections of which chunks have no file; None where there are none, or it is not known."""
        return None

    def representative_parts(self, section: int) -> list[Window] | None:
        """Parts ``(y, x)`` that hold all values of a section; None where they are not known."""
        return None


class ImageStack:
    """A stack of sections, read where and when it is asked for; a 2D image is a stack of one.

    Made by `open_image` and `image_from_array`.

    Attributes
    ----------
    name : str
        File name without its ending, or the name given.
    path : Path or None
        Where it was opened; None for an array.
    sections, channels : int
        Number of z planes and of channels.
    dtype : numpy.dtype
        Native byte order; boolean sources are read as uint8.
    scale, translation : tuple of float
        Physical size of a voxel and position of the first one, ``(z, y, x)``, in `unit`.
    unit : str or None
        As in OME-Zarr ("nanometer", "micrometer"), None when the source says nothing.
    is_2d : bool
        The source had no z axis, so results are written without one.
    pyramid_levels : int
        Resolution levels of the source (1 unless it is multiscale); level 0 is read.
    chunks : tuple of int or None
        Chunk ``(z, y, x)`` of the source store.
    sections_at_once : int or None
        How many sections to read together at most, where no part of one can be decoded alone: so many stay decoded
        until the next read. None: any number.
    section_names : tuple of str or None
        File names without ending when every section is a file of its own.
    channel_names : tuple of str or None
        Names of the channels, where the source gives some.
    level_shapes : tuple of (z, y, x)
        Of the source's resolution levels, as far as they are known.
    time_points : int
        How many stacks the source has, one after the other in time; another one is `at_time`.
    selection : dict
        What the user chose to read of the source: its time point, channels, names of axes.
    notes : tuple of str
        What is to be told of how the source was read, a line each; see `tell_notes`.
    """

    def __init__(
        self,
        source: PixelSource,
        *,
        name: str,
        shapes: Sequence[tuple[int, int]],
        channels: int,
        dtype: npt.DTypeLike,
        path: Path | None = None,
        scale: Triple = (1.0, 1.0, 1.0),
        translation: Triple = (0.0, 0.0, 0.0),
        unit: str | None = None,
        is_2d: bool = False,
        pyramid_levels: int = 1,
        chunks: tuple[int, int, int] | None = None,
        sections_at_once: int | None = None,
        section_names: tuple[str, ...] | None = None,
        channel_names: tuple[str, ...] | None = None,
        level_shapes: Sequence[tuple[int, int, int]] = (),
        time_points: int = 1,
        selection: Mapping[str, Any] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.source = source
        self._shapes = tuple((int(height), int(width)) for height, width in shapes)
        self.name = name
        self.path = path
        self.channels = int(channels)
        self.dtype = readable_dtype(np.dtype(dtype), path or name)
        self.scale = scale
        self.translation = translation
        self.unit = unit
        self.is_2d = is_2d
        self.pyramid_levels = pyramid_levels
        self.chunks = chunks
        self.sections_at_once = sections_at_once
        self.section_names = section_names
        self.channel_names = channel_names
        self.level_shapes = tuple(level_shapes)
        self.time_points = time_points
        self.selection = dict(selection or {})
        self.notes = tuple(notes)
        if not self._shapes or self.channels < 1 or any(0 in shape for shape in self._shapes):
            raise UserError(f"{path or name} holds no pixels; give an image of at least one pixel per axis")
        self._uniform = len(set(self._shapes)) == 1

    def __repr__(self) -> str:
        size = "x".join(map(str, self._shapes[0])) if self._uniform else "mixed sizes"
        return f"<ImageStack {self.name}: {self.sections} sections of {size}, {self.channels} channels, {self.dtype}>"

    @property
    def display_name(self) -> str:
        """What messages call it: its path, or the name of an array."""
        return str(self.path or self.name)

    @property
    def voxels_are_unknown(self) -> bool:
        """Whether the source says nothing of the size of its voxels."""
        return self.unit is None and self.scale == (1.0, 1.0, 1.0)

    @property
    def sections(self) -> int:
        """Number of z planes."""
        return len(self._shapes)

    @property
    def files(self) -> Sequence[Path]:
        """The files that the pixels lie in; of a Zarr, those that there would be without background."""
        files = self.source.files()
        if not files and self.path is not None and self.path.is_file():
            return [self.path]
        return files

    def unwritten(self) -> str | None:
        """A line on sections of which chunks have no file; for it, folders on the disk are listed."""
        line = self.source.unwritten()
        return line and f"{self.display_name}: {line}"

    def representative_parts(self, section: int) -> list[Window] | None:
        """Parts ``(y, x)`` that hold all values of a section, for a Zarr of which most has no files; None: unknown."""
        return self.source.representative_parts(section)

    @property
    def uniform(self) -> bool:
        """Whether all sections have one shape."""
        return self._uniform

    def section_shape(self, section: int) -> tuple[int, int]:
        """Shape ``(y, x)`` of one section."""
        return self._shapes[section]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape ``(z, y, x)``.

        Raises
        ------
        UserError
            When the sections differ in shape.
        """
        self._need_uniform()
        return (self.sections, *self._shapes[0])

    def read(self, z: slice, y: slice, x: slice) -> Array:
        """Region as ``(c, z, y, x)``; only what lies in it is read.

        Slices have step 1 and are clipped at the stack's borders, as in numpy.

        Raises
        ------
        UserError
            When the sections differ in shape, or the file cannot be read.
        """
        shape = self.shape
        cut = [slice(*part.indices(size)[:2]) for part, size in zip((z, y, x), shape, strict=True)]
        if any(part.stop <= part.start for part in cut):
            extent = [max(0, part.stop - part.start) for part in cut]
            return np.zeros((self.channels, *extent), self.dtype)
        return self._read(*cut)

    def with_channels(self, wanted: Sequence[str | int]) -> ImageStack:
        """The same stack with some of its channels, by number (from 0) or by name, in the order given.

        Raises
        ------
        UserError
            When there is no such channel.
        """
        names = list(self.channel_names or ())
        chosen = []
        for channel in wanted or ("",):
            if str(channel) in names:
                chosen.append(names.index(str(channel)))
            elif str(channel).isdecimal() and int(channel) < self.channels:
                chosen.append(int(channel))
            else:
                known = f"{', '.join(names)} or " if names else ""
                raise UserError(
                    f"{self.display_name} has no channel '{channel}'; choose among {known}0 to {self.channels - 1}"
                )
        stack = copy.copy(self)
        stack.source = _ChannelSource(self.source, chosen)
        stack.channels = len(chosen)
        if chosen != list(range(self.channels)):
            stack.selection = {**self.selection, "channels chosen": chosen}
        stack.channel_names = tuple(names[channel] for channel in chosen) if names else None
        return stack

    def section(self, section: int) -> Array:
        """One whole section as ``(c, y, x)``."""
        if not 0 <= section < self.sections:
            raise IndexError(f"section {section} of {self.sections}")
        height, width = self._shapes[section]
        return self._read(slice(section, section + 1), slice(0, height), slice(0, width))[:, 0]

    def at_time(self, time: int) -> ImageStack:
        """The same source at another of its `time_points`."""
        assert isinstance(self.source, ArraySource)
        stack = copy.copy(self)
        stack.source = replace(self.source, time=time)
        stack.selection = {**self.selection, "time point": time}
        return stack

    def _read(self, z: slice, y: slice, x: slice) -> Array:
        try:
            pixels = self.source.read(z, y, x)
        except UserError:
            raise
        except Exception as error:  # decoders raise whatever they like on damaged files
            sections = f"sections {z.start}-{z.stop - 1}"
            raise UserError(f"cannot read {self.display_name}, {sections}: {one_line(error)}") from error
        return np.ascontiguousarray(pixels, dtype=self.dtype)

    def _need_uniform(self) -> None:
        if not self._uniform:
            raise UserError(f"the sections of {self.display_name} differ in size; give images of one size")


def check_finite(section: Array, image: ImageStack, index: int) -> None:
    """Refuse NaN and infinity in one section ``(c, y, x)`` that was read from ``image`` at ``index``.

    Raises
    ------
    UserError
        Names the section and how many pixels are affected.
    """
    if section.dtype.kind != "f":
        return
    bad = int(section.size - np.count_nonzero(np.isfinite(section)))
    if bad:
        raise UserError(
            f"section {index} of {image.display_name} is NaN or infinite in {counted(bad, 'pixel')}; "
            "replace these values (for example by 0) before training"
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


@dataclass
class _ChannelSource(PixelSource):
    """Some channels of another source."""

    source: PixelSource
    channels: Sequence[int]

    def read(self, z: slice, y: slice, x: slice) -> Array:
        pixels: Array = self.source.read(z, y, x)[list(self.channels)]
        return pixels

    def files(self) -> Sequence[Path]:
        return self.source.files()

    def representative_parts(self, section: int) -> list[Window] | None:
        return self.source.representative_parts(section)

    def unwritten(self) -> str | None:
        return self.source.unwritten()


@dataclass
class ArraySource(PixelSource):
    """Anything indexed like a numpy array; ``axes`` are its axes by name (t, c, z, y, x)."""

    array: Any
    axes: Sequence[str]
    time: int
    channels: int

    def read(self, z: slice, y: slice, x: slice) -> Array:
        release_pages(self.array)
        where: dict[str, Any] = {"t": self.time, "c": slice(0, self.channels), "z": z, "y": y, "x": x}
        pixels = np.asarray(self.array[tuple(where[axis] for axis in self.axes)])
        left = [axis for axis in self.axes if axis != "t"]
        pixels = pixels.transpose([left.index(axis) for axis in "czyx" if axis in left])
        if "z" not in left:
            pixels = pixels[..., np.newaxis, :, :]
        return pixels if "c" in left else pixels[np.newaxis]

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

    def unwritten(self) -> str | None:
        return unwritten_chunks(self.files(), self.axes, getattr(self.array, "fill_value", 0))


def stack_of_array(
    array: Any,
    axes: Sequence[str],
    *,
    name: str,
    time: int | None,
    alpha: bool = False,
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
        ArraySource(array, list(axes), point, channels),
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


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key by which ``slice2`` comes before ``slice10``."""
    parts = re.split(r"(\d+)", text.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def readable_dtype(dtype: np.dtype[Any], where: object) -> np.dtype[Any]:
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind not in "uif":
        raise UserError(f"{where} holds {dtype} values; give an image of whole or real numbers")
    return dtype.newbyteorder("=")


def triple(values: Sequence[float] | None, missing: float) -> Triple:
    """Numbers per axis as ``(z, y, x)``; what is not said is ``missing``."""
    known = [float(value) for value in values or ()][-3:]
    filled = [missing] * (3 - len(known)) + known
    return filled[0], filled[1], filled[2]


def positive(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None
