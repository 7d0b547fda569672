"""Writer of one Labels layer: an OME-Zarr with class names and colors, or a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_autosegnet.data.annotations import ClassInfo
from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.inference.output.file_kinds import file_kind
from napari_autosegnet.inference.output.label_file import write_labels
from napari_autosegnet.ome_zarr.write import write_image
from napari_autosegnet.widgets.layers.layer_arrays import layer_placement
from napari_autosegnet.widgets.layers.notes import METADATA


def write_annotation(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a Labels layer as OME-Zarr, MRC, HDF5 or NIfTI.

    An OME-Zarr keeps the class names and colors that the dock gave it.

    Raises
    ------
    UserError
        When the place cannot be written.
    """
    array = data[0] if isinstance(data, list | tuple) or attributes.get("multiscale") else data
    kept = attributes.get("metadata", {}).get(METADATA, {}).get("classes", ())
    classes = [(int(one["value"]), ClassInfo(name=one["name"], color=one["color"])) for one in kept]
    shape = tuple(int(size) for size in array.shape)
    depth = len(shape)
    placed = layer_placement(
        attributes.get("scale", [1.0] * depth), attributes.get("translate", [0.0] * depth), attributes.get("units", ())
    )
    if file_kind(Path(path)) is not None:
        labels = image_from_array(array, scale=placed.scale[-depth:], translation=placed.translation[-depth:])
        labels.unit = placed.unit
        write_labels(labels, Path(path))
        return [path]
    write_image(
        Path(path),
        shape,
        np.dtype(array.dtype),  # a narrower one would turn values that are no class into other ones
        lambda index: np.asarray(array[index] if len(shape) == 3 else array),
        placement=placed,
        classes=classes,
    )
    return [path]
