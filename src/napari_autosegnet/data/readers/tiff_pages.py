"""Pages of TIFFs as one array, of which only the strips and tiles under a request are read and decoded."""

from __future__ import annotations

import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from napari_autosegnet.data.stack import Array
from napari_autosegnet.errors import UserError, is_out_of_memory

if TYPE_CHECKING:
    import tifffile

#: Endings of TIFFs, also those of large ones, of Zeiss microscopes, and of slide scanners.
TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf2", ".tf8", ".lsm", ".svs", ".ndpi")
#: Decoded TIFF segments kept for the next read; bounds the memory, whatever the file's size.
SEGMENT_CACHE_BYTES = 64 * 2**20
#: Rows of a usual read: those of a block and its surroundings.
_USUAL_ROWS = 1280


@dataclass
class TiffPages:
    """Pages of one or several TIFFs as one array that is indexed with whole numbers and plain slices.

    A file is open only while it is read. Several threads may read; they wait for each other.
    """

    pages: list[Any]
    keyframe: tifffile.TiffPage
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    segments: OrderedDict[tuple[int, int], Array] = field(default_factory=OrderedDict, repr=False)
    _cached: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __getitem__(self, index: tuple[int | slice, ...]) -> Array:
        leading = len(self.shape) - len(self.keyframe.shape)
        whole = [
            slice(part, part + 1) if isinstance(part, int) else slice(*part.indices(size)[:2])
            for part, size in zip(index, self.shape, strict=True)
        ]
        numbers = np.arange(len(self.pages)).reshape(self.shape[:leading])[tuple(whole[:leading])]
        within = tuple(whole[leading:])
        extent = tuple(part.stop - part.start for part in within)
        out = np.zeros((numbers.size, *extent), self.dtype)
        wanted = [(place, int(number)) for place, number in enumerate(numbers.ravel())]
        with self._lock:
            for path, group in itertools.groupby(wanted, key=lambda one: file_of(self.pages[one[1]])):
                with open(path, "rb") as handle:
                    for place, number in group:
                        self._read_page(handle, number, within, out[place])
        out = out.reshape((*numbers.shape, *extent))
        return out[tuple(0 if isinstance(part, int) else slice(None) for part in index)]

    @property
    def files(self) -> list[Path]:
        """The files that the pages lie in, each once."""
        return [Path(file) for file in dict.fromkeys(file_of(page) for page in self.pages if page is not None)]

    def sections_at_once(self, channels: int) -> int:
        """Sections whose strips stay decoded while blocks beside each other are read: a strip has whole rows."""
        keyframe = self.keyframe
        strip = segment_shape(keyframe)
        height, width = strip["Y"], strip["X"]
        rows = min(keyframe.imagelength, (math.ceil(_USUAL_ROWS / height) + 1) * height)
        return max(1, SEGMENT_CACHE_BYTES // (rows * width * channels * self.dtype.itemsize))

    def _read_page(self, handle: BinaryIO, number: int, within: tuple[slice, ...], out: Array) -> None:
        keyframe = self.pages[number].keyframe
        axes = keyframe.axes  # YX, YXS or SYX
        wanted = {axis: within[axes.index(axis)] if axis in axes else slice(0, 1) for axis in "YXS"}
        into = np.moveaxis(out, axes.index("S"), 0) if "S" in axes else out[np.newaxis]
        size = segment_shape(keyframe)
        for segment, first in _segments(keyframe, wanted):
            both = {axis: _common(wanted[axis], first[axis], size[axis]) for axis in "SYX"}
            inside = tuple(slice(a - first[axis], b - first[axis]) for axis, (a, b) in both.items())
            place = tuple(slice(a - wanted[axis].start, b - wanted[axis].start) for axis, (a, b) in both.items())
            into[place] = self.segment_of(handle, number, segment)[inside]

    def segment_of(self, handle: BinaryIO, number: int, segment: int) -> Array:
        """A decoded strip or tile ``(s, y, x)``."""
        key = (number, segment)
        if key in self.segments:
            self.segments.move_to_end(key)
            return self.segments[key]
        page = self.pages[number]
        offset, size = page.dataoffsets[segment], page.databytecounts[segment]
        data = None
        if size:
            handle.seek(offset)
            data = handle.read(size)
            if len(data) < size:
                raise ValueError(f"{handle.name} ends within a page; copy the file again")
        pixels = _decoded(page, data, segment, self.dtype)
        self.segments[key] = pixels
        self._cached += pixels.nbytes
        while self._cached > SEGMENT_CACHE_BYTES and len(self.segments) > 1:
            self._cached -= self.segments.popitem(last=False)[1].nbytes
        return pixels


def prepare_decoders(pages: Sequence[Any]) -> None:
    """Let tifffile make the decoders of all pages, for which it looks into their files.

    Raises
    ------
    UserError
        When the pages are compressed in a way that nothing here can decode.
    """
    keyframes = {id(page.keyframe): page.keyframe for page in pages if page is not None}
    for keyframe in keyframes.values():
        _check_codec(keyframe)
        handle = keyframe.parent.filehandle
        was_closed = handle.closed
        if was_closed:
            handle.open()
        try:
            _ = keyframe.decode  # made once, and kept
        finally:
            if was_closed:
                handle.close()


def file_of(page: Any) -> str:
    """The file that a page lies in: planes of an OME-TIFF may lie in files of their own."""
    return str(page.parent.filehandle.path)


def segment_shape(keyframe: tifffile.TiffPage) -> dict[str, int]:
    """Size of a strip or tile by axis; planar samples are segments of their own."""
    axes = keyframe.axes[1:] if keyframe.axes.startswith("S") else keyframe.axes
    return {"S": 1, **dict(zip(axes, keyframe.chunks, strict=True))}


def compression_name(keyframe: tifffile.TiffPage) -> str:
    return str(getattr(keyframe.compression, "name", keyframe.compression)).replace("_", " ")


def _check_codec(keyframe: tifffile.TiffPage) -> None:
    from tifffile import TIFF

    advice = "save it without compression, or with LZW, Deflate or Zstd"
    where = f"{file_of(keyframe)} is compressed with {compression_name(keyframe)}"
    try:
        decoder: Any = TIFF.DECOMPRESSORS[keyframe.compression]
        decoder(None)
    except (KeyError, ModuleNotFoundError) as error:
        # Without imagecodecs, tifffile tries the standard library's Zstd, which older Pythons lack.
        if "imagecodecs" in str(error) or isinstance(error, ModuleNotFoundError):
            raise UserError(
                f"{where}, which needs the package imagecodecs; install it: pip install imagecodecs"
            ) from error
        raise UserError(f"{where}, which cannot be read; {advice}") from error
    except ImportError as error:
        raise UserError(f"{where}, which the installed imagecodecs cannot decode; {advice}") from error
    except Exception:  # None is no compressed data: each decoder says so in its own way, and is there
        return


def _decoded(page: Any, data: bytes | None, segment: int, dtype: np.dtype[Any]) -> Array:
    keyframe = page.keyframe
    try:
        decoded, _, shape = keyframe.decode(data, segment, jpegtables=page.jpegtables, jpegheader=keyframe.jpegheader)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        kind = "pixels" if keyframe.compression == 1 else f"{compression_name(keyframe)} data"
        raise ValueError(f"the {kind} in {file_of(page)} are damaged; copy the file again") from error
    if decoded is None:  # a segment that was never written
        return np.full((shape[-1], *shape[1:3]), keyframe.nodata, dtype)
    pixels: Array = np.moveaxis(decoded[0], -1, 0)
    return pixels


def _segments(keyframe: tifffile.TiffPage, wanted: dict[str, slice]) -> Iterator[tuple[int, dict[str, int]]]:
    """Numbers of the strips or tiles under a request, and where each begins."""
    size = segment_shape(keyframe)
    numbers = []
    for axis, count in zip(keyframe.axes, keyframe.chunked, strict=True):
        side, part = size.get(axis, 1), wanted[axis]
        numbers.append(range(part.start // side, min(count, math.ceil(part.stop / side))))
    for place in itertools.product(*numbers):
        segment = int(np.ravel_multi_index(place, keyframe.chunked))
        first = {axis: number * size.get(axis, 1) for axis, number in zip(keyframe.axes, place, strict=True)}
        yield segment, {"S": 0, **first}


def _common(wanted: slice, first: int, count: int) -> tuple[int, int]:
    """First and last but one of what a request and a segment share along an axis."""
    return max(first, wanted.start), min(first + count, wanted.stop)
