"""What the user painted on a model's result, to be taken over as annotation.

Of every section that is painted on, a copy of what the model said is kept; what differs from it is a correction.
So undo, redo and painting twice need no book-keeping.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QObject, QTimer, Signal

from napari_autosegnet.errors import UserError
from napari_autosegnet.widgets.class_colors import kept_classes
from napari_autosegnet.widgets.layer_arrays import (
    METADATA,
    full_resolution,
    read_section,
    role,
    sections,
    spatial_shape,
)
from napari_autosegnet.widgets.layers import Session
from napari_autosegnet.widgets.pixel_counter import painted_sections
from napari_autosegnet.widgets.section_layers import image_behind, shown_section

if TYPE_CHECKING:
    from napari.layers import Image, Labels


class Corrections(QObject):
    """Follows the result layers of a session's viewer."""

    #: The number of corrected pixels changed.
    changed = Signal(int)

    def __init__(self, session: Session, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._layers: list[Labels] = []
        #: Layer, then section of the layer: what the model said there.
        self._said: dict[int, dict[int, npt.NDArray[Any]]] = {}
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(200)
        self._timer.timeout.connect(self._count)
        session.pairs_changed.connect(self._follow)
        self._follow()

    def release(self) -> None:
        self._timer.stop()
        for layer in list(self._layers):
            self._forget(layer)

    @property
    def pixels(self) -> int:
        """Corrected pixels now."""
        return sum(
            int(np.count_nonzero(_corrected(layer, section, said)))
            for layer in self._layers
            for section, said in self._said.get(id(layer), {}).items()
        )

    def take_over(self) -> int:
        """Paint all corrections into the annotation of their images; the number of pixels is returned.

        Raises
        ------
        UserError
            When there are none, or the image of a result is gone.
        """
        taken = 0
        for layer in list(self._layers):
            for section, said in self._said.get(id(layer), {}).items():
                mask = _corrected(layer, section, said)
                if mask.any():
                    taken += self._paint(layer, section, mask)
        if not taken:
            raise UserError("nothing was corrected yet; select a result layer and paint over its mistakes")
        self._said.clear()
        self.changed.emit(0)
        return taken

    # ------------------------------------------------------------ following

    def _follow(self) -> None:
        from napari.layers import Labels

        layers = [
            layer
            for layer in self._session.viewer.layers
            if isinstance(layer, Labels) and not layer.multiscale and _can_be_corrected(layer)
        ]
        for layer in list(self._layers):
            if not any(layer is other for other in layers):
                self._forget(layer)
        for layer in layers:
            if not any(layer is other for other in self._layers):
                self._layers.append(layer)
                layer.events.paint.connect(self._on_paint)
                layer.events.set_data.connect(self._on_shown)
                layer.events.data.connect(self._on_data)

    def _forget(self, layer: Labels) -> None:
        layer.events.paint.disconnect(self._on_paint)
        layer.events.set_data.disconnect(self._on_shown)
        layer.events.data.disconnect(self._on_data)
        self._layers = [other for other in self._layers if other is not layer]
        if self._said.pop(id(layer), None):
            self._timer.start()

    def _on_paint(self, event: Any) -> None:
        layer = event.source
        known = self._said.setdefault(id(layer), {})
        dimensions = len(spatial_shape(layer))
        for section in set(painted_sections(event.value, dimensions)):
            if section not in known and section < sections(layer):
                known[section] = _before(layer, section, event.value)
        self._timer.start()

    def _on_shown(self, event: Any) -> None:
        if self._said.get(id(event.source)):
            self._timer.start()

    def _on_data(self, event: Any) -> None:
        # Another prediction in the same layer: what was painted on the old one is gone with it.
        if self._said.pop(id(event.source), None):
            self._timer.start()

    def _count(self) -> None:
        self.changed.emit(self.pixels)

    # ------------------------------------------------------------ painting

    def _paint(self, layer: Labels, section: int, mask: npt.NDArray[np.bool_]) -> int:
        session = self._session
        image = image_behind(session.viewer, layer)
        if image is None:
            raise UserError(f"the image behind '{layer.name}' is closed; open it again to take corrections over")
        target = self._annotation_of(image)
        values = self._values(layer)
        corrected = read_section(layer, section)[mask]
        painted = np.zeros_like(corrected)
        for number, value in values.items():
            painted[corrected == number] = value
        kept = painted != 0
        place = np.nonzero(mask)
        indices = tuple(axis[kept] for axis in place)
        if len(spatial_shape(image)) == 3:
            depth = section + (shown_section(layer) if role(layer) == "preview" else 0)
            indices = (np.full(len(indices[0]), depth), *indices)
        target.visible = True  # napari keeps no slice of a hidden layer, and cannot change it then
        target.data_setitem(indices, painted[kept].astype(full_resolution(target).dtype))
        target.refresh()
        return int(np.count_nonzero(kept))

    def _annotation_of(self, image: Image) -> Labels:
        labels = [pair.labels for pair in self._session.pairs() if pair.image is image]
        return labels[-1] if labels else self._session.new_labels(image)

    def _values(self, layer: Labels) -> dict[int, int]:
        """Value in the annotation for every value of a result: classes of one name are one class."""
        classes = self._session.class_list
        classes.adopt(kept_classes(layer))
        found = {}
        for each in kept_classes(layer):
            known = next((one for one in classes.label_classes if one.name == each.name), None)
            found[each.value] = (known or classes.add(each.name, each.color)).value
        return found


def _can_be_corrected(layer: Labels) -> bool:
    """Whether it is known which image the layer lies on; the preview of a training is gone with the next epoch."""
    return role(layer) == "result" or (role(layer) == "preview" and "image" in layer.metadata[METADATA])


def _before(layer: Labels, section: int, item: list[Any]) -> npt.NDArray[Any]:
    """A section as it was before a history item was painted."""
    flat = len(spatial_shape(layer)) == 2
    before = np.array(read_section(layer, section))
    for atom in reversed(item):
        if hasattr(atom, "slice_key"):
            key, old = atom.slice_key, atom.old_values
            if not flat:
                if not key[0].start <= section < key[0].stop:
                    continue
                inside = section - key[0].start
                if atom.mask is None:
                    old, mask = old[inside], None
                else:
                    mask = atom.mask[inside]
                    first = int(np.count_nonzero(atom.mask[:inside]))
                    old = old[first : first + int(np.count_nonzero(mask))]
                key = key[1:]
            else:
                mask = atom.mask
            region = before[key]
            if mask is None:
                region[...] = old
            else:
                region[mask] = old
        else:
            indices, old, _ = atom
            if flat:
                before[indices] = old
            else:
                here = indices[0] == section
                before[tuple(axis[here] for axis in indices[1:])] = np.asarray(old)[here]
    return before


def _corrected(layer: Labels, section: int, said: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    now = read_section(layer, section)
    return np.asarray((now != said) & (now != 0))
