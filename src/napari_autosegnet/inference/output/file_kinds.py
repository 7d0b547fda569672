"""Kinds of files whose pixels lie one after the other, so that each block has its place: TIFF, MRC, HDF5, NIfTI.

A new one is a function that writes a file of full size without its pixels, and one that says where they begin.
"""

from __future__ import annotations

import errno
import gzip
import math
import os
import re
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.readers import hdf5, mrc, nifti
from napari_autosegnet.data.readers.formats import Format, format_of
from napari_autosegnet.errors import UserError
from napari_autosegnet.files import replacing
from napari_autosegnet.plain_text import printable
from napari_autosegnet.units import length_factor, unit_symbol

if TYPE_CHECKING:
    from napari_autosegnet.data.images import ImageStack

#: What results can be written as, for messages.
WRITTEN = ".zarr, .tif, .mrc, .h5, .nii, .nii.gz or .png"
#: Bytes that are compressed at a time.
_PART = 2**20
#: NIfTI-1 counts the pixels of an axis with 16 bits.
_NIFTI_1_SIDE = 2**15 - 1
_LABELS = 1002  # an "intent" of NIfTI


@dataclass(frozen=True)
class Pixels:
    """The pixels of a file: their type, and the sizes and names of their axes, ``zyx`` or ``yx`` after any ``c``."""

    shape: tuple[int, ...]
    axes: str
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class FileKind:
    """A kind of file that labels can be written to.

    Attributes
    ----------
    make : callable
        Writes a file for the labels of an image, all but its pixels.
    begin : callable
        Where the pixels of a file begin; raises what the file's library does where it is another one.
    lost : str
        What it does not keep of a result.
    dtypes : tuple of str
        Types of pixels, the smallest first.
    is_gzipped : bool
        It is compressed as a whole, when all its pixels are written.
    """

    name: str
    suffixes: tuple[str, ...]
    make: Callable[[Path, Pixels, ImageStack], None]
    begin: Callable[[Path, Pixels], int]
    lost: str
    dtypes: tuple[str, ...] = ("u1", "u2", "u4")
    is_gzipped: bool = False

    def dtype(self, highest: int, what: object) -> np.dtype[Any]:
        """The smallest type for labels from 0 to the highest.

        Raises
        ------
        UserError
            When there is none.
        """
        for known in map(np.dtype, self.dtypes):
            if highest <= np.iinfo(known).max:
                return known
        most = np.iinfo(self.dtypes[-1]).max
        raise UserError(f"{what} goes up to {highest}, {self.name} to {most}; give --out with .h5, .nii or .tif")

    def create(self, file: Path, pixels: Pixels, image: ImageStack) -> int:
        """Write a file of full size, its pixels 0, and wait until it is on the disk; returns where they begin."""
        self.make(file, pixels, image)
        begin = self.begin(file, pixels)
        with open(file, "rb+") as handle:
            if os.fstat(handle.fileno()).st_size < begin + pixels.nbytes:
                handle.truncate(begin + pixels.nbytes)
            _reserve(handle.fileno(), begin + pixels.nbytes)
            os.fsync(handle.fileno())
        return begin

    def is_whole(self, file: Path, size: int) -> bool:
        """Whether a file has so many bytes or, when it is compressed, says that it had them."""
        if not (self.is_gzipped and nifti.is_gzipped(file)):
            return file.stat().st_size >= size
        with file.open("rb") as handle:
            handle.seek(-4, os.SEEK_END)
            return int.from_bytes(handle.read(4), "little") == size % 2**32


def pack(file: Path) -> None:
    """Compress a file in its place, part by part, unless it is compressed already."""
    if not nifti.is_gzipped(file):
        # Two runs would differ by the time that gzip notes.
        with (
            replacing(file) as packed,
            file.open("rb") as source,
            packed.open("wb") as raw,
            gzip.GzipFile("", "wb", 6, raw, mtime=0) as target,
        ):
            shutil.copyfileobj(source, target, _PART)


def unpack(file: Path) -> None:
    """Undo `pack`, so that pixels can be written."""
    if nifti.is_gzipped(file):
        with replacing(file) as plain, gzip.open(file) as source, plain.open("wb") as target:
            shutil.copyfileobj(source, target, _PART)


def file_kind(path: Path) -> FileKind | None:
    """The kind of file that a path's ending means; None where it means no such file.

    Raises
    ------
    UserError
        When the library that writes it is missing.
    """
    kind = next((each for each in _KINDS if path.name.lower().endswith(each.suffixes)), None)
    if kind in _NIFTIS and find_spec("nibabel") is None:
        raise UserError(f"{path.name} is NIfTI, which needs nibabel; pip install 'napari-autosegnet[formats]'")
    return kind


def loss(path: Path) -> str | None:
    """What is told of a result in a file of that name; None where nothing is lost."""
    kind = file_kind(path)
    return None if kind is None else f"{path.name} does not keep {kind.lost}, which an OME-Zarr (.zarr) does"


def file_filters() -> list[tuple[str, str]]:
    """Filters of a file dialog for all that a result can be written to, each with its usual ending."""
    endings = [("OME-Zarr", ".zarr"), *((kind.name, suffix) for kind in _KINDS for suffix in kind.suffixes[:1])]
    return [(f"{name} (*{ending})", ending) for name, ending in endings]


def is_store_name(path: Path) -> bool:
    """Whether a result of that name is a Zarr store: ``NAME.zarr``, or a name without an ending, as ``cells 2.5``."""
    return path.suffix.lower() == ".zarr" or re.fullmatch(r"\.[^\W\d][^\W_]*", path.suffix) is None


def write_box(file: Path, begin: int, pixels: Pixels, box: Sequence[tuple[int, int]], values: npt.NDArray[Any]) -> None:
    """Write a box ``(..., y, x)`` of a file's pixels, and wait until it is on the disk."""
    values = np.ascontiguousarray(values, pixels.dtype)
    steps = [math.prod(pixels.shape[axis + 1 :]) * pixels.dtype.itemsize for axis in range(len(box))]
    # From the first axis on of which it is not all, what lies together is written together.
    parted = max((axis for axis, (start, stop) in enumerate(box) if stop - start < pixels.shape[axis]), default=0)
    with open(file, "rb+") as handle:
        for place in np.ndindex(*(stop - start for start, stop in box[:parted])):
            starts = [start + step for (start, _), step in zip(box, place, strict=False)] + [box[parted][0]]
            handle.seek(begin + sum(start * step for start, step in zip(starts, steps, strict=False)))
            handle.write(values[place].tobytes())
        handle.flush()
        os.fsync(handle.fileno())


def _reserve(handle: int, size: int) -> None:
    """Take the space at once, so that a full disk is met at the start and not in the middle of a run."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise


def _check(found: object, wanted: object) -> None:
    if found != wanted:
        raise ValueError(f"it holds {found}, not {wanted}")


def _source(image: ImageStack, kind: Format) -> Path | None:
    """The image's file, if it is of a format and read as it is: labels of its pixels lie where it does."""
    path = image.path
    if path is None or not path.is_file() or "axes" in image.selection or format_of(path) is not kind:
        return None
    return path


def _steps(image: ImageStack, unit: str) -> list[float] | None:
    """Size (z, y, x) of a voxel in a unit; None where the image has no length."""
    factor = length_factor(image.unit, unit)
    return None if factor is None else [abs(step) * factor for step in image.scale]


# ---------------------------------------------------------------- TIFF


def _make_tiff(file: Path, pixels: Pixels, image: ImageStack) -> None:
    import tifffile

    about: dict[str, Any] = {}
    if image.unit is not None or image.scale != (1.0, 1.0, 1.0):
        for axis, step in zip("ZYX", image.scale, strict=True):
            about |= {f"PhysicalSize{axis}": abs(step), f"PhysicalSize{axis}Unit": unit_symbol(image.unit)}
    # tifffile would draw a random identity, and two runs would differ.
    name = file.name.removeprefix(".").removesuffix(".partial")
    about["UUID"] = str(uuid.uuid5(uuid.NAMESPACE_OID, printable(name)))
    tifffile.imwrite(
        file,
        shape=pixels.shape,
        dtype=pixels.dtype,
        photometric="minisblack",
        ome=True,
        bigtiff=pixels.nbytes > 2**31,
        metadata={"axes": pixels.axes.upper(), **about},
    )


def _tiff_begin(file: Path, pixels: Pixels) -> int:
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        series = tiff.series[0]
        # It leaves axes of one pixel out.
        _check([size for size in series.shape if size > 1], [size for size in pixels.shape if size > 1])
        _check(series.dtype, pixels.dtype)
        if series.dataoffset is None:
            raise ValueError("its pixels do not lie together")
        return int(series.dataoffset)


# ---------------------------------------------------------------- MRC


def _make_mrc(file: Path, pixels: Pixels, image: ImageStack) -> None:
    import mrcfile

    modes = {"i1": 0, "i2": 1, "u2": 6}
    with mrcfile.new_mmap(file, pixels.shape, modes[pixels.dtype.str[1:]], overwrite=True) as new:
        header = new.header
        header.label[0] = "napari-autosegnet"  # mrcfile writes the time there, and two runs would differ
        steps = _steps(image, "angstrom")
        if steps is None:
            new.voxel_size = 0.0
        else:
            new.voxel_size = tuple(steps[::-1])
            factor = length_factor(image.unit, "angstrom") or 1.0
            header.origin = tuple(place * factor for place in reversed(image.translation))
        source = _source(image, mrc.FORMAT)
        if source is not None:
            given = mrc.header_of(source)
            if [int(given[name]) for name in ("mapc", "mapr", "maps")] == [1, 2, 3]:
                for name in ("origin", "nxstart", "nystart", "nzstart"):
                    header[name] = given[name]


def _mrc_begin(file: Path, pixels: Pixels) -> int:
    import mrcfile

    with mrcfile.mmap(file) as opened:
        _check(opened.data.shape, pixels.shape)
        _check(opened.data.dtype, pixels.dtype)
        return int(opened.data.offset)


# ---------------------------------------------------------------- HDF5


def _make_hdf5(file: Path, pixels: Pixels, image: ImageStack) -> None:
    import h5py

    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_layout(h5py.h5d.CONTIGUOUS)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)  # what nobody wrote is 0 anyway
    settings.set_obj_track_times(False)  # two runs would differ
    try:
        with h5py.File(file, "w") as new:
            space = h5py.h5s.create_simple(pixels.shape)
            kind = h5py.h5t.py_create(pixels.dtype)
            dataset = h5py.Dataset(h5py.h5d.create(new.id, _hdf5_name(pixels).encode(), kind, space, settings))
            for dimension, axis in zip(dataset.dims, pixels.axes, strict=True):
                dimension.label = axis
            flat = 1 if image.is_2d else 0
            dataset.attrs["resolution"] = image.scale[flat:]
            dataset.attrs["offset"] = image.translation[flat:]
            steps = _steps(image, "micrometer")
            if steps is not None:
                dataset.attrs["units"] = [image.unit] * (3 - flat)
                dataset.attrs["element_size_um"] = steps  # what Fiji reads
    except (OSError, RuntimeError) as error:
        # HDF5 says what the system said, in the midst of its own words.
        number = re.search(r"errno = (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(file)) from error


def _hdf5_begin(file: Path, pixels: Pixels) -> int:
    import h5py

    with h5py.File(file) as content:
        dataset = content[_hdf5_name(pixels)]
        _check(dataset.shape, pixels.shape)
        _check(dataset.dtype, pixels.dtype)
        return int(dataset.id.get_offset())


def _hdf5_name(pixels: Pixels) -> str:
    return "probabilities" if pixels.axes[0] == "c" else "labels"


# ---------------------------------------------------------------- NIfTI


def _make_nifti(file: Path, pixels: Pixels, image: ImageStack) -> None:
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    header = (Nifti1Header if max(pixels.shape) <= _NIFTI_1_SIDE else Nifti2Header)()
    header.set_data_dtype(pixels.dtype)
    header.set_data_shape(_nifti_shape(pixels))
    spatial = 2 if image.is_2d else 3
    steps = _steps(image, "micrometer")
    sizes = [abs(step) for step in image.scale] if steps is None else steps
    header.set_zooms([*sizes[::-1][:spatial], *[1.0] * (len(_nifti_shape(pixels)) - spatial)])
    header.set_xyzt_units(None if steps is None else "micron")
    source = _source(image, nifti.FORMAT)
    if source is not None:
        _copy_place(nifti.header_of(source), header)
    if pixels.axes[0] != "c":
        header["intent_code"] = _LABELS
    header["vox_offset"] = header.single_vox_offset
    with file.open("wb") as handle:
        header.write_to(handle)
        handle.truncate(int(header["vox_offset"]) + pixels.nbytes)


def _copy_place(given: Any, header: Any) -> None:
    """Where the image lies, for viewers that lay labels onto it."""
    for name in given:
        if name.startswith(("qform_", "sform_", "quatern_", "qoffset_", "srow_", "xyzt_")):
            header[name] = given[name]
    header["pixdim"][:4] = given["pixdim"][:4]


def _nifti_shape(pixels: Pixels) -> tuple[int, ...]:
    """The axes as NIfTI has them: x first, channels after a time axis."""
    shape = pixels.shape[::-1]
    if pixels.axes[0] != "c":
        return shape
    return (*shape[:-1], *[1] * (5 - len(shape)), shape[-1])


def _nifti_begin(file: Path, pixels: Pixels) -> int:
    header = nifti.header_of(file)
    _check(tuple(header.get_data_shape()), _nifti_shape(pixels))
    _check(header.get_data_dtype(), pixels.dtype)
    return int(header.get_data_offset())


_NIFTIS = (
    FileKind("NIfTI", (".nii",), _make_nifti, _nifti_begin, "position and class names"),
    FileKind("NIfTI", (".nii.gz",), _make_nifti, _nifti_begin, "position and class names", is_gzipped=True),
)
_KINDS = (
    FileKind("TIFF", (".tif", ".tiff"), _make_tiff, _tiff_begin, "position and class names"),
    FileKind("MRC", mrc.FORMAT.suffixes, _make_mrc, _mrc_begin, "class names", dtypes=("i1", "i2", "u2")),
    FileKind("HDF5", hdf5.FORMAT.suffixes, _make_hdf5, _hdf5_begin, "class names"),
    *_NIFTIS,
)
