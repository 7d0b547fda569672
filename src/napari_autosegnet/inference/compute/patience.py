"""Patience with stores that fail for a moment."""

from __future__ import annotations

import time
from typing import Any

import numpy.typing as npt

from napari_autosegnet.data.images import ImageStack
from napari_autosegnet.errors import UserError

#: Waits in seconds before a read is tried again. A network store is often away for seconds, rarely for longer.
WAITS = (0.2, 1.0, 5.0)
#: What another attempt does not mend.
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


def read_patiently(image: ImageStack, z: slice, y: slice, x: slice) -> npt.NDArray[Any]:
    """Read a region, again after a pause where the file system or network failed."""
    for wait in WAITS:
        try:
            return image.read(z, y, x)
        except UserError as error:
            if not _may_pass(error.__cause__):
                raise
        time.sleep(wait)
    return image.read(z, y, x)


def _may_pass(cause: BaseException | None) -> bool:
    """Whether it was the file system or the network, and not what is in the file.

    Pillow and HDF5 raise an OSError for damaged pixels, too, but without a number of the system's.
    """
    if not isinstance(cause, OSError) or isinstance(cause, _LASTING):
        return False
    return cause.errno is not None or isinstance(cause, ConnectionError | TimeoutError) or "errno" in str(cause)
