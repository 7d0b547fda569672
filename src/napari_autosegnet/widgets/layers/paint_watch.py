"""Labels layers watched for what is painted on them, and for what undo and redo change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_autosegnet.widgets.layers.layer_arrays import spatial_shape
from napari_autosegnet.widgets.layers.paint_history import painted_sections
from napari_autosegnet.widgets.layers.view import section_in_view

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels


class PaintWatch(QObject):
    """Tells which sections of layers may have changed.

    Undo and redo say nothing but that the layer is drawn anew, as it is when another section comes into view. They
    touch no sections but those that were painted, so all of these may have changed then.
    """

    #: Something was painted: the layer, a set of its sections, and the item of napari's history.
    painted = Signal(object, object, object)
    #: Sections may have changed: the layer, and a set of their numbers; after `painted`.
    changed = Signal(object, object)
    #: Somebody gave the layer other pixels.
    replaced = Signal(object)

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._layers: list[Labels] = []
        #: Layer, then sections that were ever painted.
        self._painted: dict[int, set[int]] = {}
        #: Layer, then the section that was in view when it was drawn last.
        self._in_view: dict[int, int | None] = {}

    @property
    def layers(self) -> tuple[Labels, ...]:
        """The layers that are watched."""
        return tuple(self._layers)

    def follow(self, layers: Sequence[Labels]) -> tuple[list[Labels], list[Labels]]:
        """Watch these layers from now on, and no others; returns those that are new, and those that are left."""
        new = [layer for layer in layers if not any(layer is other for other in self._layers)]
        left = [layer for layer in self._layers if not any(layer is other for other in layers)]
        for layer in left:
            layer.events.paint.disconnect(self._on_paint)
            layer.events.set_data.disconnect(self._on_shown)
            layer.events.data.disconnect(self._on_data)
            self._painted.pop(id(layer), None)
            self._in_view.pop(id(layer), None)
        for layer in new:
            layer.events.paint.connect(self._on_paint)
            layer.events.set_data.connect(self._on_shown)
            layer.events.data.connect(self._on_data)
        self._layers = [layer for layer in (*self._layers, *new) if not any(layer is other for other in left)]
        return new, left

    def _on_paint(self, event: Any) -> None:
        layer = event.source
        sections = set(painted_sections(event.value, spatial_shape(layer)[:-2]))
        self._painted.setdefault(id(layer), set()).update(sections)
        self.painted.emit(layer, sections, event.value)
        self.changed.emit(layer, sections)

    def _on_shown(self, event: Any) -> None:
        layer = event.source
        painted = self._painted.get(id(layer))
        if not painted:
            return
        section = section_in_view(self._viewer, layer)
        before = self._in_view.get(id(layer), section)
        self._in_view[id(layer)] = section
        if section == before:
            self.changed.emit(layer, set(painted))

    def _on_data(self, event: Any) -> None:
        self._painted.pop(id(event.source), None)
        self.replaced.emit(event.source)
