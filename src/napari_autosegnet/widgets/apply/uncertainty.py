"""Where a model is least sure: the place that is worth painting next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.events import ProgressMade, Report, silent
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.widgets.layers.layer_arrays import place_on, read_section, section_index, spatial_shape
from napari_autosegnet.widgets.layers.notes import METADATA, notes, role
from napari_autosegnet.widgets.layers.section_layers import image_behind, move_layer
from napari_autosegnet.widgets.layers.view import view_of_data
from napari_autosegnet.widgets.session import Session

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

#: Side of a place, in pixels.
PLACE = 48
#: Sections that are looked at, at most; spread evenly over the stack.
MAX_SECTIONS = 48
#: Width of each of the two lines of the frame, in pixels of the image.
_EDGE = 1.5
#: Opacity of results where the image is to be looked at.
_SEE_THROUGH = 0.2
MARKER = "least certain place"

Visited = Sequence[tuple[int, int, int]]


@dataclass(frozen=True)
class Place:
    """Center of a place, and its mean uncertainty."""

    section: int
    y: int
    x: int
    uncertainty: float


class ShownPlaces:
    """The places of an image that were shown, in this order, and which of them is in view."""

    def __init__(self) -> None:
        self._places: list[Place] = []
        self._now = 0

    def __len__(self) -> int:
        return len(self._places)

    @property
    def visited(self) -> Visited:
        """Section, row and column of each."""
        return [(place.section, place.y, place.x) for place in self._places]

    @property
    def has_previous(self) -> bool:
        return self._now > 0

    def add(self, place: Place) -> None:
        """Show a new place."""
        self._places.append(place)
        self._now = len(self._places) - 1

    def previous(self) -> Place | None:
        """Go back by one; None at the first."""
        return self._move(-1)

    def following(self) -> Place | None:
        """Go forward by one among those that were shown; None at the last."""
        return self._move(1)

    def _move(self, step: int) -> Place | None:
        if not 0 <= self._now + step < len(self._places):
            return None
        self._now += step
        return self._places[self._now]


def least_certain(
    uncertainty: npt.NDArray[np.floating[Any]],
    section: int,
    annotated: npt.NDArray[np.bool_] | None = None,
    visited: Visited = (),
    origin: tuple[int, int] = (0, 0),
) -> Place | None:
    """The place of a section (y, x) with the highest mean uncertainty of pixels that are not annotated yet.

    Places that were visited are left out; None when nothing is left. The uncertainty may be that of a part of the
    section, which begins at ``origin``.
    """
    from scipy.ndimage import uniform_filter

    values, (top, left) = np.asarray(uncertainty, np.float32), origin
    if annotated is not None:
        values = np.where(annotated[top : top + values.shape[0], left : left + values.shape[1]], 0, values)
    side = min(PLACE, *values.shape)
    # Beyond the border there is nothing to learn, so places at the border count less.
    means = uniform_filter(values, side, mode="constant")
    for where, y, x in visited:
        if where == section:
            rows, columns = (slice(max(0, at - side), max(0, at + side)) for at in (y - top, x - left))
            means[rows, columns] = 0
    row, column = divmod(int(means.argmax()), means.shape[1])
    best = float(means[row, column])
    return Place(section, top + row, left + column, best) if best > 0 else None


def annotation_reader(session: Session, image: Image) -> Any:
    """Reads which pixels of a section are annotated already."""
    layers = [pair.labels for pair in session.annotation.pairs() if pair.image is image]
    values = [each.value for each in session.annotation.label_classes]

    def read(section: int) -> Any:
        if not layers:
            return None
        annotated = np.zeros(spatial_shape(image)[-2:], bool)
        for layer in layers:
            annotated |= np.isin(read_section(layer, section), values)
        return annotated

    return read


def least_certain_of_volume(
    read_uncertainty: Callable[[int], npt.NDArray[np.floating[Any]]],
    read_annotated: Callable[[int], npt.NDArray[np.bool_] | None],
    sections: int,
    visited: Visited = (),
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> Place | None:
    """The least certain place of up to `MAX_SECTIONS` sections of a stack; None when stopped, too."""
    best: Place | None = None
    looked_at = np.unique(np.linspace(0, sections - 1, min(sections, MAX_SECTIONS)).round().astype(int)).tolist()
    for number, section in enumerate(looked_at):
        if should_stop():
            return None
        report(ProgressMade(done=number, total=len(looked_at)))
        place = least_certain(read_uncertainty(section), section, read_annotated(section), visited)
        if place is not None and (best is None or place.uncertainty > best.uncertainty):
            best = place
    return best


def go_to(viewer: ViewerModel, image: Image, place: Place) -> None:
    """Move the viewer to a place of an image and draw a frame around it; what a model said becomes see-through."""
    leading = section_index(image, place.section)
    channels = (0,) * (image.ndim - len(leading) - 2)
    center = np.array([*channels, *leading, place.y, place.x], float)
    world = view_of_data(viewer, image, center)
    beside = view_of_data(viewer, image, center + np.eye(image.ndim)[-1])
    for axis in range(-2 - len(leading), -2):
        viewer.dims.set_point(viewer.dims.ndim + axis, world[axis])
    camera = viewer.scene.camera
    camera.center = (0.0, float(world[-2]), float(world[-1]))
    # A good part of the surroundings stays visible, so that one sees where one is.
    width = max(1.0, float(min(viewer.canvas.size)))
    camera.zoom = width / (5 * PLACE * float(np.linalg.norm(beside - world)))
    # Bright within dark, so that it is seen on every image.
    frames = [_frame(center[len(channels) :], PLACE / 2 + beyond) for beyond in (_EDGE, 0)]
    _show_frame(viewer, frames, place_on(image))
    for layer in _covering(viewer, image):
        notes(layer).setdefault("opacity", layer.opacity)
        layer.opacity = min(layer.opacity, _SEE_THROUGH)


def _show_frame(viewer: ViewerModel, frames: list[npt.NDArray[np.float64]], place: dict[str, Any]) -> None:
    """Move the frame here, or add it: napari needs a third of a second for a new layer of shapes."""
    known = next((layer for layer in viewer.layers if role(layer) == "marker"), None)
    if known is not None and known.ndim == frames[0].shape[-1]:
        known.data = frames
        move_layer(known, place)
        known.visible = True
        if known is not viewer.layers[-1]:
            viewer.layers.move(viewer.layers.index(known), len(viewer.layers))
        return
    if known is not None:
        viewer.layers.remove(known)
    active = viewer.layers.selection.active
    viewer.add_shapes(
        frames,
        shape_type="polygon",
        name=MARKER,
        edge_color=["black", "#f0e442"],
        face_color="transparent",
        edge_width=_EDGE,
        metadata={METADATA: {"role": "marker"}},
        **place,
    )
    viewer.layers.selection.active = active


def stop_looking(viewer: ViewerModel, image: Image) -> None:
    """Show what a model said as it was shown before `go_to`."""
    for layer in _covering(viewer, image):
        layer.opacity = notes(layer).pop("opacity", layer.opacity)


def _covering(viewer: ViewerModel, image: Image) -> list[Layer]:
    """Results of an image, and where they are uncertain."""
    return [
        layer
        for layer in viewer.layers
        if role(layer) in ("result", "preview", "uncertainty") and image_behind(viewer, layer) is image
    ]


def _frame(center: npt.NDArray[np.float64], half: float) -> npt.NDArray[np.float64]:
    """Corners of a square around a point, in its section."""
    corners = np.repeat(center[np.newaxis], 4, axis=0)
    corners[:, -2:] += np.array([[-half, -half], [-half, half], [half, half], [half, -half]])
    return corners
