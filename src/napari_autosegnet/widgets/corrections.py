"""What the user painted on a model's result, to be taken over as annotation.

Of every section that is painted on, a copy of what the model said is kept; what differs from it is a correction.
So undo, redo and painting twice need no book-keeping.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QObject, QTimer, Signal

from napari_autosegnet.errors import UserError
from napari_autosegnet.widgets.background import Background
from napari_autosegnet.widgets.class_colors import kept_classes
from napari_autosegnet.widgets.layer_arrays import (
    METADATA,
    full_resolution,
    read_section,
    role,
    sections,
    spatial_shape,
)
from napari_autosegnet.widgets.pixel_counter import Slider, painted_sections
from napari_autosegnet.widgets.section_layers import image_behind, shown_section
from napari_autosegnet.widgets.session import Session

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
        #: Layer, then section: corrected pixels, as counted last.
        self._counted: dict[int, dict[int, int]] = {}
        #: Layer, then sections that may have changed since.
        self._dirty: dict[int, set[int]] = {}
        self._slider = Slider(session.viewer)
        self._background = Background(self)
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
        self._background.close()

    @property
    def pixels(self) -> int:
        """Corrected pixels, as they were counted last; `changed` follows what is painted."""
        return sum(number for counted in self._counted.values() for number in counted.values())

    def take_over(self) -> int:
        """Paint all corrections into the annotation of their images; the number of pixels is returned.

        Raises
        ------
        UserError
            When there are none, when some cannot be taken over, or the image of a result is gone.
        """
        masks = [
            (layer, section, mask)
            for layer in list(self._layers)
            for section, said in self._said.get(id(layer), {}).items()
            if (mask := _corrected(layer, section, said)).any()
        ]
        if not masks:
            raise UserError("nothing was corrected yet; select a result layer and paint over its mistakes")
        # All or nothing: what cannot be taken over is not to be forgotten.
        for layer, section, mask in masks:
            self._check(layer, section, mask)
        taken = sum(self._paint(layer, section, mask) for layer, section, mask in masks)
        self._said.clear()
        self._counted.clear()
        self._dirty.clear()
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
        self._slider.forget(layer)
        self._drop(layer)

    def _on_paint(self, event: Any) -> None:
        layer = event.source
        known = self._said.setdefault(id(layer), {})
        dimensions = len(spatial_shape(layer))
        for section in set(painted_sections(event.value, dimensions)):
            if section >= sections(layer):
                continue
            if section not in known:
                known[section] = _before(layer, section, event.value)
            self._mark(layer, [section])

    def _on_shown(self, event: Any) -> None:
        # Undo and redo say nothing but that the layer is drawn anew; they touch sections that were painted.
        known = self._said.get(id(event.source))
        if known and not self._slider.moved(event.source):
            self._mark(event.source, known)

    def _on_data(self, event: Any) -> None:
        # Another prediction in the same layer: what was painted on the old one is gone with it.
        self._drop(event.source)

    def _drop(self, layer: Labels) -> None:
        self._dirty.pop(id(layer), None)
        self._counted.pop(id(layer), None)
        if self._said.pop(id(layer), None):
            self._timer.start()

    # ------------------------------------------------------------ counting

    def _mark(self, layer: Labels, changed: Iterable[int]) -> None:
        self._dirty.setdefault(id(layer), set()).update(changed)
        self._timer.start()

    def _count(self) -> None:
        """Count the sections that changed, in the thread."""
        wanted = [
            (layer, section, self._said[id(layer)][section])
            for layer in self._layers
            for section in sorted(self._dirty.get(id(layer), ()))
        ]
        self._dirty.clear()
        if not wanted:
            self.changed.emit(self.pixels)
            return

        def work() -> list[int]:
            found = []
            for layer, section, said in wanted:
                if self._background.closing.is_set():
                    break
                found.append(int(np.count_nonzero(_corrected(layer, section, said))))
            return found

        def take(found: list[int]) -> None:
            for (layer, section, said), number in zip(wanted, found, strict=False):
                # Meanwhile the corrections may have been taken over, or another prediction came.
                if self._said.get(id(layer), {}).get(section) is said:
                    self._counted.setdefault(id(layer), {})[section] = number
            self.changed.emit(self.pixels)

        self._background.call(work, take)

    # ------------------------------------------------------------ painting

    def _check(self, layer: Labels, section: int, mask: npt.NDArray[np.bool_]) -> None:
        """Raise a `UserError` if the corrections of a section cannot be taken over."""
        session = self._session
        image = image_behind(session.viewer, layer)
        if image is None:
            raise UserError(f"the image behind '{layer.name}' is closed; open it again to take corrections over")
        kept = kept_classes(layer)
        painted, numbers = np.unique(read_section(layer, section)[mask], return_counts=True)
        of_class = np.isin(painted, [each.value for each in kept])
        if not of_class.all():
            values = ", ".join(str(value) for value in painted[~of_class])
            names = ", ".join(f"{each.value} {each.name}" for each in kept)
            number = int(numbers[~of_class].sum())
            raise UserError(
                f"{number} pixels of '{layer.name}' are painted with {values}, which is no class of the model; "
                f"paint one of its classes there ({names}), or undo them"
            )
        labels = [pair.labels for pair in session.pairs() if pair.image is image]
        if labels and all(each.multiscale for each in labels):
            raise UserError(
                f"'{labels[-1].name}' is a pyramid, which cannot be painted; "
                "untick it in step 1, and the corrections go into a new layer"
            )
        if not labels and session.class_list.zero_is_class:
            raise UserError(
                f"'{image.name}' has no annotation yet, and unpainted pixels count as a class, so a new layer would "
                "say that of all of it; open its full annotation, or untick 'Unpainted pixels are a class' in step 1"
            )

    def _paint(self, layer: Labels, section: int, mask: npt.NDArray[np.bool_]) -> int:
        image = image_behind(self._session.viewer, layer)
        assert image is not None
        target = self._annotation_of(image)
        corrected = read_section(layer, section)[mask]
        painted = np.zeros(corrected.shape, np.int64)
        for number, value in self._values(layer).items():
            painted[corrected == number] = value
        # The layer may show a part of the section only.
        origin = layer.metadata[METADATA].get("origin", (0, 0))
        indices = tuple(axis + int(first) for axis, first in zip(np.nonzero(mask), origin, strict=True))
        if len(spatial_shape(image)) == 3:
            depth = section + (shown_section(layer) if role(layer) == "preview" else 0)
            indices = (np.full(len(indices[0]), depth), *indices)
        target.visible = True  # napari keeps no slice of a hidden layer, and cannot change it then
        target.data_setitem(indices, painted.astype(full_resolution(target).dtype))
        target.refresh()
        return len(corrected)

    def _annotation_of(self, image: Image) -> Labels:
        pairs = self._session.pairs()
        labels = [pair.labels for pair in pairs if pair.image is image and not pair.labels.multiscale]
        return labels[-1] if labels else self._session.new_labels(image)

    def _values(self, layer: Labels) -> dict[int, int]:
        """Value in the annotation for every value of a result: classes of one name are one class."""
        classes, kept = self._session.class_list, kept_classes(layer)
        if self._session.nothing_is_painted():
            classes.adopt(kept)
        values, _ = classes.matched(kept)
        have = {each.name for each in classes.label_classes}
        classes.extend([replace(each, value=values[each.value]) for each in kept if each.name not in have])
        return values


def _can_be_corrected(layer: Labels) -> bool:
    """Whether it is known which image the layer lies on; what passes with the next epoch is not worth the work."""
    about = layer.metadata.get(METADATA, {})
    return role(layer) == "result" or (role(layer) == "preview" and "image" in about and not about.get("passing"))


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
