"""NIfTI: one volume, mapped into memory, or decompressed as a whole where it is gzipped."""

from __future__ import annotations

import gzip
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.array_stack import stack_of_file
from napari_autosegnet.data.readers.formats import Format, ReadRequest
from napari_autosegnet.data.readers.pixel_values import PixelValues, ValuesOf, polynomial
from napari_autosegnet.data.readers.section_files import KEPT_BYTES
from napari_autosegnet.data.stack import Array, ImageStack
from napari_autosegnet.errors import UserError, one_line
from napari_autosegnet.units import in_one_unit

_GZIP = b"\x1f\x8b"
_SIZE_OF_HEADER_2 = 540


def open_nifti(request: ReadRequest) -> ImageStack:
    path = request.path
    try:
        about = _read_header(path)
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged file leads to
        raise UserError(
            f"{path} is not a NIfTI file, or is damaged ({one_line(error)}); copy the file again"
        ) from error
    size = math.prod(about.shape) * about.dtype.itemsize
    if min(about.shape, default=0) < 1 or about.begin < 0:
        raise UserError(f"{path} is damaged: its header says that it has no pixels; copy the file again")
    stored: Any
    if not is_gzipped(path):
        if path.stat().st_size < about.begin + size:
            raise UserError(f"{path} is shorter than its header says, or its header is damaged; copy the file again")
        stored = np.memmap(path, about.dtype, "r", about.begin, about.shape)
    elif size > KEPT_BYTES:
        raise UserError(f"{path} takes {size / 2**30:.1f} GiB when it is decompressed; decompress it first (gunzip)")
    else:
        stored = _Gzipped(path, about)
    values = _values(about)
    array = stored if values is None else ValuesOf(stored, values)
    return stack_of_file(
        array,
        path,
        time=request.time,
        wanted=request.axes,
        stated="ctzyx"[-len(about.shape) :] if len(about.shape) <= 5 else None,
        placement=in_one_unit(about.sizes, [about.unit] * 3),
    )


@dataclass(frozen=True)
class _Header:
    """What a header says; shape and sizes (z, y, x) have x last."""

    begin: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    sizes: Sequence[float | None]
    unit: str
    slope: float
    intercept: float


@dataclass
class _Gzipped:
    """Pixels of a compressed file, of which no part can be decoded alone."""

    path: Path
    about: _Header
    _pixels: Array | None = field(default=None, repr=False)
    _lock: Any = field(default_factory=Lock, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.about.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.about.dtype

    @property
    def files(self) -> Sequence[Path]:
        return [self.path]

    def __getitem__(self, index: Any) -> Array:
        with self._lock:  # several threads may read
            if self._pixels is None:
                self._pixels = self._decompressed()
        return np.asarray(self._pixels[index])

    def _decompressed(self) -> Array:
        count = math.prod(self.shape)
        with gzip.open(self.path) as file:
            content = file.read(self.about.begin + count * self.dtype.itemsize)
            while file.read(2**20):  # to the end, where its checksum is
                pass
        return np.frombuffer(content, self.dtype, count, self.about.begin).reshape(self.shape)


def is_gzipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == _GZIP


def header_of(path: Path) -> Any:
    """The header of a file, as nibabel reads it."""
    from nibabel.imageglobals import LoggingOutputSuppressor
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    with gzip.open(path) if is_gzipped(path) else path.open("rb") as file, LoggingOutputSuppressor():
        first = file.read(4)
        file.seek(0)
        is_second = _SIZE_OF_HEADER_2 in (int.from_bytes(first, "little"), int.from_bytes(first, "big"))
        return (Nifti2Header if is_second else Nifti1Header).from_fileobj(file)


def _read_header(path: Path) -> _Header:
    from nibabel.affines import voxel_sizes

    header = header_of(path)
    slope, intercept = header.get_slope_inter()
    # Sizes of the affine that the file has; without one, nibabel makes it of the sizes that stand in the header.
    sizes = [float(f"{size:.6g}") for size in voxel_sizes(header.get_best_affine())]
    axes = int(header["dim"][0])
    known: npt.NDArray[Any] = np.asarray(header["pixdim"][1:4])
    unit, _ = header.get_xyzt_units()
    has_affine = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    return _Header(
        begin=int(header.get_data_offset()),
        dtype=header.get_data_dtype(),
        shape=tuple(int(size) for size in reversed(header.get_data_shape())),
        sizes=[
            size if axis < max(axes, 2) and (has_affine or known[axis]) else None
            for axis, size in reversed(list(enumerate(sizes)))
        ],
        unit="" if unit == "unknown" else unit,
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
    )


def _values(about: _Header) -> PixelValues | None:
    """What the numbers stand for, where the header says so."""
    slope, intercept, dtype = about.slope, about.intercept, about.dtype
    if (slope, intercept) == (1.0, 0.0) or dtype.kind not in "iuf":
        return None
    if dtype.kind == "f":
        kind = dtype.newbyteorder("=")
    elif dtype.itemsize <= 2:
        # The polynomial counts from the smallest number.
        return polynomial(dtype, (intercept + slope * float(np.iinfo(dtype).min), slope))
    else:
        kind = np.dtype(np.float64)
    return PixelValues(lambda stored: (stored * np.float64(slope) + intercept).astype(kind), kind)


FORMAT = Format(
    "NIfTI",
    open_nifti,
    suffixes=(".nii", ".nii.gz"),
    magic=((344, b"n+1\x00"), (4, b"n+2\x00")),
    module="nibabel",
    extra="formats",
)
