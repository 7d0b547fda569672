"""Annotation from elsewhere, read with the classes of the session: classes of one name are one class.

A layer that brings class names with it may have other values for them than the session. Then its values are
changed; where that cannot be done the layer is left out, and a line says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QObject, Signal

from napari_autosegnet.errors import UserError
from napari_autosegnet.widgets.annotation.class_list import ClassList
from napari_autosegnet.widgets.forms.background import Background
from napari_autosegnet.widgets.layers.class_colors import LabelClass, kept_classes

if TYPE_CHECKING:
    from napari.layers import Labels


class ClassMatching(QObject):
    """Knows of every annotation layer in use whether its values mean what they mean in the session."""

    #: A layer that had to wait can be used now, or is refused.
    changed = Signal()
    #: What was done with a layer, for the user.
    noticed = Signal(str)

    def __init__(self, class_list: ClassList, background: Background, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._class_list = class_list
        self._background = background
        self._matched: set[int] = set()
        self._under_way: set[int] = set()
        #: Why, and the classes at that time.
        self._refused: dict[int, tuple[str, tuple[LabelClass, ...]]] = {}

    def follow(self, layers: Sequence[Labels], *, is_painted: bool) -> None:
        """Match layers that are new; ``is_painted`` says that others hold pixels of the classes already."""
        alive = {id(layer) for layer in layers}
        self._matched &= alive
        self._under_way &= alive
        now = self._class_list.label_classes
        self._refused = {key: why for key, why in self._refused.items() if key in alive and why[1] == now}
        known = self._matched | self._under_way | set(self._refused)
        # Names first: they say what the values of layers without names are.
        for layer in sorted(layers, key=lambda layer: not kept_classes(layer)):
            if id(layer) not in known:
                self._match(layer, is_painted)

    def is_matched(self, layer: Labels) -> bool:
        """Whether the layer can be read with the session's classes."""
        return id(layer) in self._matched

    @property
    def is_busy(self) -> bool:
        return bool(self._under_way)

    def refusal(self, layer: Labels) -> str | None:
        """Why a layer is left out."""
        return self._refused[id(layer)][0] if id(layer) in self._refused else None

    @property
    def has_refused(self) -> bool:
        return bool(self._refused)

    # ------------------------------------------------------------ matching

    def _match(self, layer: Labels, is_painted: bool) -> None:
        classes, kept = self._class_list, kept_classes(layer)
        if not is_painted:
            classes.adopt(kept)
        values, missing = classes.matched(kept)
        unpainted_counts = bool(kept) and classes.zero_is_class and 0 not in values
        if all(old == new for old, new in values.items()) and not unpainted_counts:
            self._settle(layer, missing)
        elif layer.multiscale or not isinstance(layer.data, np.ndarray):
            # What lies in a file is not changed behind the user's back.
            self._refuse(layer, _clash(layer, kept, classes.label_classes))
        else:
            self._renumber(layer, kept, values, missing)

    def _settle(self, layer: Labels, missing: Sequence[LabelClass]) -> bool:
        try:
            self._class_list.extend(missing)
        except UserError as error:
            self._refuse(layer, f"'{layer.name}' cannot be used: {error}.")
            return False
        self._matched.add(id(layer))
        return True

    def _refuse(self, layer: Labels, line: str) -> None:
        self._refused[id(layer)] = (line, self._class_list.label_classes)

    def _renumber(
        self, layer: Labels, kept: Sequence[LabelClass], values: dict[int, int], missing: Sequence[LabelClass]
    ) -> None:
        array, classes = layer.data, self._class_list.label_classes
        zero = self._class_list.zero_is_class
        taken = {each.value for each in (*classes, *missing)}
        editable = layer.editable

        def fail(text: str) -> None:
            self._under_way.discard(id(layer))
            layer.editable = editable
            self._refuse(layer, f"The values of '{layer.name}' cannot be changed to those of the classes here: {text}.")
            self.changed.emit()

        def show(labels: npt.NDArray[Any] | None) -> None:
            self._under_way.discard(id(layer))
            layer.editable = editable
            if layer.data is array and self._class_list.label_classes == classes:
                if labels is None:
                    self._refuse(layer, _clash(layer, kept, classes))
                elif self._settle(layer, missing):
                    layer.data = labels
                    names = ", ".join(f"'{each.name}' {each.value} -> {values[each.value]}" for each in kept)
                    self.noticed.emit(f"'{layer.name}' has the values of the classes here now: {names}.")
            self.changed.emit()

        self._under_way.add(id(layer))
        layer.editable = False  # a stroke in between would be lost
        self._background.call(lambda: renumbered(array, values, taken, zero_is_class=zero), show, fail)


def renumbered(
    labels: npt.NDArray[Any], values: Mapping[int, int], taken: set[int], *, zero_is_class: bool
) -> npt.NDArray[Any] | None:
    """Labels with other values; pixels of unnamed values that mean something here become unannotated.

    None when nothing can mean unannotated, because 0 is a class.
    """
    strays = [value for value in taken - set(values) if bool((labels == value).any())]
    if zero_is_class and strays:
        return None
    largest = max((0, *values.values()))
    result = labels.astype(np.promote_types(labels.dtype, np.min_scalar_type(largest)))
    for value in strays:
        result[labels == value] = 0
    for old, new in values.items():
        if old != new:
            result[labels == old] = new
    return result


def _clash(layer: Labels, kept: Sequence[LabelClass], classes: Sequence[LabelClass]) -> str:
    here = {each.value: each.name for each in classes}
    what = next(
        (
            f"its value {each.value} is '{each.name}', but here it is '{here[each.value]}'"
            for each in kept
            if here.get(each.value, each.name) != each.name
        ),
        f"its unpainted pixels would count as '{here[0]}'" if 0 in here else "its values are others than here",
    )
    return f"'{layer.name}' cannot be used with these classes: {what}. Untick it, or remove the other annotation first."
