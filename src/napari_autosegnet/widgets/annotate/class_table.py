"""Table of the classes: color, name, painted pixels, sections; a click takes the class's brush."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QColor, QKeyEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QAbstractScrollArea,
    QColorDialog,
    QHeaderView,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
)

from napari_autosegnet.errors import UserError
from napari_autosegnet.widgets.annotate.class_brushes import KEYS, swatch, take_class
from napari_autosegnet.widgets.forms.form_rows import named
from napari_autosegnet.widgets.forms.message_line import tool_tip
from napari_autosegnet.widgets.forms.window_keys import WindowKeys
from napari_autosegnet.widgets.layers.view import section_in_view
from napari_autosegnet.widgets.session import Session

if TYPE_CHECKING:
    from napari.layers import Labels

_COLOR, _NAME, _HERE, _PIXELS, _SECTIONS = range(5)
_HEADINGS = {
    _COLOR: ("", "Click for another color"),
    _NAME: ("Name", "Double click to rename; a click takes the brush of this class"),
    _HERE: ("Here", "Painted pixels of the section in view"),
    _PIXELS: ("Pixels", "Painted pixels of all sections"),
    _SECTIONS: ("Sections", "Sections in which the class is painted"),
}
#: Keys that take the brush of the class in the chosen row.
_TAKING = (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space)
#: Pixels, before the table scrolls.
_MAX_HEIGHT = 240


class ClassTable(QTableWidget):
    """One row per class of the session."""

    #: A name that was typed cannot be used: why.
    complained = Signal(str)

    def __init__(self, session: Session) -> None:
        super().__init__(0, len(_HEADINGS))
        self._session = session
        named(
            self,
            "Classes",
            "The keys 1 to 9, arrows, Return and Space take the brush of a class; F2 renames it",
        )
        self.setTabKeyNavigation(False)  # or Tab would never leave the table
        self.setHorizontalHeaderLabels([text for text, _ in _HEADINGS.values()])
        for column, (_, tip) in _HEADINGS.items():
            item = self.horizontalHeaderItem(column)
            assert item is not None
            item.setToolTip(tip)
        vertical, horizontal = self.verticalHeader(), self.horizontalHeader()
        assert vertical is not None and horizontal is not None
        vertical.hide()
        horizontal.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        horizontal.setSectionResizeMode(_NAME, QHeaderView.ResizeMode.Stretch)
        horizontal.setSectionResizeMode(_COLOR, QHeaderView.ResizeMode.Fixed)
        self.setColumnWidth(_COLOR, 30)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setShowGrid(False)
        self.setIconSize(QSize(16, 16))
        self.setSizeAdjustPolicy(QAbstractScrollArea.SizeAdjustPolicy.AdjustToContents)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setMaximumHeight(_MAX_HEIGHT)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.cellClicked.connect(self._on_clicked)
        self.itemChanged.connect(self._on_edited)
        session.annotation.classes_changed.connect(self.show_classes)
        # napari's own keys for its tools, which have letters, too, while this table is in sight.
        self._keys = WindowKeys(self, {str(row + 1): partial(self._choose, row) for row in range(KEYS)})
        self.show_classes()

    def release(self) -> None:
        """Let go of napari's window."""
        self._keys.release()

    def show_classes(self) -> None:
        """Fill the table anew."""
        chosen = self.chosen_value()
        self.blockSignals(True)
        classes = self._session.annotation.label_classes
        self.setRowCount(len(classes))
        for row, each in enumerate(classes):
            color = QTableWidgetItem(swatch(each.color), "")
            color.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable)
            color.setToolTip(_HEADINGS[_COLOR][1])
            self.setItem(row, _COLOR, color)
            name = QTableWidgetItem(each.name)
            name.setToolTip(tool_tip(f"{each.name} (value {each.value}). {_HEADINGS[_NAME][1]}"))
            self.setItem(row, _NAME, name)
            for column in (_HERE, _PIXELS, _SECTIONS):
                item = QTableWidgetItem()
                item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable)
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.setItem(row, column, item)
            if each.value == chosen:
                self.selectRow(row)
        self.blockSignals(False)
        self.show_counts()
        self.updateGeometry()

    def show_counts(self) -> None:
        """Bring the numbers up to date."""
        session = self._session
        here = [(pair, section_in_view(session.viewer, pair.image)) for pair in session.annotation.pairs()]
        self.blockSignals(True)
        for row, each in enumerate(session.annotation.label_classes):
            in_view = sum(
                int(session.annotation.counts(pair.labels).of(each.value)[section])
                for pair, section in here
                if section is not None
            )
            for column, number in (
                (_HERE, in_view),
                (_PIXELS, session.annotation.pixels_of(each.value)),
                (_SECTIONS, session.annotation.sections_of(each.value)),
            ):
                item = self.item(row, column)
                if item is not None:
                    item.setText(short_number(number))
                    item.setToolTip(f"{number:,}")
        self.blockSignals(False)

    def chosen_value(self) -> int | None:
        """Value of the class whose row is chosen."""
        rows = {index.row() for index in self.selectedIndexes()}
        classes = self._session.annotation.label_classes
        return next((classes[row].value for row in rows if row < len(classes)), None)

    def choose_last(self) -> None:
        """Choose the class that was added last."""
        self._on_clicked(self.rowCount() - 1, _NAME)
        self.selectRow(self.rowCount() - 1)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:  # noqa: N802
        """Arrows choose a class and its brush; Return and Space take the brush of the chosen row."""
        before = self.currentRow()
        # Space would begin to rename.
        if event is None or event.key() not in _TAKING:
            super().keyPressEvent(event)
            if self.currentRow() == before:
                return
        if 0 <= self.currentRow() < self.rowCount():
            self._take_brush(self.currentRow())

    def _on_clicked(self, row: int, column: int) -> None:
        chosen = self._session.annotation.label_classes[row]
        if column == _COLOR:
            color = QColorDialog.getColor(QColor(chosen.color), self, f"Color of {chosen.name}")
            if color.isValid():
                self._session.annotation.class_list.change(chosen.value, color=color.name())
            return
        self._take_brush(row)

    def _choose(self, row: int) -> None:
        if row < self.rowCount():
            self.setCurrentCell(row, _NAME)
            self._take_brush(row)

    def _take_brush(self, row: int) -> None:
        layer = self._annotation_in_hand()
        if layer is not None:
            take_class(self._session.viewer, layer, self._session.annotation.label_classes[row])

    def _annotation_in_hand(self) -> Labels | None:
        """The annotation layer that is selected, or the topmost one."""
        layers = [pair.labels for pair in self._session.annotation.pairs()]
        active = self._session.viewer.layers.selection.active
        return next((layer for layer in layers if layer is active), layers[-1] if layers else None)

    def _on_edited(self, item: QTableWidgetItem) -> None:
        if item.column() != _NAME:
            return
        value = self._session.annotation.label_classes[item.row()].value
        try:
            self._session.annotation.class_list.change(value, name=item.text())
            self.complained.emit("")
        except UserError as error:
            self.complained.emit(str(error))
            self.show_classes()


def short_number(number: int) -> str:
    """Pixels as ``950``, ``12.3k``, ``4.1M``."""
    if number < 10_000:
        return f"{number}"
    for unit, size in (("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12)):
        if number < 999.5 * size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.1e}"
