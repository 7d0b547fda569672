"""A stack of sections: what every kind of image file becomes.

An `ImageStack` is a series of sections ``(c, y, x)`` with their physical scale, read lazily from a
`PixelSource`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.gray_values import Window
from napari_autosegnet.errors import UserError, one_line
from napari_autosegnet.plain_text import counted
from napari_autosegnet.units import Triple

Array = npt.NDArray[Any]


class PixelSource(ABC):
    """Where the pixels come from."""

    @abstractmethod
    def read(self, z: slice, y: slice, x: slice) -> Array:
        """Region of uniform sections as ``(c, z, y, x)``; the slices are plain (start, stop, step 1)."""

    @abstractmethod
    def files(self) -> Sequence[Path]:
        """The files that the pixels lie in, as far as they are known; chunks of background may be missing."""

    def at_time(self, time: int) -> PixelSource:
        """The pixels at another time point; those of a source with a single one are its own."""
        return self

    def unwritten(self) -> str | None:
        """A line on sections of which chunks have no file; None where there are none, or it is not known."""
        return None

    def representative_parts(self, section: int) -> list[Window] | None:
        """Parts ``(y, x)`` that hold all values of a section; None where they are not known."""
        return None


@dataclass(eq=False, repr=False)
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

    source: PixelSource
    _: KW_ONLY
    name: str
    shapes: Sequence[tuple[int, int]]
    channels: int
    dtype: np.dtype[Any]
    path: Path | None = None
    scale: Triple = (1.0, 1.0, 1.0)
    translation: Triple = (0.0, 0.0, 0.0)
    unit: str | None = None
    is_2d: bool = False
    pyramid_levels: int = 1
    chunks: tuple[int, int, int] | None = None
    sections_at_once: int | None = None
    section_names: tuple[str, ...] | None = None
    channel_names: tuple[str, ...] | None = None
    level_shapes: Sequence[tuple[int, int, int]] = ()
    time_points: int = 1
    selection: dict[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.shapes = tuple((int(height), int(width)) for height, width in self.shapes)
        self.dtype = readable_dtype(np.dtype(self.dtype), self.display_name)
        self.notes = tuple(self.notes)
        if not self.shapes or self.channels < 1 or any(0 in shape for shape in self.shapes):
            raise UserError(f"{self.display_name} holds no pixels; give an image of at least one pixel per axis")

    def __repr__(self) -> str:
        size = "x".join(map(str, self.shapes[0])) if self.uniform else "mixed sizes"
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
        return len(self.shapes)

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

    @cached_property
    def uniform(self) -> bool:
        """Whether all sections have one shape."""
        return len(set(self.shapes)) == 1

    def section_shape(self, section: int) -> tuple[int, int]:
        """Shape ``(y, x)`` of one section."""
        return self.shapes[section]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape ``(z, y, x)``.

        Raises
        ------
        UserError
            When the sections differ in shape.
        """
        self._need_uniform()
        return (self.sections, *self.shapes[0])

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
        height, width = self.shapes[section]
        return self._read(slice(section, section + 1), slice(0, height), slice(0, width))[:, 0]

    def at_time(self, time: int) -> ImageStack:
        """The same source at another of its `time_points`."""
        stack = copy.copy(self)
        stack.source = self.source.at_time(time)
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
        if not self.uniform:
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

    def at_time(self, time: int) -> PixelSource:
        return replace(self, source=self.source.at_time(time))


def readable_dtype(dtype: np.dtype[Any], where: object) -> np.dtype[Any]:
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind not in "uif":
        raise UserError(f"{where} holds {dtype} values; give an image of whole or real numbers")
    return dtype.newbyteorder("=")
