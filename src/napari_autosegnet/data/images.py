"""Images of every kind, opened lazily: one way to read them all.

An `ImageStack` is a series of sections ``(c, y, x)``. TIFF pages and tiles are decoded when they are
asked for, Zarr chunks and memory-mapped files are touched only where a read falls on them. Physical
scale, translation and unit travel with the image.
"""

from __future__ import annotations

import json
import math
import re
import struct
import threading
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_autosegnet.errors import UserError

if TYPE_CHECKING:
    import tifffile
    import zarr

Array = npt.NDArray[Any]
Triple = tuple[float, float, float]

TIFF_SUFFIXES = frozenset({".tif", ".tiff"})
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp"})
_ZARR_FILES = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
#: Decoded TIFF segments kept for the next read; bounds the memory, whatever the file's size.
_SEGMENT_CACHE_BYTES = 64 * 2**20

_UNITS = {
    "µm": "micrometer",
    "μm": "micrometer",
    "um": "micrometer",
    "\\u00b5m": "micrometer",
    "micron": "micrometer",
    "microns": "micrometer",
    "nm": "nanometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
    "å": "angstrom",
    "inch": "inch",
}


class _Source(Protocol):
    """Where the pixels come from."""

    def read(self, z: slice, y: slice, x: slice) -> Array:
        """Region of uniform sections as ``(c, z, y, x)``; the slices are plain (start, stop, step 1)."""
        ...


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
    section_names : tuple of str or None
        File names without ending when every section is a file of its own.
    """

    def __init__(
        self,
        source: _Source,
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
        section_names: tuple[str, ...] | None = None,
    ) -> None:
        self._source = source
        self._shapes = tuple((int(height), int(width)) for height, width in shapes)
        self.name = name
        self.path = path
        self.channels = int(channels)
        self.dtype = _readable_dtype(np.dtype(dtype), path or name)
        self.scale = scale
        self.translation = translation
        self.unit = unit
        self.is_2d = is_2d
        self.pyramid_levels = pyramid_levels
        self.chunks = chunks
        self.section_names = section_names
        if not self._shapes or self.channels < 1 or any(0 in shape for shape in self._shapes):
            raise UserError(f"{path or name} holds no pixels; give an image of at least one pixel per axis")
        self._uniform = len(set(self._shapes)) == 1

    def __repr__(self) -> str:
        size = "x".join(map(str, self._shapes[0])) if self._uniform else "mixed sizes"
        return f"<ImageStack {self.name}: {self.sections} sections of {size}, {self.channels} channels, {self.dtype}>"

    @property
    def sections(self) -> int:
        """Number of z planes."""
        return len(self._shapes)

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

        Slices have step 1 and are cut at the stack's borders, as in numpy.

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

    def section(self, section: int) -> Array:
        """One whole section as ``(c, y, x)``."""
        if not 0 <= section < self.sections:
            raise IndexError(f"section {section} of {self.sections}")
        height, width = self._shapes[section]
        return self._read(slice(section, section + 1), slice(0, height), slice(0, width))[:, 0]

    def _read(self, z: slice, y: slice, x: slice) -> Array:
        try:
            found = self._source.read(z, y, x)
        except UserError:
            raise
        except Exception as error:  # decoders raise whatever they like on damaged files
            where = self.path or self.name
            raise UserError(f"cannot read {where}, sections {z.start}-{z.stop - 1}: {_one_line(error)}") from error
        return np.ascontiguousarray(found, dtype=self.dtype)

    def _need_uniform(self) -> None:
        if not self._uniform:
            raise UserError(f"the sections of {self.path or self.name} differ in size; give images of one size")


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
            f"section {index} of {image.path or image.name} has {bad} pixels that are NaN or infinite; "
            "replace them (for example by 0) before training"
        )


def open_image(path: str | Path, *, time: int | None = None) -> ImageStack:
    """Open a TIFF, PNG, JPEG, a folder of those, a .npy file, a Zarr array or an OME-Zarr image.

    Parameters
    ----------
    path : str or Path
        TIFF: multi-page, RGB, OME and ImageJ axes. A folder of images is one stack, in natural order
        of the names, and its images may differ in size. Zarr: version 2 or 3; OME-Zarr: 0.4 or 0.5,
        level 0.
    time : int, optional
        Time point to read, needed when there are several.

    Raises
    ------
    UserError
        When there is no such file, it is of another kind or damaged, its pixels are no real numbers,
        it has axes that cannot be told apart, or it has several time points and ``time`` is not given.
    """
    return _open(Path(path), time, labels=False)


def open_labels(path: str | Path, *, time: int | None = None) -> ImageStack:
    """Open a label image: as `open_image`, but palette pictures are read as their indices."""
    return _open(Path(path), time, labels=True)


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
    return _stack_of_array(
        array, axes, name=name, scale=_triple(scale, 1.0), translation=_triple(translation, 0.0), time=None
    )


# ---------------------------------------------------------------- opening


def _open(path: Path, time: int | None, *, labels: bool) -> ImageStack:
    if not path.exists():
        raise UserError(f"there is no file or folder {path}; check the path")
    try:
        if path.is_dir():
            if any((path / name).exists() for name in _ZARR_FILES):
                return _open_zarr(path, time)
            return _open_folder(path, labels=labels)
        suffix = path.suffix.lower()
        if suffix in TIFF_SUFFIXES:
            return _open_tiff(path, time)
        if suffix in PICTURE_SUFFIXES:
            return _stack_of_files([path], path, is_2d=True, labels=labels)
        if suffix == ".npy":
            return _open_npy(path, time)
    except UserError:
        raise
    except Exception as error:  # each library has errors of its own for damaged files
        raise UserError(f"cannot open {path}: {_one_line(error)}") from error
    raise UserError(
        f"{path} is of no kind that can be read; give TIFF, PNG, JPEG, BMP, .npy, Zarr, OME-Zarr or a folder of images"
    )


def _open_npy(path: Path, time: int | None) -> ImageStack:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return _stack_of_unnamed(array, path, time)


def _stack_of_unnamed(array: Any, path: Path, time: int | None) -> ImageStack:
    """Stack over an array whose axes have no names: ``[z,] y, x`` and a last axis of 3 or 4 is RGB(A)."""
    shape = array.shape
    colour = len(shape) in (3, 4) and shape[-1] in (3, 4)
    spatial = len(shape) - colour
    if spatial not in (2, 3):
        raise UserError(
            f"{path} has {len(shape)} axes without names; save it as (z, y, x) or as OME-TIFF or OME-Zarr, "
            "which name their axes"
        )
    axes = [*"zyx"[-spatial:], *(["c"] if colour else [])]
    return _stack_of_array(array, axes, name=_stem(path), path=path, time=time, alpha=colour and shape[-1] == 4)


@dataclass
class _ArraySource:
    """Anything indexed like a numpy array; ``axes`` are its axes by name (t, c, z, y, x)."""

    array: Any
    axes: Sequence[str]
    time: int
    channels: int

    def read(self, z: slice, y: slice, x: slice) -> Array:
        where: dict[str, Any] = {"t": self.time, "c": slice(0, self.channels), "z": z, "y": y, "x": x}
        found = np.asarray(self.array[tuple(where[axis] for axis in self.axes)])
        left = [axis for axis in self.axes if axis != "t"]
        found = found.transpose([left.index(axis) for axis in "czyx" if axis in left])
        if "z" not in left:
            found = found[..., np.newaxis, :, :]
        return found if "c" in left else found[np.newaxis]


def _stack_of_array(
    array: Any,
    axes: Sequence[str],
    *,
    name: str,
    time: int | None,
    alpha: bool = False,
    chunks: Sequence[int] | None = None,
    path: Path | None = None,
    **about: Any,
) -> ImageStack:
    sizes = dict(zip(axes, array.shape, strict=True))
    if not {"y", "x"} <= set(axes):
        raise UserError(f"{path or name} has the axes {', '.join(axes)}; an image needs y and x")
    channels = sizes.get("c", 1) - alpha
    by_axis = dict(zip(axes, chunks, strict=True)) if chunks else {}
    return ImageStack(
        _ArraySource(array, list(axes), _time_point(sizes.get("t"), time, path or name), channels),
        name=name,
        path=path,
        shapes=[(sizes["y"], sizes["x"])] * sizes.get("z", 1),
        channels=channels,
        dtype=array.dtype,
        is_2d="z" not in axes,
        chunks=(by_axis.get("z", 1), by_axis["y"], by_axis["x"]) if by_axis else None,
        **about,
    )


def _time_point(points: int | None, time: int | None, where: object) -> int:
    """Index on the time axis, or the error that says what to choose."""
    if points is None or points == 1:
        if time not in (None, 0):
            raise UserError(f"{where} has one time point, so time point {time} cannot be read; leave it out")
        return 0
    if time is None:
        raise UserError(f"{where} has {points} time points; say which one to read (0 to {points - 1})")
    if not 0 <= time < points:
        raise UserError(f"{where} has the time points 0 to {points - 1}, not {time}; choose one of them")
    return time


# ---------------------------------------------------------------- pictures and folders


def _open_folder(folder: Path, *, labels: bool) -> ImageStack:
    files = [
        file
        for file in folder.iterdir()
        if file.suffix.lower() in TIFF_SUFFIXES | PICTURE_SUFFIXES and not file.name.startswith(".")
    ]
    if not files:
        raise UserError(f"the folder {folder} holds no TIFF, PNG, JPEG or BMP image and is no Zarr store")
    return _stack_of_files(sorted(files, key=lambda file: natural_key(file.name)), folder, is_2d=False, labels=labels)


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key by which ``slice2`` comes before ``slice10``."""
    parts = re.split(r"(\d+)", text.lower())
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]


@dataclass
class _FilesSource:
    """One file per section. The last one decoded is kept: blocks of one section are read one by one."""

    files: Sequence[Path]
    labels: bool
    _last: tuple[int, Array] | None = None

    def read(self, z: slice, y: slice, x: slice) -> Array:
        return np.stack([self._section(index)[:, y, x] for index in range(z.start, z.stop)], axis=1)

    def _section(self, index: int) -> Array:
        last = self._last
        if last is None or last[0] != index:
            file = self.files[index]
            if file.suffix.lower() in TIFF_SUFFIXES:
                found = _open_tiff(file, None).section(0)
            else:
                found = _read_picture(file, labels=self.labels)
            last = self._last = (index, found)
        return last[1]


def _stack_of_files(files: Sequence[Path], path: Path, *, is_2d: bool, labels: bool) -> ImageStack:
    shapes, kinds = [], []
    for file in files:
        if file.suffix.lower() in TIFF_SUFFIXES:
            single = _open_tiff(file, None)
            if single.sections > 1:
                raise UserError(f"{file} has {single.sections} pages; a folder holds one section per file")
            shapes.append(single.section_shape(0))
            kinds.append((single.channels, single.dtype))
        else:
            shape, channels, dtype = _describe_picture(file, labels=labels)
            shapes.append(shape)
            kinds.append((channels, dtype))
    for file, kind in zip(files, kinds, strict=True):
        if kind != kinds[0]:
            first, other = (f"{dtype} with {channels} channels" for channels, dtype in (kinds[0], kind))
            raise UserError(f"{file.name} is {other}, {files[0].name} is {first}; give images of one kind in {path}")
    return ImageStack(
        _FilesSource(files, labels),
        name=_stem(path),
        path=path,
        shapes=shapes,
        channels=kinds[0][0],
        dtype=kinds[0][1],
        is_2d=is_2d,
        section_names=tuple(file.stem for file in files),
    )


def _picture_mode(mode: str, *, labels: bool) -> tuple[str | None, int, npt.DTypeLike]:
    """What a Pillow mode is turned into (None: read as it is), its channels and pixel type."""
    if mode == "P":
        # In a label picture the palette only colours the class numbers.
        return (None, 1, np.uint8) if labels else ("RGB", 3, np.uint8)
    if mode == "1":
        return None, 1, np.uint8
    if mode in ("L", "LA", "La"):
        return (None if mode == "L" else "L"), 1, np.uint8
    if mode.startswith("I;16"):
        return None, 1, np.uint16
    if mode in ("I", "F"):
        return None, 1, np.int32 if mode == "I" else np.float32
    return (None if mode == "RGB" else "RGB"), 3, np.uint8


def _describe_picture(file: Path, *, labels: bool) -> tuple[tuple[int, int], int, np.dtype[Any]]:
    from PIL import Image

    with warnings.catch_warnings():
        # Sections of more than 90 megapixels are ordinary here, not an attack.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(file) as picture:
                _, channels, dtype = _picture_mode(picture.mode, labels=labels)
                return (picture.height, picture.width), channels, np.dtype(dtype)
        except Image.DecompressionBombError as error:
            raise UserError(f"{file} is too large for a picture file; save it as TIFF or Zarr") from error


def _read_picture(file: Path, *, labels: bool) -> Array:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(file) as picture:
            mode, channels, dtype = _picture_mode(picture.mode, labels=labels)
            found = np.asarray(picture.convert(mode) if mode else picture).astype(dtype, copy=False)
    return np.moveaxis(found, -1, 0) if channels > 1 else found[np.newaxis]


# ---------------------------------------------------------------- TIFF


def _open_tiff(path: Path, time: int | None) -> ImageStack:
    import tifffile

    with tifffile.TiffFile(path) as file:
        if not file.series:
            raise UserError(f"{path} holds no image; check the file")
        if _is_cut_off(file):
            raise UserError(f"{path} ends early, pages are missing; copy the file again")
        series = file.series[0]
        if len(file.series) > 1 and series.kind.lower() in ("generic", "uniform", "shaped"):
            return _stack_of_pages(file, path)
        scale, unit = _tiff_scale(file)
        axes, alpha = _tiff_axes(series, path)
        keyframe = series.keyframe
        leading = series.shape[: len(series.shape) - len(keyframe.shape)]
        by_page = series.shape[len(leading) :] == keyframe.shape and math.prod(leading) == len(series.pages)
        about: dict[str, Any] = {
            "name": _stem(path),
            "path": path,
            "scale": scale,
            "unit": unit,
            "pyramid_levels": len(series.levels),
        }
        if series.dataoffset is not None and keyframe.is_memmappable:
            array: Any = tifffile.memmap(path, mode="r")
        elif by_page:
            array = _TiffPages(file, list(series.pages), tuple(series.shape), np.dtype(series.dtype))
        else:  # pages of more than one plane: nothing to be had by laziness
            array = series.asarray()
        merged = _merge_samples(array, axes)
        if merged is not None:
            array, axes = merged
        chunks = None
        if keyframe.is_tiled:
            chunk = _segment_shape(keyframe)
            chunks = [chunk[axis.upper()] if axis in "yx" else 1 for axis in axes]
        return _stack_of_array(array, axes, time=time, alpha=alpha, chunks=chunks, **about)


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
    arrays = [_TiffPages(file, [page], tuple(page.shape), np.dtype(page.dtype)) for page in pages]
    sources = [_ArraySource(array, axes, 0, samples - alpha) for array in arrays]
    return ImageStack(
        _PagesSource(sources),
        name=_stem(path),
        path=path,
        shapes=[(page.shape[0], page.shape[1]) for page in pages],
        channels=samples - alpha,
        dtype=np.dtype(pages[0].dtype),
    )


@dataclass
class _PagesSource:
    """Sections with a source each."""

    sources: Sequence[_Source]

    def read(self, z: slice, y: slice, x: slice) -> Array:
        return np.concatenate([self.sources[i].read(slice(0, 1), y, x) for i in range(z.start, z.stop)], axis=1)


@dataclass
class _TiffPages:
    """Pages of a TIFF as one array that is indexed with whole numbers and plain slices.

    Only the strips or tiles under a request are read and decoded; the file is open only meanwhile.
    """

    file: tifffile.TiffFile
    pages: list[Any]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    _cache: OrderedDict[tuple[int, int], Array] = field(default_factory=OrderedDict, repr=False)
    _cached: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __getitem__(self, index: tuple[int | slice, ...]) -> Array:
        keyframe = self.pages[0].keyframe
        leading = len(self.shape) - len(keyframe.shape)
        whole = [
            slice(part, part + 1) if isinstance(part, int) else slice(*part.indices(size)[:2])
            for part, size in zip(index, self.shape, strict=True)
        ]
        numbers = np.arange(len(self.pages)).reshape(self.shape[:leading])[tuple(whole[:leading])]
        within = tuple(whole[leading:])
        extent = tuple(part.stop - part.start for part in within)
        out = np.zeros((numbers.size, *extent), self.dtype)
        with self._lock:
            handle = self.file.filehandle
            handle.open()
            try:
                for place, number in enumerate(numbers.ravel()):
                    if self.pages[number] is not None:  # OME-TIFF may leave planes out
                        self._read_page(int(number), within, out[place])
            finally:
                handle.close()
        out = out.reshape((*numbers.shape, *extent))
        return out[tuple(0 if isinstance(part, int) else slice(None) for part in index)]

    def _read_page(self, number: int, within: tuple[slice, ...], out: Array) -> None:
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
            decoded = self._segment(number, segment)  # (s, y, x)
            piece = decoded[s0 - first : s1 - first, y0 - top : y1 - top, x0 - left : x1 - left]
            into[s0 - samples.start : s1 - samples.start, y0 - y.start : y1 - y.start, x0 - x.start : x1 - x.start] = (
                piece
            )

    def _segment(self, number: int, segment: int) -> Array:
        key = (number, segment)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        page = self.pages[number]
        keyframe = page.keyframe
        offset, size = page.dataoffsets[segment], page.databytecounts[segment]
        data = None
        if size:
            self.file.filehandle.seek(offset)
            data = self.file.filehandle.read(size)
            if len(data) < size:
                raise ValueError(f"the file ends within page {number}")
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


def _is_cut_off(file: tifffile.TiffFile) -> bool:
    """Whether the last page that was found points to another one: the file is incomplete."""
    handle, layout = file.filehandle, file.tiff
    last = file.pages[len(file.pages) - 1].offset
    handle.seek(last)
    (tags,) = struct.unpack(layout.tagnoformat, handle.read(layout.tagnosize))
    handle.seek(last + layout.tagnosize + tags * layout.tagsize)
    following: tuple[int] = struct.unpack(layout.offsetformat, handle.read(layout.offsetsize))
    return following[0] != 0


def _tiff_scale(file: tifffile.TiffFile) -> tuple[Triple, str | None]:
    """Voxel size ``(z, y, x)`` and unit from OME or ImageJ metadata; (1, 1, 1) when there is none.

    Plain resolution tags (dots per inch) are left aside: they are hardly ever the microscope's.
    """
    if file.is_ome and file.ome_metadata:
        import tifffile

        image = tifffile.xml2dict(file.ome_metadata).get("OME", {}).get("Image", {})
        image = image[0] if isinstance(image, list) else image
        pixels = image.get("Pixels", {})
        sizes = [_positive(pixels.get(f"PhysicalSize{axis}")) for axis in "ZYX"]
        if any(size is not None for size in sizes):
            unit = str(pixels.get("PhysicalSizeXUnit", "µm"))
            return _triple([1.0 if size is None else size for size in sizes], 1.0), _UNITS.get(unit.lower(), unit)
    elif file.is_imagej and file.imagej_metadata:
        about = file.imagej_metadata
        unit = str(about.get("unit") or "pixel")
        if unit.lower() in ("pixel", "pixels"):
            return (1.0, 1.0, 1.0), None
        tags = file.pages[0].aspage().tags
        steps = []
        for name in ("YResolution", "XResolution"):
            numerator, denominator = tags[name].value if name in tags else (0, 1)
            steps.append(denominator / numerator if numerator and denominator else 1.0)
        depth = _positive(about.get("spacing")) or 1.0
        return (depth, steps[0], steps[1]), _UNITS.get(unit.lower(), unit)
    return (1.0, 1.0, 1.0), None


# ---------------------------------------------------------------- Zarr


def _open_zarr(path: Path, time: int | None) -> ImageStack:
    import zarr

    node = zarr.open(path, mode="r")
    if isinstance(node, zarr.Array):
        parent = _parent_multiscales(path)
        if parent is not None:
            return _open_level(node, parent, path.name, path, time, levels=1)
        return _open_plain_zarr(node, path, time)
    attributes = _attributes(node)
    if "multiscales" in attributes:
        multiscales = attributes["multiscales"]
        if not isinstance(multiscales, list) or not multiscales or not isinstance(multiscales[0], dict):
            raise UserError(f"the OME-Zarr metadata of {path} is damaged: 'multiscales' is no list of images")
        image = multiscales[0]
        first = _multiscale(image, path).datasets[0].path
        if first not in node:
            raise UserError(f"{path} lacks its full-resolution array '{first}'; the store is incomplete")
        level = node[first]
        if not isinstance(level, zarr.Array):
            raise UserError(f"'{first}' in {path} is no array; the store is damaged")
        return _open_level(level, image, first, path, time, levels=len(image["datasets"]))
    if "plate" in attributes or "well" in attributes:
        raise UserError(f"{path} is an OME-Zarr plate; give one image of it, for example {path / 'A' / '1' / '0'}")
    names = sorted((name for name, _ in node.members()), key=natural_key)
    if "bioformats2raw.layout" in attributes:
        names = [name for name in names if name != "OME"]
    if len(names) == 1:
        return _open_zarr(path / names[0], time)
    if not names:
        raise UserError(f"the Zarr group {path} is empty; give a store that holds an image")
    raise UserError(f"{path} is a Zarr group, not an image; give one of {', '.join(names[:8])} in it")


def _attributes(group: zarr.Group) -> dict[str, Any]:
    """OME metadata of a group: beside the others in 0.4, under ``ome`` in 0.5."""
    attributes = dict(group.attrs)
    inner = attributes.get("ome")
    return dict(inner) if isinstance(inner, Mapping) else attributes


def _parent_multiscales(path: Path) -> dict[str, Any] | None:
    """The image that an array is a level of, if the folder above says so."""
    import zarr

    folder = path.resolve().parent
    if not any((folder / name).exists() for name in ("zarr.json", ".zattrs")):
        return None
    try:
        node = zarr.open_group(folder, mode="r")
    except Exception:  # the folder above is no group: then the array stands alone
        return None
    for image in _attributes(node).get("multiscales") or []:
        if any(level.get("path") == path.name for level in image.get("datasets", [])):
            return dict(image)
    return None


def _multiscale(image: Mapping[str, Any], path: Path) -> Any:
    """One entry of ``multiscales`` as a model; 0.4 and 0.5 have the same."""
    from pydantic import ValidationError
    from yaozarrs import v04, v05

    version: Any = v04 if image.get("version", "0.5") == "0.4" else v05
    content = {key: value for key, value in image.items() if key != "version"} if version is v05 else dict(image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the standard only recommends
        try:
            return version.Multiscale.model_validate_json(json.dumps(content))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "multiscales"
            raise UserError(
                f"the OME-Zarr metadata of {path} cannot be read at '{place}': {_one_line(first['msg'])}"
            ) from error


def _open_level(
    array: zarr.Array[Any], image: Mapping[str, Any], level: str, path: Path, time: int | None, *, levels: int
) -> ImageStack:
    model = _multiscale(image, path)
    axes = [axis.name.lower() for axis in model.axes]
    kinds = [getattr(axis, "type", None) for axis in model.axes]
    names = [{"time": "t", "channel": "c"}.get(str(kind), axis) for axis, kind in zip(axes, kinds, strict=True)]
    if len(set(names)) != len(names) or set(names) - set("tczyx") or len(names) != len(array.shape):
        raise UserError(f"{path} has the axes {', '.join(axes)}; an image has y, x and at most t, c and z")
    dataset = next(entry for entry in model.datasets if entry.path == level)
    scale, translation = _placed(dataset.coordinateTransformations, len(names))
    outer_scale, outer_translation = _placed(model.coordinateTransformations or [], len(names))
    scale, translation = scale * outer_scale, translation * outer_scale + outer_translation
    place = {axis: index for index, axis in enumerate(names)}
    units = [getattr(axis, "unit", None) for axis in model.axes]
    step = [float(scale[place[axis]]) if axis in place else 1.0 for axis in "zyx"]
    origin = [float(translation[place[axis]]) if axis in place else 0.0 for axis in "zyx"]
    return _stack_of_array(
        array,
        names,
        name=_stem(path),
        path=path,
        time=time,
        chunks=array.chunks,
        scale=_triple(step, 1.0),
        translation=_triple(origin, 0.0),
        unit=units[place["x"]] if "x" in place else None,
        pyramid_levels=levels,
    )


def _placed(transformations: Sequence[Any], dimensions: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Scale and translation that a list of transformations comes to."""
    scale, translation = np.ones(dimensions), np.zeros(dimensions)
    for step in transformations:
        if step.type == "scale":
            scale, translation = scale * step.scale, translation * step.scale
        elif step.type == "translation":
            translation = translation + step.translation
    return scale, translation


def _open_plain_zarr(array: zarr.Array[Any], path: Path, time: int | None) -> ImageStack:
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if isinstance(names, Sequence) and not isinstance(names, str) and len(names) == len(array.shape):
        short = {"time": "t", "channel": "c", "channels": "c"}
        axes = [short.get(name, name) for name in (str(name).lower() for name in names)]
        if {"y", "x"} <= set(axes) <= set("tczyx"):
            return _stack_of_array(array, axes, name=_stem(path), path=path, time=time, chunks=array.chunks)
    stack = _stack_of_unnamed(array, path, time)
    spatial = array.chunks[:-1] if stack.channels > 1 else array.chunks
    stack.chunks = (1, *spatial) if len(spatial) == 2 else (spatial[0], spatial[1], spatial[2])
    return stack


# ---------------------------------------------------------------- small things


def _readable_dtype(dtype: np.dtype[Any], where: object) -> np.dtype[Any]:
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind not in "uif":
        raise UserError(f"{where} holds {dtype} values; give an image of whole or real numbers")
    return dtype.newbyteorder("=")


def _triple(values: Sequence[float] | None, missing: float) -> Triple:
    """Numbers per axis as ``(z, y, x)``; what is not said is ``missing``."""
    known = [float(value) for value in values or ()][-3:]
    filled = [missing] * (3 - len(known)) + known
    return filled[0], filled[1], filled[2]


def _positive(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _stem(path: Path) -> str:
    name = path.resolve().name
    return re.sub(r"\.(ome\.)?(tiff?|zarr|png|jpe?g|bmp|npy)$", "", name, flags=re.IGNORECASE) or name


def _one_line(error: object) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__
