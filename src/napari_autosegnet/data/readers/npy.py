"""NumPy arrays, mapped into memory."""

from __future__ import annotations

import numpy as np

from napari_autosegnet.data.readers.formats import Format, ReadRequest
from napari_autosegnet.data.stack import ImageStack, stack_of_unnamed


def open_npy(request: ReadRequest) -> ImageStack:
    array = np.load(request.path, mmap_mode="r", allow_pickle=False)
    return stack_of_unnamed(array, request.path, request.time, request.axes)


FORMAT = Format(".npy", open_npy, suffixes=(".npy",), magic=((0, b"\x93NUMPY"),))
