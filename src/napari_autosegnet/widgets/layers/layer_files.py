"""The file behind a layer, if there is one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_autosegnet.errors import UserError
from napari_autosegnet.widgets.layers.axes import axes_of, full_resolution
from napari_autosegnet.widgets.layers.layer_arrays import is_stack, layer_placement, layer_stack
from napari_autosegnet.widgets.layers.notes import notes

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Layer

    from napari_autosegnet.data.images import ImageStack


def file_of(layer: Image | Labels, time: int = 0) -> Path | None:
    """File that holds exactly what the layer shows at a time point, if there is one.

    Reads some sections: call it in a thread. Where the layer has a time axis, the file has it, too.
    """
    path, opened = _file_behind(layer, time)
    if opened is None:
        return None
    try:
        stack = layer_stack(layer, time)
        last = stack.sections - 1
        same = all(np.array_equal(opened.section(section), stack.section(section)) for section in {0, last // 2, last})
    except UserError:
        return None
    return path if same else None


def stack_with_placement(layer: Image, time: int = 0) -> ImageStack:
    """A layer's stack as a job reads it, with the size of its voxels: that in its file, if there is one.

    No pixels are read, but a file may be opened: call it in a thread.
    """
    _, opened = _file_behind(layer, time)
    if opened is not None:
        return opened
    stack = layer_stack(layer, time)
    placed = layer_placement(layer.scale, layer.translate, layer.units)
    is_volume = "z" in axes_of(layer)
    stack.scale = placed.scale if is_volume else (1.0, *placed.scale[1:])
    stack.translation, stack.unit = placed.translation, placed.unit
    return stack


def _file_behind(layer: Image | Labels, time: int) -> tuple[Path, ImageStack | None]:
    """File that a layer was read from, opened; None if there is none, or if it is of another shape."""
    from napari_autosegnet.data.images import open_image

    path = source_of(layer)
    if path is None or not is_stack(layer):
        return Path(), None
    try:
        opened = open_image(path, time=time if "t" in axes_of(layer) else None)
        stack = layer_stack(layer, time)
        fits = opened.uniform and (opened.shape, opened.channels) == (stack.shape, stack.channels)
    except UserError:
        return Path(), None
    return path, opened if fits else None


def source_of(layer: Layer) -> Path | None:
    """File or folder that a layer of images or labels was read from; None if there is none."""
    from napari.layers import Image, Labels

    if not isinstance(layer, Image | Labels):
        return None
    image = notes(layer).get("file")  # of a file that holds several
    path = folder_of(full_resolution(layer)) or image or layer.source.path
    return Path(path) if isinstance(path, str | Path) else None


def folder_of(array: Any) -> Path | None:
    """Folder of a zarr array on the disk."""
    root = getattr(getattr(array, "store", None), "root", None)
    return None if root is None else Path(root) / str(getattr(array, "path", ""))
