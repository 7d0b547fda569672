"""TIFF: pages, tiles and strips are decoded when they are asked for."""

from __future__ import annotations

import itertools
import math
import struct
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from napari_autosegnet.data.ome_tiff import OmeTiffImage, ome_tiff_image
from napari_autosegnet.data.stack import (
    Array,
    ArraySource,
    ImageStack,
    PixelSource,
    Triple,
    one_line,
    positive,
    stack_of_array,
    stem,
    time_point,
)
from napari_autosegnet.data.voxel_size import voxel_size
from napari_autosegnet.errors import UserError

if TYPE_CHECKING:
    import tifffile

TIFF_SUFFIXES = frozenset({".tif", ".tiff"})
#: Decoded TIFF segments kept for the next read; bounds the memory, whatever the file's size.
_SEGMENT_CACHE_BYTES = 64 * 2**20
#: Rows of a usual read: those of a block and its surroundings.
_USUAL_ROWS = 1280


def open_tiff(path: Path, time: int | None, *, alone: bool = False) -> ImageStack:
    """Open a TIFF; ``alone`` refuses a file that holds but a part of an image."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        if _goes_in_circles(file):
            raise UserError(f"{path} is damaged, its pages point in a circle; copy the file again")
        text = file.ome_metadata if file.is_ome else None
        image = ome_tiff_image(path, text) if text else None
        if image is not None and image.files != (path,):
            if alone:
                raise UserError(f"{path} is one of {len(image.files)} files of an OME-TIFF; give it, not its folder")
            _check_files(image.files, path)
        if image is None or image.xml is None:
            return _stack_of_file(file, path, time, image)
    # Micro-Manager's own index would bring all positions back.
    with tifffile.TiffFile(path, omexml=image.xml, is_mmstack=False) as file:
        return _stack_of_file(file, path, time, image)


def _check_files(files: Sequence[Path], path: Path) -> None:
    """Refuse a set with a damaged file, of which tifffile would make black planes."""
    import tifffile

    for other in files:
        if other == path or not other.is_file():
            continue
        try:
            with tifffile.TiffFile(other) as file:
                damaged = _goes_in_circles(file) or _is_cut_off(file)
        except (tifffile.TiffFileError, OSError, ValueError, IndexError, struct.error) as error:
            raise UserError(f"cannot open {other}, which {path} needs: {one_line(error)}") from error
        if damaged:
            raise UserError(f"{other}, which {path} needs, is damaged; copy the file again")


def _stack_of_file(file: tifffile.TiffFile, path: Path, time: int | None, image: OmeTiffImage | None) -> ImageStack:
    if not file.series:
        raise UserError(f"{path} holds no image; check the file")
    if _is_cut_off(file):
        raise UserError(f"{path} ends early, pages are missing; copy the file again")
    series = file.series[0]
    if len(file.series) > 1 and series.kind.lower() in ("generic", "uniform", "shaped"):
        time_point(None, time, path)
        return _stack_of_pages(file, path)
    scale, unit = _imagej_scale(file) if image is None else (image.scale, image.unit)
    axes, alpha = _tiff_axes(series, path)
    keyframe = series.keyframe
    leading = series.shape[: len(series.shape) - len(keyframe.shape)]
    by_page = series.shape[len(leading) :] == keyframe.shape and math.prod(leading) == len(series.pages)
    about: dict[str, Any] = {
        "name": stem(path),
        "path": path,
        "scale": scale,
        "unit": unit,
        "pyramid_levels": len(series.levels),
        "level_shapes": _level_shapes(series.levels, axes),
    }
    offset = None if series.is_multifile else series.dataoffset
    if offset is not None and keyframe.is_memmappable:
        dtype = np.dtype(series.dtype).newbyteorder(keyframe.parent.byteorder)
        array: Any = np.memmap(_file_of(keyframe), dtype, "r", offset, tuple(series.shape))
    elif by_page:
        array = _TiffPages(list(series.pages), keyframe, tuple(series.shape), np.dtype(series.dtype))
    else:  # pages of more than one plane: nothing to be had by laziness
        array = series.asarray()
    merged = _merge_samples(array, axes)
    if merged is not None:
        array, axes = merged
    chunks = None
    if keyframe.is_tiled:
        chunk = _segment_shape(keyframe)
        chunks = [chunk[axis.upper()] if axis in "yx" else 1 for axis in axes]
    elif isinstance(array, _TiffPages):
        about["sections_at_once"] = array.sections_at_once(series.shape[axes.index("c")] if "c" in axes else 1)
    return stack_of_array(array, axes, time=time, alpha=alpha, chunks=chunks, **about)


def _level_shapes(levels: Sequence[tifffile.TiffPageSeries], axes: Sequence[str]) -> list[tuple[int, int, int]]:
    """Shapes (z, y, x) of a series' levels, as far as they have its axes."""
    shapes = []
    for level in levels:
        if len(level.shape) != len(axes):
            break
        sizes = dict(zip(axes, level.shape, strict=True))
        shapes.append((sizes.get("z", 1), sizes["y"], sizes["x"]))
    return shapes


def _tiff_axes(series: tifffile.TiffPageSeries, path: Path) -> tuple[list[str], bool]:
    """Our names (t, c, z, y, x; s for samples beside channels) of a series' axes; whether alpha comes last."""
    found = series.axes
    inner = series.keyframe.axes
    if series.shape[-len(inner) :] == series.keyframe.shape:
        # Sides of one pixel confuse the guess of a series' axes; those of a page are sure.
        found = "".join("Q" if axis in inner else axis for axis in found[: -len(inner)]) + inner
    names = {"Y": "y", "X": "x", "Z": "z", "T": "t", "C": "c", "S": "s" if "C" in found else "c"}
    unnamed = [axis for axis in found if axis not in names]
    if len(unnamed) > 1 or (unnamed and "Z" in found):
        raise UserError(
            f"{path} has the axes {found}, of which {', '.join(unnamed)} could be anything; "
            "save it with the axes (T)(C)(Z)YX, for example as OME-TIFF"
        )
    for axis in unnamed:  # plain multi-page TIFF: the pages are the sections
        names[axis] = "z"
    samples = series.shape[found.index("S")] if "S" in found else 1
    alpha = samples in (2, 4) and bool(series.keyframe.extrasamples) and "C" not in found
    return [names[axis] for axis in found], alpha


def _merge_samples(array: Any, axes: list[str]) -> tuple[Array, list[str]] | None:
    """Channels of RGB samples each: one channel axis, read whole (rare)."""
    if "s" not in axes:
        return None
    whole = np.asarray(array[(slice(None),) * len(axes)])
    whole = np.moveaxis(whole, (axes.index("c"), axes.index("s")), (0, 1))
    rest = [axis for axis in axes if axis not in "cs"]
    return whole.reshape(-1, *whole.shape[2:]), ["c", *rest]


def _stack_of_pages(file: tifffile.TiffFile, path: Path) -> ImageStack:
    """Pages of different sizes: one section each."""
    pages = [page for page in (frame.aspage() for frame in file.pages) if not page.is_reduced]
    kinds = {(page.axes, page.dtype, page.shape[2:]) for page in pages}
    stacked = any(
        series.kind.lower() == "shaped" and len(series.shape) > len(series.keyframe.shape) for series in file.series
    )
    if len(kinds) > 1 or not pages or pages[0].axes not in ("YX", "YXS") or stacked:
        raise UserError(f"{path} holds images of different kinds; save each in a file of its own")
    samples = pages[0].shape[2] if pages[0].axes == "YXS" else 1
    alpha = samples in (2, 4) and bool(pages[0].extrasamples)
    axes = ["y", "x", "c"][: len(pages[0].axes)]
    arrays = [_TiffPages([page], page.keyframe, tuple(page.shape), np.dtype(page.dtype)) for page in pages]
    sources = [ArraySource(array, axes, 0, samples - alpha) for array in arrays]
    return ImageStack(
        _PagesSource(sources),
        name=stem(path),
        path=path,
        shapes=[(page.shape[0], page.shape[1]) for page in pages],
        channels=samples - alpha,
        dtype=np.dtype(pages[0].dtype),
    )


@dataclass
class _PagesSource:
    """Sections with a source each."""

    sources: Sequence[PixelSource]

    def read(self, z: slice, y: slice, x: slice) -> Array:
        return np.concatenate([self.sources[i].read(slice(0, 1), y, x) for i in range(z.start, z.stop)], axis=1)

    def files(self) -> Sequence[Path]:
        return list(dict.fromkeys(file for source in self.sources for file in source.files()))


@dataclass
class _TiffPages:
    """Pages of one or several TIFFs as one array that is indexed with whole numbers and plain slices.

    Only the strips or tiles under a request are read and decoded; a file is open only meanwhile.
    """

    pages: list[Any]
    keyframe: tifffile.TiffPage
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    _cache: OrderedDict[tuple[int, int], Array] = field(default_factory=OrderedDict, repr=False)
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
        # OME-TIFF may leave planes out.
        wanted = [
            (place, int(number)) for place, number in enumerate(numbers.ravel()) if self.pages[number] is not None
        ]
        with self._lock:
            for path, group in itertools.groupby(wanted, key=lambda one: _file_of(self.pages[one[1]])):
                with open(path, "rb") as handle:
                    for place, number in group:
                        self._read_page(handle, number, within, out[place])
        out = out.reshape((*numbers.shape, *extent))
        return out[tuple(0 if isinstance(part, int) else slice(None) for part in index)]

    @property
    def files(self) -> list[Path]:
        """The files that the pages lie in, each once."""
        return [Path(file) for file in dict.fromkeys(_file_of(page) for page in self.pages if page is not None)]

    def sections_at_once(self, channels: int) -> int:
        """Sections whose strips stay decoded while blocks beside each other are read: a strip has whole rows."""
        keyframe = self.keyframe
        strip = _segment_shape(keyframe)
        height, width = strip["Y"], strip["X"]
        rows = min(keyframe.imagelength, (math.ceil(_USUAL_ROWS / height) + 1) * height)
        return max(1, _SEGMENT_CACHE_BYTES // (rows * width * channels * self.dtype.itemsize))

    def _read_page(self, handle: BinaryIO, number: int, within: tuple[slice, ...], out: Array) -> None:
        page = self.pages[number]
        keyframe = page.keyframe
        axes = keyframe.axes  # YX, YXS or SYX
        y, x = within[axes.index("Y")], within[axes.index("X")]
        samples = within[axes.index("S")] if "S" in axes else slice(0, 1)
        into = np.moveaxis(out, axes.index("S"), 0) if "S" in axes else out[np.newaxis]
        chunk = _segment_shape(keyframe)
        height, width, count = (chunk.get(axis, 1) for axis in "YXS")
        for segment in range(len(page.dataoffsets)):
            top, left, first = _segment_origin(keyframe, segment)
            y0, y1 = max(top, y.start), min(top + height, y.stop)
            x0, x1 = max(left, x.start), min(left + width, x.stop)
            s0, s1 = max(first, samples.start), min(first + count, samples.stop)
            if y0 >= y1 or x0 >= x1 or s0 >= s1:
                continue
            decoded = self._segment(handle, number, segment)  # (s, y, x)
            piece = decoded[s0 - first : s1 - first, y0 - top : y1 - top, x0 - left : x1 - left]
            into[s0 - samples.start : s1 - samples.start, y0 - y.start : y1 - y.start, x0 - x.start : x1 - x.start] = (
                piece
            )

    def _segment(self, handle: BinaryIO, number: int, segment: int) -> Array:
        key = (number, segment)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        page = self.pages[number]
        keyframe = page.keyframe
        offset, size = page.dataoffsets[segment], page.databytecounts[segment]
        data = None
        if size:
            handle.seek(offset)
            data = handle.read(size)
            if len(data) < size:
                raise ValueError(f"{handle.name} ends within a page")
        tables = {"jpegtables": page.jpegtables} if getattr(page, "jpegtables", None) else {}
        decoded, _, shape = keyframe.decode(data, segment, **tables)
        if decoded is None:  # a segment that was never written
            found = np.full((shape[-1], *shape[1:3]), keyframe.nodata, self.dtype)
        else:
            found = np.moveaxis(decoded[0], -1, 0)
        self._cache[key] = found
        self._cached += found.nbytes
        while self._cached > _SEGMENT_CACHE_BYTES and len(self._cache) > 1:
            self._cached -= self._cache.popitem(last=False)[1].nbytes
        return found


def _file_of(page: Any) -> str:
    """The file that a page lies in: planes of an OME-TIFF may lie in files of their own."""
    return str(page.parent.filehandle.path)


def _segment_shape(keyframe: tifffile.TiffPage) -> dict[str, int]:
    """Size of a strip or tile by axis; planar samples are segments of their own."""
    axes = keyframe.axes[1:] if keyframe.axes.startswith("S") else keyframe.axes
    return {"S": 1, **dict(zip(axes, keyframe.chunks, strict=True))}


def _segment_origin(keyframe: tifffile.TiffPage, segment: int) -> tuple[int, int, int]:
    """First row, column and sample of a strip or tile."""
    place = dict(zip(keyframe.axes, np.unravel_index(segment, keyframe.chunked), strict=True))
    size = _segment_shape(keyframe)
    row, column, sample = (int(place.get(axis, 0)) * size.get(axis, 1) for axis in "YXS")
    return row, column, sample


def _goes_in_circles(file: tifffile.TiffFile) -> bool:
    """Whether more pages are found than the file has room for; each would be opened, for hours, until memory ends.

    Counting comes first in any case: tifffile notices circles when it counts pages, not when it goes through them.
    """
    layout = file.tiff
    smallest = layout.tagnosize + layout.tagsize + layout.offsetsize
    return len(file.pages) * smallest > file.filehandle.size


def _is_cut_off(file: tifffile.TiffFile) -> bool:
    """Whether the last page that was found points to another one: the file is incomplete."""
    handle, layout = file.filehandle, file.tiff
    last = file.pages[len(file.pages) - 1].offset
    handle.seek(last)
    (tags,) = struct.unpack(layout.tagnoformat, handle.read(layout.tagnosize))
    handle.seek(last + layout.tagnosize + tags * layout.tagsize)
    following: tuple[int] = struct.unpack(layout.offsetformat, handle.read(layout.offsetsize))
    return following[0] != 0


def _imagej_scale(file: tifffile.TiffFile) -> tuple[Triple, str | None]:
    """Voxel size ``(z, y, x)`` and unit from ImageJ metadata; (1, 1, 1) when there is none.

    Plain resolution tags (dots per inch) are left aside: they are hardly ever the microscope's.
    """
    about = file.imagej_metadata if file.is_imagej else None
    unit = str((about or {}).get("unit") or "pixel")
    if not about or unit.lower() in ("pixel", "pixels"):
        return (1.0, 1.0, 1.0), None
    tags = file.pages[0].aspage().tags
    steps = []
    for name in ("YResolution", "XResolution"):
        numerator, denominator = tags[name].value if name in tags else (0, 1)
        steps.append(denominator / numerator if numerator and denominator else 1.0)
    return voxel_size([positive(about.get("spacing")), *steps], [unit] * 3)
