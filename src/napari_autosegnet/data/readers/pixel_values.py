"""Numbers in a file that stand for other values: min-is-white pictures, and ImageJ's calibration functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_autosegnet.data.pixel_files import files_of_array
from napari_autosegnet.data.stack import Array

#: Types that calibrated whole numbers are kept in, the smallest first.
_WHOLE = tuple(np.dtype(kind) for kind in (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32))


@dataclass(frozen=True)
class PixelValues:
    """How stored numbers become the values that they stand for.

    Attributes
    ----------
    of : callable
        Takes stored numbers of any shape, returns values of the same shape and of `dtype`.
    dtype : numpy.dtype
        Of the values.
    """

    of: Callable[[Array], Array]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class ValuesOf:
    """An array of stored numbers, seen as the values that they stand for; read where it is indexed."""

    stored: Any
    values: PixelValues

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.stored.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.dtype

    @property
    def files(self) -> Sequence[Path]:
        """The files that the numbers lie in."""
        return files_of_array(self.stored)

    def __getitem__(self, index: Any) -> Array:
        return self.values.of(np.asarray(self.stored[index]))


def inverted(dtype: np.dtype[Any], bits: int) -> PixelValues:
    """Values of whole numbers of so many bits of which the smallest is white."""
    if dtype.kind == "b":
        return PixelValues(np.logical_not, dtype)
    if dtype.kind == "i":
        return PixelValues(np.invert, dtype)
    largest = dtype.type(2**bits - 1)
    return PixelValues(lambda stored: np.subtract(largest, stored, dtype=dtype.newbyteorder("=")), dtype)


def polynomial(dtype: np.dtype[Any], coefficients: Sequence[float], *, clip: bool = False) -> PixelValues | None:
    """Values c0 + c1 x + c2 x² ... of 8- and 16-bit numbers; None where each stands for itself.

    As in ImageJ the smallest signed number counts as 0. Whole values stay whole numbers, others become float32.

    Parameters
    ----------
    clip : bool
        Negative values become 0.
    """
    limits = np.iinfo(dtype)
    raw = np.arange(int(limits.max) - int(limits.min) + 1, dtype=np.float64)
    table: Array = np.polynomial.polynomial.polyval(raw, np.asarray(coefficients, np.float64))
    if clip:
        table = np.maximum(table, 0.0)
    table = table.astype(_smallest_type(table, dtype))
    if table.dtype == dtype.newbyteorder("=") and (table == raw + int(limits.min)).all():
        return None
    offset = -int(limits.min)
    return PixelValues(lambda stored: table[stored.astype(np.int64) + offset if offset else stored], table.dtype)


def not_applied(attributes: Mapping[str, Any]) -> list[str]:
    """What attributes say of values as netCDF and xarray do, and HDF5 and Zarr readers do not apply; one line or none.

    The line fits behind the name of the file.
    """
    named = [
        f"{name} ({np.ravel(attributes[name])[0]})"
        for name, usual in (("scale_factor", 1), ("add_offset", 0))
        if name in attributes and np.size(attributes[name]) == 1 and np.ravel(attributes[name])[0] != usual
    ]
    return [f"the attributes {' and '.join(named)} are not applied: numbers are read as stored"] if named else []


def _smallest_type(values: Array, stored: np.dtype[Any]) -> np.dtype[Any]:
    if not (values == np.round(values)).all():
        return np.dtype(np.float32)
    for kind in (stored.newbyteorder("="), *_WHOLE):
        if np.iinfo(kind).min <= values.min() and values.max() <= np.iinfo(kind).max:
            return kind
    return np.dtype(np.float64)
