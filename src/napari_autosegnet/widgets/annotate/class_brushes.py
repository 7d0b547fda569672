"""Buttons and keys that take the brush of a class, for the steps that have no table of the classes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QLabel, QPushButton, QWidget
from superqt import QFlowLayout

from napari_autosegnet.errors import UserError
from napari_autosegnet.widgets.forms.form_rows import tab_as_laid_out
from napari_autosegnet.widgets.forms.message_line import tool_tip
from napari_autosegnet.widgets.forms.window_keys import WindowKeys
from napari_autosegnet.widgets.layers.class_colors import LabelClass
from napari_autosegnet.widgets.session import Session

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

#: Classes that have a key.
KEYS = 9
_MAX_LETTERS = 16


class ClassBrushes(QWidget):
    """A button for each class; while they are in sight, the keys 1 to 9 press the first nine of them.

    Parameters
    ----------
    session : Session
    parent : QWidget, optional

    Attributes
    ----------
    buttons : list of QPushButton
        In the order of the classes.
    """

    #: Why there is no brush; empty when there is.
    said = Signal(str)

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._shown: tuple[LabelClass, ...] = ()
        self.buttons: list[QPushButton] = []
        self._row = QFlowLayout(self)
        self._row.setContentsMargins(0, 0, 0, 0)
        self._row.addWidget(QLabel("Paint:"))
        self._keys = WindowKeys(self, {str(index + 1): partial(self.take, index) for index in range(KEYS)})
        session.annotation.classes_changed.connect(self._show_classes)
        self._show_classes()

    def release(self) -> None:
        """Let go of napari's window."""
        self._keys.release()

    def take(self, index: int) -> None:
        """Take the brush of a class, by its place in the list, for the annotation of the image in view."""
        session = self._session
        image = session.layers.image_in_view()
        if image is None or index >= len(self._shown):
            return
        try:
            layer = session.annotation.annotation_of(image) or session.annotation.new_labels(image)
        except UserError as error:
            self.said.emit(str(error))
            return
        if not layer.visible:  # else napari would go back to the tool of when it was hidden
            layer.visible = True
        take_class(session.viewer, layer, self._shown[index])
        self.said.emit("")

    def _show_classes(self) -> None:
        classes = self._session.annotation.label_classes
        if classes == self._shown:
            return
        self._shown = classes
        for button in self.buttons:
            self._row.removeWidget(button)
            button.hide()
            button.deleteLater()
        self.buttons = [self._button(index, each) for index, each in enumerate(classes)]
        for button in self.buttons:
            self._row.addWidget(button)
        if (step := self.parentWidget()) is not None:
            tab_as_laid_out(step)

    def _button(self, index: int, each: LabelClass) -> QPushButton:
        key = f"{index + 1}" if index < KEYS else ""
        name = each.name if len(each.name) <= _MAX_LETTERS else f"{each.name[: _MAX_LETTERS - 4].rstrip()} ..."
        button = QPushButton(swatch(each.color), f"{key} {name}".strip().replace("&", "&&"))
        button.setAccessibleName(f"Brush of {each.name}")
        where = "Takes the brush of this class, for the annotation of the image in view"
        button.setToolTip(tool_tip(f"{each.name}. {where}{key and f' (key {key})'}. What you paint counts at once"))
        button.clicked.connect(lambda: self.take(index))
        return button


def swatch(color: str) -> QIcon:
    """A square of a color."""
    pixmap = QPixmap(16, 16)
    pixmap.fill(QColor(color))
    return QIcon(pixmap)


def take_class(viewer: ViewerModel, layer: Labels, each: LabelClass) -> None:
    """Select a layer, with the brush of a class in hand, or the eraser for what is not painted."""
    viewer.layers.selection.active = layer
    if each.value == 0:
        layer.mode = "erase"
        return
    layer.selected_label = each.value
    if layer.mode not in ("paint", "polygon", "fill"):
        layer.mode = "paint"
