"""Live curves of a search or a training, drawn with pyqtgraph.

pyqtgraph takes half a second to import, so that is done in a thread as soon as there is something to draw.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QLabel, QSizePolicy, QVBoxLayout, QWidget
from superqt.utils import qthrottled

from napari_autosegnet.data.annotations import PALETTE
from napari_autosegnet.plain_text import escaped

_HEIGHT = 120
_REDRAW = 250  # milliseconds
_MOST_POINTS = 2000
_GREY = "#8a9099"


@dataclass(frozen=True)
class Curve:
    """A value of the events, ``key`` or ``key/name``, and how it is drawn."""

    key: str
    label: str
    color: str
    dots: bool = False


@dataclass(frozen=True)
class Plot:
    """Curves over the epochs of ``step``; those of ``each`` (a value by name) appear as they come."""

    title: str
    step: str
    curves: tuple[Curve, ...]
    each: str = ""
    tip: str = ""


SEARCH_PLOTS = (
    Plot(
        "Quality",
        "search",
        (
            Curve("reward", "tried on average", PALETTE[1], dots=True),
            Curve("best_reward", "best", PALETTE[0]),
        ),
        tip="How well the tried networks segment the checked part of your annotation: mean IoU, 1 is perfect. "
        "The search calls it reward.",
    ),
    Plot(
        "Error",
        "search",
        (Curve("loss", "loss", PALETTE[6]),),
        tip="Training loss of the weights that the tried networks share; it should fall.",
    ),
)
TRAIN_PLOTS = (
    Plot(
        "Quality",
        "train",
        (Curve("mean_iou", "mean", _GREY),),
        each="iou",
        tip="IoU of every class on the checked part of your annotation: overlap divided by union, 1 is perfect.",
    ),
    Plot(
        "Error",
        "train",
        (Curve("loss", "training", PALETTE[6]), Curve("validation_loss", "checked part", _GREY)),
        tip="Loss on what is trained on, and on the checked part of your annotation. Both should fall; when only the "
        "first goes on falling, the network learns by heart.",
    ),
)


@dataclass
class _Course:
    """Values of one curve by epoch; of an epoch that was computed twice the later one counts."""

    curve: Curve
    values: dict[int, float] = field(default_factory=dict)

    def points(self) -> tuple[list[int], list[float]]:
        epochs = sorted(self.values)
        step = -(-len(epochs) // _MOST_POINTS) or 1
        # Thinned from the end, so that the last epoch is always there.
        epochs = epochs[::-1][::step][::-1]
        return epochs, [self.values[epoch] for epoch in epochs]


class LivePlots(QWidget):
    """One small plot below the other, fed with a run's events.

    Parameters
    ----------
    plots : sequence of Plot
        What is drawn.
    parent : QWidget, optional
    """

    def __init__(self, plots: Sequence[Plot], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._plots = [_PlotRow(plot, self) for plot in plots]
        self._colors: dict[str, str] = {}
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        self.missing = QLabel("To see curves here, install pyqtgraph: pip install pyqtgraph")
        self.missing.setWordWrap(True)
        layout.addWidget(self.missing)
        for row in self._plots:
            layout.addWidget(row)
            row.hide()
        self.missing.hide()
        self._redraw_soon = qthrottled(self._redraw, timeout=_REDRAW, leading=False)
        self._import: threading.Thread | None = None

    @property
    def epochs(self) -> int:
        """Epochs of which there is something to draw."""
        return max((len(course.values) for row in self._plots for course in row.courses.values()), default=0)

    def set_colors(self, colors: Mapping[str, str]) -> None:
        """Colours (``#rrggbb``) of classes by name."""
        self._colors = dict(colors)
        for row in self._plots:
            row.set_colors(self._colors)
        self._redraw_soon()

    def clear(self) -> None:
        """Forget all curves."""
        for row in self._plots:
            row.clear()
        self._redraw_soon()

    def take(self, event: Mapping[str, Any]) -> None:
        """Add the values of an event, where it is an epoch's."""
        if event.get("event") == "started":
            for row in self._plots:
                row.begin(event)
        if event.get("event") != "epoch":
            return
        for row in self._plots:
            row.take(event, self._colors)
        self._redraw_soon()

    def _redraw(self) -> None:
        if not self.epochs:
            for row in self._plots:
                row.hide()
            return
        if find_spec("pyqtgraph") is None:
            self.missing.show()
            return
        if self._import is None:
            self._import = threading.Thread(target=import_module, args=("pyqtgraph",), daemon=True)
            self._import.start()
        if self._import.is_alive():
            self._redraw_soon()
            return
        for row in self._plots:
            # One new plot at a time: making one takes some milliseconds.
            if row.draw():
                self._redraw_soon()
                return

    def changeEvent(self, event: QEvent | None) -> None:  # noqa: N802
        """Follow the theme."""
        super().changeEvent(event)
        if event is not None and event.type() in (QEvent.Type.StyleChange, QEvent.Type.PaletteChange):
            for row in self._plots:
                row.recolor()


class _PlotRow(QWidget):
    """A line that names the curves and their last values, and the curves."""

    def __init__(self, plot: Plot, parent: QWidget) -> None:
        super().__init__(parent)
        self.plot = plot
        self.courses: dict[str, _Course] = {curve.key: _Course(curve) for curve in plot.curves}
        self._is_new = False
        self._items: dict[str, Any] = {}
        self._view: Any = None
        self._axes: tuple[Any, ...] = ()
        self.legend = QLabel()
        self.legend.setTextFormat(Qt.TextFormat.RichText)
        self.legend.setWordWrap(True)
        self.setToolTip(plot.tip)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self._rows = QVBoxLayout(self)
        self._rows.setContentsMargins(0, 0, 0, 0)
        self._rows.setSpacing(0)
        self._rows.addWidget(self.legend)

    def begin(self, event: Mapping[str, Any]) -> None:
        self._is_new = self._is_new or event.get("step") == self.plot.step

    def take(self, event: Mapping[str, Any], colors: Mapping[str, str]) -> None:
        if event.get("step") != self.plot.step or not isinstance(event.get("epoch"), int):
            return
        if self._is_new:
            # A job that goes on from epoch 7 keeps the six before; one that begins anew, with more labels, none.
            self._is_new = False
            for course in self.courses.values():
                course.values = {epoch: value for epoch, value in course.values.items() if epoch < event["epoch"]}
        for key, value in self._values(event, colors):
            if isinstance(value, int | float) and value == value:
                self.courses[key].values[event["epoch"]] = float(value)

    def _values(self, event: Mapping[str, Any], colors: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
        for curve in self.plot.curves:
            yield curve.key, event.get(curve.key)
        found = event.get(self.plot.each) if self.plot.each else None
        for place, (name, value) in enumerate(found.items() if isinstance(found, dict) else ()):
            key = f"{self.plot.each}/{name}"
            if key not in self.courses:
                color = colors.get(name, PALETTE[place % len(PALETTE)])
                self.courses[key] = _Course(Curve(key, str(name), color))
            yield key, value

    def set_colors(self, colors: Mapping[str, str]) -> None:
        for key, course in self.courses.items():
            color = colors.get(course.curve.label)
            if key.startswith(f"{self.plot.each}/") and color not in (None, course.curve.color):
                course.curve = Curve(key, course.curve.label, color)
                if (item := self._items.pop(key, None)) is not None:
                    self._view.removeItem(item)

    def clear(self) -> None:
        for key in list(self.courses):
            self.courses[key].values.clear()
            if (item := self._items.get(key)) is not None:
                item.setData([], [])

    def draw(self) -> bool:
        """Draw what there is; returns whether there is more to do."""
        if not any(course.values for course in self.courses.values()):
            self.hide()
            return False
        if self._view is None:
            self._make_view()
            self.show()
            return True
        last = 5
        for key, course in self.courses.items():
            if key not in self._items and course.values:
                self._items[key] = self._make_curve(course.curve)
            if key in self._items:
                epochs, values = course.points()
                self._items[key].setData(epochs, values)
                # One epoch makes no line.
                self._items[key].setSymbol("o" if course.curve.dots or len(epochs) < 2 else None)
                last = max(last, *epochs) if epochs else last
        self._view.setXRange(1, last, padding=0.02)
        self.legend.setText(self._legend())
        self.show()
        return False

    def _make_view(self) -> None:
        pyqtgraph = import_module("pyqtgraph")
        graphics = pyqtgraph.GraphicsView(self, background=None)
        graphics.setFixedHeight(_HEIGHT)
        # A background that is kept would be the old one when the theme changes.
        graphics.setCacheMode(graphics.CacheModeFlag.CacheNone)
        # The wheel scrolls the dock, and the row shows its tool tip.
        graphics.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        graphics.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # nothing in it can be operated
        canvas = pyqtgraph.GraphicsLayout()
        canvas.setContentsMargins(0, 2, 0, 0)
        graphics.setCentralItem(canvas)
        view = pyqtgraph.ViewBox(enableMenu=False, enableMouse=False)
        left = pyqtgraph.AxisItem("left", linkView=view)
        left.setWidth(34)
        bottom = pyqtgraph.AxisItem("bottom", linkView=view)
        bottom.setHeight(22)
        for axis in (left, bottom):
            axis.setStyle(tickLength=3, tickTextOffset=3)
        canvas.addItem(left, 0, 0)
        canvas.addItem(view, 0, 1)
        canvas.addItem(bottom, 1, 1)
        canvas.layout.setSpacing(0)
        view.disableAutoRange("x")
        self._view, self._axes = view, (left, bottom)
        self._rows.addWidget(graphics)
        self.recolor()

    def _make_curve(self, curve: Curve) -> Any:
        pyqtgraph = import_module("pyqtgraph")
        pen = pyqtgraph.mkPen(curve.color, width=2)
        item = pyqtgraph.PlotDataItem(
            pen=None if curve.dots else pen,
            symbolSize=4,
            symbolPen=None,
            symbolBrush=curve.color,
        )
        self._view.addItem(item)
        return item

    def _legend(self) -> str:
        parts = [f"<b>{self.plot.title}</b>"]
        for course in self.courses.values():
            if course.values:
                last = course.values[max(course.values)]
                mark = f'<span style="color:{course.curve.color}">&#9632;</span>'
                parts.append(f"{mark}&nbsp;{escaped(course.curve.label)}&nbsp;{last:.3f}")
        return " &nbsp; ".join(parts)

    def recolor(self) -> None:
        """Take text colours from the theme."""
        if not self._axes:
            return
        color = self.palette().color(QPalette.ColorRole.WindowText)
        pyqtgraph = import_module("pyqtgraph")
        for axis in self._axes:
            axis.setTextPen(color)
            axis.setPen(pyqtgraph.mkPen(_GREY))
