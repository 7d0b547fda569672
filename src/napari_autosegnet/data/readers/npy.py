"""NumPy arrays, mapped into memory."""

from __future__ import annotations

import numpy as np

from napari_autosegnet.data.array_stack import stack_of_file
from napari_autosegnet.data.readers.formats import Format, ReadRequest
from napari_autosegnet.data.stack import ImageStack
from napari_autosegnet.errors import UserError


def open_npy(request: ReadRequest) -> ImageStack:
    try:
        array = np.load(request.path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(
            f"{request.path} holds no numbers, or is damaged; save an array of numbers with numpy.save"
        ) from error
    return stack_of_file(array, request.path, time=request.time, wanted=request.axes)


FORMAT = Format(".npy", open_npy, suffixes=(".npy",), magic=((0, b"\x93NUMPY"),))
