"""What of a layer is in view: section, time point, rows and columns; and from places in its data to the viewer's."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.same_place import MAX_SHIFT
from napari_autosegnet.widgets.layers.axes import axes_of
from napari_autosegnet.widgets.layers.layer_arrays import spatial_shape, time_points

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer


@dataclass(frozen=True)
class Slice:
    """A section of an image, or a part of one: its rows and columns."""

    image: Image
    section: int
    rows: slice
    columns: slice

    @property
    def origin(self) -> tuple[int, int]:
        """The first row and column."""
        return self.rows.start, self.columns.start

    @property
    def is_whole(self) -> bool:
        height, width = spatial_shape(self.image)[-2:]
        return (self.rows, self.columns) == (slice(0, height), slice(0, width))


def shows_sections(viewer: ViewerModel) -> bool:
    """Whether the viewer shows y and x, as sections lie: not rolled, not in 3D."""
    dims = viewer.dims
    return tuple(dims.displayed) == (dims.ndim - 2, dims.ndim - 1)


def section_in_view(viewer: ViewerModel, layer: Image | Labels) -> int | None:
    """Section of a layer that the viewer shows; None when the viewer is outside the layer."""
    leading = spatial_shape(layer)[:-2]
    if not leading:
        return 0
    if viewer.dims.ndim < layer.ndim:
        return None
    place = np.round(data_in_view(viewer, layer, viewer.dims.point)[-2 - len(leading) : -2]).astype(int)
    if (place < 0).any() or (place >= leading).any():
        return None
    return int(np.ravel_multi_index(tuple(place), leading))


def time_in_view(viewer: ViewerModel, layer: Image) -> int | None:
    """Time point of a layer at the viewer's slider, the nearest that there is; None when it has no time axis."""
    axes = axes_of(layer)
    if "t" not in axes:
        return None
    place = axes.index("t") - len(axes)
    point = data_in_view(viewer, layer, viewer.dims.point)[place]
    return int(np.clip(np.round(point), 0, time_points(layer) - 1))


def data_in_view(viewer: ViewerModel, layer: Layer, point: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Where in a layer's data a point of the viewer (slider, camera) lies."""
    return np.asarray(layer.world_to_data(np.asarray(point, float)[-layer.ndim :] / _units_per_unit(viewer, layer)))


def slice_in_view(viewer: ViewerModel, image: Image | None, side: int, step: int = 1) -> Slice | None:
    """What is looked at of an image: a section, and ``side`` rows and columns at most around the middle of the view.

    With a larger ``step`` these stay the same while the view is moved a little. None where the viewer is outside of
    the image, or there is none.
    """
    section = None if image is None else section_in_view(viewer, image)
    if image is None or section is None:
        return None
    center = data_in_view(viewer, image, (*viewer.dims.point[:-2], *viewer.scene.camera.center[-2:]))[-2:]
    spans = []
    for length, middle in zip(spatial_shape(image)[-2:], center, strict=True):
        start = int(np.clip(round((middle - side // 2) / step) * step, 0, max(0, length - side)))
        spans.append(slice(start, min(length, start + side)))
    return Slice(image, section, *spans)


def view_of_data(viewer: ViewerModel, layer: Layer, point: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Where in the viewer a point of a layer's data lies."""
    return np.asarray(layer.data_to_world(point), float) * _units_per_unit(viewer, layer)


def pixels_apart(viewer: ViewerModel, labels: Labels, image: Image) -> npt.NDArray[np.float64]:
    """How far from their pixels of an image, in these, the viewer shows those of a Labels layer of its shape.

    Along each axis, where it is most.
    """
    shape = spatial_shape(labels)
    corners = np.array([*itertools.product(*((0, size - 1) for size in shape))], float)
    beside = view_of_data(viewer, image, np.zeros(image.ndim))[: image.ndim - len(shape)]  # channels have no place
    seen = [
        data_in_view(viewer, image, [*beside, *view_of_data(viewer, labels, corner)])[-len(shape) :]
        for corner in corners
    ]
    return np.abs(np.array(seen) - corners).max(axis=0)


def lies_on(viewer: ViewerModel, labels: Labels, image: Image) -> bool:
    """Whether the viewer shows the pixels of a Labels layer on those of an image of its shape that they belong to."""
    apart = pixels_apart(viewer, labels, image)
    # Less than half a section: between two of them nobody knows which one is seen.
    return bool((apart[-2:] <= MAX_SHIFT).all() and (apart[:-2] < 0.5).all())


def _units_per_unit(viewer: ViewerModel, layer: Layer) -> npt.NDArray[np.float64]:
    """Per axis of the layer: the viewer's units in one of the layer's. Layers in µm and in nm lie in one view."""
    units = viewer.dims.units
    # None when the layers have nothing in common; napari converts nothing then, either.
    if units is None or len(units) < layer.ndim:
        return np.ones(layer.ndim)
    pairs = zip(layer.units, units[-layer.ndim :], strict=True)
    return np.array([1.0 if own == shared else (1.0 * own).to(shared).magnitude for own, shared in pairs])
