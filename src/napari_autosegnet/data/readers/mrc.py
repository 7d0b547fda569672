"""MRC, as electron microscopes and IMOD write it: one volume, mapped into memory."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.array_stack import stack_of_file
from napari_autosegnet.data.readers.formats import Format, ReadRequest
from napari_autosegnet.data.stack import ImageStack
from napari_autosegnet.errors import UserError, one_line
from napari_autosegnet.units import in_one_unit, positive

if TYPE_CHECKING:
    from pathlib import Path

_HEADER_BYTES = 1024
#: With this mark, which stands 40 bytes into ``extra2``, IMOD says that its flags follow.
_IMOD_STAMP = 1146047817
_IMOD_FLAGS = 40
_SIGNED_BYTES = 1


def open_mrc(request: ReadRequest) -> ImageStack:
    path = request.path
    header, dtype, shape, voxel = _read_header(path)
    begin = _HEADER_BYTES + int(header.nsymbt)
    spare = path.stat().st_size - begin - math.prod(shape) * dtype.itemsize
    if begin < _HEADER_BYTES or min(shape) < 0 or spare < 0:
        raise UserError(f"{path} is shorter than its header says, or its header is damaged; copy the file again")
    notes = [f"{path} is {spare} bytes longer than its header says; compare it with other programs"] if spare else []
    if min(shape) == 0:
        raise UserError(f"{path} holds no pixels; give an image of at least one pixel per axis")
    array: npt.NDArray[Any] = np.memmap(path, dtype, "r", begin, shape)
    if dtype.kind == "i" and dtype.itemsize == 1 and _has_unsigned_bytes(header):
        array = array.view(np.uint8)
    return stack_of_file(
        array,
        path,
        time=request.time,
        wanted=request.axes,
        stated="tzyx" if len(shape) == 4 else _axes(header)[-len(shape) :],
        placement=in_one_unit(voxel, ["angstrom"] * 3),
        notes=notes,
    )


def _read_header(path: Path) -> tuple[Any, np.dtype[Any], tuple[int, ...], list[float | None]]:
    """The header, type and shape of the pixels, and sizes (z, y, x) of a voxel in angstrom as far as they are known."""
    from mrcfile import utils
    from mrcfile.mrcfile import MrcFile

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the caller checks what mrcfile finds odd
        try:
            with MrcFile(str(path), permissive=True, header_only=True) as file:
                header, voxel = file.header.copy(), file.voxel_size
                shape = tuple(int(size) for size in utils.data_shape_from_header(header))
                dtype = utils.data_dtype_from_header(header)
        except OSError:
            raise
        except Exception as error:  # whatever a damaged header leads to
            raise UserError(
                f"{path} is not an MRC file, or is damaged ({one_line(error)}); copy the file again"
            ) from error
    sizes = [positive(voxel[axis]) for axis in "zyx"]
    # As many digits as the header has.
    return header, dtype, shape, [None if size is None else float(f"{size:.6g}") for size in sizes]


def header_of(path: Path) -> Any:
    """The header of a file, as mrcfile reads it."""
    return _read_header(path)[0]


def _axes(header: Any) -> str:
    """Names of the axes of the pixels: columns, which come last, are x unless the header says otherwise."""
    order = [int(header[name]) for name in ("maps", "mapr", "mapc")]
    return "".join("xyz"[axis - 1] for axis in order) if sorted(order) == [1, 2, 3] else "zyx"


def _has_unsigned_bytes(header: Any) -> bool:
    """Whether IMOD wrote bytes as it did before the standard had them signed."""
    order = header.mode.dtype.newbyteorder("=").newbyteorder(header.mode.dtype.byteorder)
    stamp, flags = np.frombuffer(bytes(header.extra2), order)[_IMOD_FLAGS // 4 :][:2].tolist()
    return stamp == _IMOD_STAMP and not flags & _SIGNED_BYTES


FORMAT = Format("MRC", open_mrc, suffixes=(".mrc", ".rec", ".st", ".ali", ".map"), magic=((208, b"MAP "),))
