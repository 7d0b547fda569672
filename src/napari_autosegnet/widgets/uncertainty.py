"""Where a model is least sure: the place that is worth painting next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.run import ShouldStop, never_stop
from napari_autosegnet.widgets.layer_arrays import METADATA, place_on, spatial_shape, view_of_data

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

#: Side of a place, in pixels.
PLACE = 48
#: Sections that are looked at, at most; spread evenly over the stack.
MOST_SECTIONS = 48
MARKER = "least certain place"

Visited = Sequence[tuple[int, int, int]]


@dataclass(frozen=True)
class Place:
    """Centre of a place, and its mean uncertainty."""

    section: int
    y: int
    x: int
    uncertainty: float


def least_certain(
    uncertainty: npt.NDArray[np.floating[Any]],
    section: int,
    annotated: npt.NDArray[np.bool_] | None = None,
    visited: Visited = (),
) -> Place | None:
    """The place of a section (y, x) with the highest mean uncertainty of pixels that are not annotated yet.

    Places that were visited are left out; None when nothing is left.
    """
    from scipy.ndimage import uniform_filter

    values = np.asarray(uncertainty, np.float32)
    if annotated is not None:
        values = np.where(annotated, 0, values)
    side = min(PLACE, *values.shape)
    # Beyond the border there is nothing to learn, so places at the border count less.
    means = uniform_filter(values, side, mode="constant")
    for where, y, x in visited:
        if where == section:
            means[max(0, y - side) : y + side, max(0, x - side) : x + side] = 0
    row, column = divmod(int(means.argmax()), means.shape[1])
    best = float(means[row, column])
    return Place(section, row, column, best) if best > 0 else None


def least_certain_of_volume(
    read_uncertainty: Callable[[int], npt.NDArray[np.floating[Any]]],
    read_annotated: Callable[[int], npt.NDArray[np.bool_] | None],
    sections: int,
    visited: Visited = (),
    should_stop: ShouldStop = never_stop,
) -> Place | None:
    """The least certain place of up to `MOST_SECTIONS` sections of a stack."""
    best: Place | None = None
    for section in np.unique(np.linspace(0, sections - 1, min(sections, MOST_SECTIONS)).round().astype(int)).tolist():
        if should_stop():
            return None
        found = least_certain(read_uncertainty(section), section, read_annotated(section), visited)
        if found is not None and (best is None or found.uncertainty > best.uncertainty):
            best = found
    return best


def go_to(viewer: ViewerModel, image: Image, place: Place) -> None:
    """Move the viewer to a place of an image and draw a frame around it."""
    dimensions = len(spatial_shape(image))
    centre = np.array([place.section, place.y, place.x][-dimensions:], float)
    world = view_of_data(viewer, image, centre)
    beside = view_of_data(viewer, image, centre + np.eye(dimensions)[-1])
    if dimensions == 3:
        viewer.dims.set_point(viewer.dims.ndim - 3, world[-3])
    camera = viewer.scene.camera
    camera.center = (0.0, float(world[-2]), float(world[-1]))
    # A good part of the surroundings stays visible, so that one sees where one is.
    width = max(1.0, float(min(viewer.canvas.size)))
    camera.zoom = width / (5 * PLACE * float(np.linalg.norm(beside - world)))
    half = PLACE / 2
    corners = np.array([[-half, -half], [-half, half], [half, half], [half, -half]]) + centre[-2:]
    frame = np.hstack([np.full((4, dimensions - 2), centre[0] if dimensions == 3 else 0.0), corners])
    known = next((layer for layer in viewer.layers if layer.metadata.get(METADATA) == {"role": "marker"}), None)
    if known is not None:
        viewer.layers.remove(known)
    active = viewer.layers.selection.active
    viewer.add_shapes(
        [frame],
        shape_type="polygon",
        name=MARKER,
        edge_color="#f0e442",
        face_color="transparent",
        edge_width=2,
        metadata={METADATA: {"role": "marker"}},
        **place_on(image),
    )
    viewer.layers.selection.active = active
