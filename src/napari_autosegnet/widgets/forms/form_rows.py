"""Inputs that say what they are, to the eye, to the mouse and to a screen reader; and sections that fold away."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TypeVar

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFormLayout, QLabel, QLayout, QPushButton, QVBoxLayout, QWidget

AnyWidget = TypeVar("AnyWidget", bound=QWidget)

#: napari's themes do not show where the keyboard is. The blue can be told from the dark and from the light theme.
FOCUS_STYLE = (
    "QPushButton:focus, QComboBox:focus, QLineEdit:focus, QTableWidget:focus, QCheckBox:focus, QScrollArea:focus "
    "{ border: 1px solid #3f96d8; }"
)


def named(widget: AnyWidget, name: str, tip: str = "") -> AnyWidget:
    """The widget with a name for screen readers and, where one is given, a tool tip."""
    widget.setAccessibleName(name)
    if tip:
        widget.setToolTip(tip)
    return widget


def add_row(form: QFormLayout, name: str, widget: QWidget, tip: str) -> QLabel:
    """Add an input below the others, with its label; the tip shows over both."""
    label = QLabel(name)
    label.setToolTip(tip)
    label.setBuddy(named(widget, name, tip))
    form.addRow(label, widget)
    return label


def tab_as_laid_out(widget: QWidget) -> None:
    """Let the Tab key go through the inputs of a widget as they are laid out, after what they lie in.

    Qt goes by when they were made: what is made later comes last in the whole window. So this is to be called again
    after inputs were added.
    """
    place = widget.parentWidget()
    while place is not None and not _is_stop(place):
        place = place.parentWidget()
    stops = [] if place is None else [place]
    stops += [each for each in _laid_out(widget) if _is_stop(each)]
    for before, after in pairwise(stops):
        QWidget.setTabOrder(before, after)


def _laid_out(item: QWidget | QLayout) -> Iterator[QWidget]:
    """A widget and what is inside it, or what is inside a layout."""
    if isinstance(item, QWidget):
        yield item
    layout = item.layout()
    for inner in () if layout is None else map(layout.itemAt, range(layout.count())):
        content = None if inner is None else inner.widget() or inner.layout()
        if content is not None:
            yield from _laid_out(content)


def _is_stop(widget: QWidget) -> bool:
    return bool(widget.focusPolicy() & Qt.FocusPolicy.TabFocus)


def form_layout() -> QFormLayout:
    """Rows of labels and inputs that fit a dock."""
    form = QFormLayout()
    form.setContentsMargins(0, 0, 0, 0)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.DontWrapRows)
    form.setLabelAlignment(Qt.AlignmentFlag.AlignLeft)
    return form


class FoldedSection(QWidget):
    """A section that is folded away at first. What is folded is hidden, so that the Tab key does not stop in it.

    Parameters
    ----------
    title : str
        Text of the button that unfolds it.
    content : QWidget
    """

    def __init__(self, title: str, content: QWidget) -> None:
        super().__init__()
        self._title, self.content = title, content
        self.button = QPushButton()
        self.button.setCheckable(True)
        named(self.button, title, "Click to unfold it, or to fold it away")
        self.button.setStyleSheet(f"QPushButton {{ text-align: left; }} {FOCUS_STYLE}")
        self.button.toggled.connect(self.unfold)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.button)
        layout.addWidget(content)
        self.unfold(False)

    def unfold(self, unfolded: bool) -> None:
        """Show what is in it, or fold it away."""
        self.button.setChecked(unfolded)
        self.button.setText(f"{'▼' if unfolded else '▶'}  {self._title}")
        self.content.setVisible(unfolded)
