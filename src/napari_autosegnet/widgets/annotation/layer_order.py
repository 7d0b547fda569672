"""Which layer lies on which, so that neither a stroke nor a new result is ever hidden by what this program shows.

Paint in the annotation: it counts at once, and no later result takes its place. The rule of the order, from the
bottom to the top:

1. what the user opened, and older results;
2. the newest result, its uncertainty above it;
3. the annotation of its image. Where that covers most of the section it would hide the result, and stays below it;
4. the layer for which the brush is taken: at that moment it comes to the top, whichever it is;
5. the frame of the least certain place.

The layer that was active stays active, so who paints keeps painting, and sees it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject
from superqt.utils import qdebounced

from napari_autosegnet.widgets.annotation.layer_pairs import LayerPairs
from napari_autosegnet.widgets.annotation.pixel_counter import PixelCounter
from napari_autosegnet.widgets.layers.class_colors import kept_classes
from napari_autosegnet.widgets.layers.layer_arrays import spatial_shape
from napari_autosegnet.widgets.layers.notes import role
from napari_autosegnet.widgets.layers.section_layers import image_behind
from napari_autosegnet.widgets.layers.view import section_in_view

if TYPE_CHECKING:
    from napari.layers import Labels, Layer

_BRUSHES = ("paint", "fill", "erase", "polygon")
#: Annotation that covers more than this fraction of a section would hide the result.
_MOST = 0.5


class LayerOrder(QObject):
    """Puts layers where they belong, and follows the brush.

    Parameters
    ----------
    layers : LayerPairs
        Of the viewer.
    counter : PixelCounter
        Knows how much is painted.
    parent : QObject, optional
    """

    def __init__(self, layers: LayerPairs, counter: PixelCounter, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._pairs = layers
        self._counter = counter
        self._viewer = layers.viewer
        self._followed: Layer | None = None
        # While napari adds or removes a layer nothing must be moved.
        self._raise_soon = qdebounced(self._raise_painted, timeout=0)
        self._viewer.layers.selection.events.active.connect(self._on_active)
        self._on_active()

    def close(self) -> None:
        """Let go of the viewer."""
        self._raise_soon.cancel()
        self._viewer.layers.selection.events.active.disconnect(self._on_active)
        self._follow(None)

    def put(self, *shown: Layer) -> Labels | None:
        """Put what a model made of an image on top, from the lowest to the highest, but beneath strokes.

        Returns the annotation that hides it, because it covers most of the section and the brush is in it.
        """
        image = image_behind(self._viewer, shown[0])
        strokes = [
            layer
            for layer in self._pairs.labels()
            if self._is_painted_on(layer)
            or (self._pairs.image_of(layer) is image and self._pairs.is_used(layer) and not self._hides(layer, image))
        ]
        self._stack([*shown, *sorted(strokes, key=self._is_painted_on)])
        return next((layer for layer in strokes if image is not None and self._hides(layer, image)), None)

    # ------------------------------------------------------------ the order

    def _stack(self, wanted: list[Layer]) -> None:
        """Put layers on top in this order, the frame above them; nothing is moved that lies right."""
        from napari.layers import Image, Labels

        layers = self._viewer.layers
        frames = [layer for layer in layers if role(layer) == "marker"]
        wanted += frames
        covering = [layer for layer in layers if isinstance(layer, Image | Labels) or layer in frames]
        if any(is_now is not is_wanted for is_now, is_wanted in zip(covering[-len(wanted) :], wanted, strict=True)):
            for layer in wanted:
                layers.move(layers.index(layer), len(layers))

    def _hides(self, labels: Any, image: Any) -> bool:
        section = section_in_view(self._viewer, image) or 0
        counts = self._counter.counts(labels)
        if section >= counts.sections:
            return False
        seen = [each.value for each in kept_classes(labels)]
        painted = sum(int(pixels[section]) for value, pixels in counts.by_value.items() if value != 0 or value in seen)
        return painted > _MOST * int(np.prod(spatial_shape(labels)[-2:], dtype=np.int64))

    # ------------------------------------------------------------ the brush

    def _is_painted_on(self, layer: Any) -> bool:
        return layer is self._viewer.layers.selection.active and str(layer.mode) in _BRUSHES

    def _on_active(self, event: Any = None) -> None:
        from napari.layers import Labels

        active = self._viewer.layers.selection.active
        self._follow(active if isinstance(active, Labels) else None)
        self._on_mode()

    def _follow(self, layer: Any) -> None:
        if self._followed is not None:
            self._followed.events.mode.disconnect(self._on_mode)
        self._followed = layer
        if layer is not None:
            layer.events.mode.connect(self._on_mode)

    def _on_mode(self, event: Any = None) -> None:
        if self._followed is not None and self._is_painted_on(self._followed):
            self._raise_soon()

    def _raise_painted(self) -> None:
        layer = self._followed
        if layer is not None and layer in self._viewer.layers and self._is_painted_on(layer):
            self._stack([layer])
