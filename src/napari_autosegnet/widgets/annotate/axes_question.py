"""What the planes of a layer are, asked where neither the layer nor its file says it."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QGridLayout, QPushButton, QVBoxLayout, QWidget

from napari_autosegnet.widgets.forms.buttons import push_button
from napari_autosegnet.widgets.forms.message_line import MessageLine
from napari_autosegnet.widgets.layers.axes import (
    full_resolution,
    has_unnamed_planes,
    is_ambiguous,
    is_rgb,
    possible_axes,
    set_axes,
    stated_by_file,
)
from napari_autosegnet.widgets.layers.notes import role
from napari_autosegnet.widgets.session import Session

if TYPE_CHECKING:
    from napari.layers import Image

_NAMES = {"c": "channels", "z": "sections", "t": "time points"}


class AxesQuestion(QWidget):
    """Looks into the files of layers, and asks, once for each layer, what they do not say. Hidden while all is known.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._looked_into: weakref.WeakSet[Image] = weakref.WeakSet()
        self._looking = 0
        self._asked: weakref.ref[Image] | None = None
        self.text = MessageLine()
        self.buttons: dict[str, QPushButton] = {}
        self._grid = QGridLayout()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.text)
        layout.addLayout(self._grid)
        self.setVisible(False)
        session.annotation.pairs_changed.connect(self._follow)
        self._follow()

    def _follow(self) -> None:
        from napari.layers import Image

        images = [layer for layer in self._session.viewer.layers if type(layer) is Image and not role(layer)]
        for layer in images:
            if layer not in self._looked_into and has_unnamed_planes(layer):
                self._looked_into.add(layer)
                self._looking += 1
                take = partial(self._take, layer)
                self._session.background.call(partial(stated_by_file, layer), take, partial(self._refuse, layer))
        unknown = [layer for layer in images if is_ambiguous(layer)]
        if self._looking or not unknown:
            self._asked = None
            self.setVisible(False)
        elif self._asked is None or self._asked() is not unknown[-1]:
            self._ask(unknown[-1])

    def _take(self, layer: Image, axes: str | None) -> None:
        self._looking -= 1
        if axes is not None:
            self._answer(layer, axes)
        else:
            self._follow()

    def _refuse(self, layer: Image, why: str) -> None:
        self._take(layer, None)

    def _ask(self, layer: Image) -> None:
        self._asked = weakref.ref(layer)
        shape = full_resolution(layer).shape[: layer.ndim - 2]
        planes = f"{shape[0]} planes" if len(shape) == 1 else f"{' x '.join(map(str, shape))} planes"
        self.text.say(f"'{layer.name}' has {planes}, and its file does not say what they are. Choose one:")
        for button in self.buttons.values():
            button.deleteLater()
        self.buttons = {}
        for number, axes in enumerate(axes for axes in possible_axes(layer) if not (is_rgb(layer) and "c" in axes)):
            sizes = zip(full_resolution(layer).shape, axes, strict=False)
            words = " x ".join(f"{size} {_NAMES[axis]}" for size, axis in sizes if axis in _NAMES)
            words += ", channels last" * axes.endswith("c")
            button = push_button(
                words,
                "This is asked once; to answer otherwise, open the file again",
                partial(self._answer, layer, axes),
            )
            self.buttons[axes] = button
            place = (self._grid.rowCount(), 0, 1, 2) if axes.endswith("c") else (number // 2, number % 2, 1, 1)
            self._grid.addWidget(button, *place)
        self.setVisible(True)

    def _answer(self, layer: Image, axes: str, _: bool = False) -> None:
        set_axes(layer, axes)
        self._session.annotation.follow_layers()
        self._follow()
