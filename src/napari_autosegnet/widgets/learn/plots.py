"""Live curves of a search or a training, drawn with pyqtgraph.

pyqtgraph takes half a second to import, so that is done in a thread as soon as there is something to draw.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget
from superqt.utils import qthrottled

from napari_autosegnet.data.annotations import PALETTE, class_color
from napari_autosegnet.events import Epoch, Event, QualityMeasured, Step
from napari_autosegnet.plain_text import escaped
from napari_autosegnet.run import RunHistory
from napari_autosegnet.widgets.forms.message_line import wrapped_label

_HEIGHT = 120
_REDRAW = 250  # milliseconds
_MAX_POINTS = 2000
_GRAY = "#8a9099"


@dataclass(frozen=True)
class Curve:
    """A value of the epochs (see `RunHistory.points`), of one network if named, and how it is drawn."""

    key: str
    label: str
    color: str
    dots: bool = False
    network: str = ""


@dataclass(frozen=True)
class Plot:
    """Curves over the epochs of ``step``, also one of every class's IoU or every network's mean IoU as they come."""

    title: str
    step: Step
    curves: tuple[Curve, ...]
    each_class: bool = False
    each_network: bool = False
    tip: str = ""

    @property
    def is_of_quality(self) -> bool:
        """Whether it shows what the checked part says, and not what was learned from."""
        return self.each_class or self.each_network


PLOTS = (
    Plot(
        "Quality of each network",
        "fit",
        (),
        each_network=True,
        tip="Mean IoU on the checked part of your annotation: overlap divided by union, 1 is perfect. Half of the "
        "networks leave after each round; the chosen one is trained to the end.",
    ),
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
    Plot(
        "Quality",
        "train",
        (Curve("mean_iou", "mean", _GRAY),),
        each_class=True,
        tip="IoU of every class on the checked part of your annotation: overlap divided by union, 1 is perfect.",
    ),
    Plot(
        "Error",
        "train",
        (Curve("loss", "training", PALETTE[6]), Curve("validation_loss", "checked part", _GRAY)),
        tip="Loss on what is trained on, and on the checked part of your annotation. Both should fall; when only the "
        "first keeps falling, the network learns by heart.",
    ),
)


def thinned(points: Sequence[tuple[int, float]], most: int = _MAX_POINTS) -> Sequence[tuple[int, float]]:
    """At most so many points, spread evenly; thinned from the end, so that the last one is always there."""
    return points[::-1][:: -(-len(points) // most) or 1][::-1]


class LivePlots(QWidget):
    """Small plots of what was worked on last, one below the other, fed with a run's events.

    Parameters
    ----------
    plots : sequence of Plot
        What is drawn.

    Attributes
    ----------
    rows : list of PlotRow
        One for each plot.
    """

    def __init__(self, plots: Sequence[Plot]) -> None:
        super().__init__()
        self.rows = [PlotRow(plot, self) for plot in plots]
        self._history = RunHistory()
        self._too_little_checked = False
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        self.missing = wrapped_label("To see curves here, install pyqtgraph: pip install pyqtgraph")
        layout.addWidget(self.missing)
        for row in self.rows:
            layout.addWidget(row)
            row.hide()
        self.missing.hide()
        self._redraw_soon = qthrottled(self._redraw, timeout=_REDRAW, leading=False)
        self._import: threading.Thread | None = None

    @property
    def epochs(self) -> int:
        """Epochs of which there is something to draw."""
        return max((len(self._history.epochs(row.plot.step)) for row in self.rows), default=0)

    def set_colors(self, colors: Mapping[str, str]) -> None:
        """Colors (``#rrggbb``) of classes by name."""
        for row in self.rows:
            row.set_colors(colors)
        self._redraw_soon()

    def clear(self) -> None:
        """Forget all curves."""
        self._history = RunHistory()
        self._too_little_checked = False
        self._redraw_soon()

    def add(self, event: Event) -> None:
        """Add the next event of the run; those of epochs have values to draw."""
        self._history.add(event)
        if isinstance(event, QualityMeasured):
            self._too_little_checked = not event.known
        if isinstance(event, Epoch | QualityMeasured):
            self._redraw_soon()

    def _redraw(self) -> None:
        if not self.epochs:
            for row in self.rows:
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
        for row in self.rows:
            # Beside "not known yet", a curve of quality would say the opposite.
            if row.plot.step != self._history.step or (self._too_little_checked and row.plot.is_of_quality):
                row.hide()
            # One new plot at a time: making one takes some milliseconds.
            elif row.draw(self._history):
                self._redraw_soon()
                return

    def changeEvent(self, event: QEvent | None) -> None:  # noqa: N802
        """Follow the theme."""
        super().changeEvent(event)
        if event is not None and event.type() in (QEvent.Type.StyleChange, QEvent.Type.PaletteChange):
            for row in self.rows:
                row.recolor()


class PlotRow(QWidget):
    """A line that names the curves and their last values, and the curves."""

    def __init__(self, plot: Plot, parent: QWidget) -> None:
        super().__init__(parent)
        self.plot = plot
        self._colors: Mapping[str, str] = {}
        self._items: dict[Curve, Any] = {}
        self._view: Any = None
        self._axes: tuple[Any, ...] = ()
        self.legend = wrapped_label()
        self.legend.setTextFormat(Qt.TextFormat.RichText)
        self.setToolTip(plot.tip)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self._rows = QVBoxLayout(self)
        self._rows.setContentsMargins(0, 0, 0, 0)
        self._rows.setSpacing(0)
        self._rows.addWidget(self.legend)

    def set_colors(self, colors: Mapping[str, str]) -> None:
        self._colors = dict(colors)

    def draw(self, history: RunHistory) -> bool:
        """Draw what there is; returns whether there is more to do."""
        curves = {curve: history.points(self.plot.step, curve.key, curve.network) for curve in self._curves(history)}
        curves = {curve: points for curve, points in curves.items() if points}
        if not curves:
            self.hide()
            return False
        if self._view is None:
            self._make_view()
            self.show()
            return True
        for curve in self._items.keys() - curves.keys():
            self._view.removeItem(self._items.pop(curve))
        for curve, points in curves.items():
            if curve not in self._items:
                self._items[curve] = self._make_curve(curve)
            self._items[curve].setData(*zip(*thinned(points), strict=True))
            # One epoch makes no line.
            self._items[curve].setSymbol("o" if curve.dots or len(points) < 2 else None)
        self._view.setXRange(1, max(5, *(points[-1][0] for points in curves.values())), padding=0.02)
        self.legend.setText(self._legend({curve: points[-1][1] for curve, points in curves.items()}))
        self.show()
        return False

    def drawn(self) -> dict[str, tuple[list[int], list[float]]]:
        """Epochs and values of every curve that is drawn, by its label."""
        data = {curve.label: item.getData() for curve, item in self._items.items()}
        return {label: (epochs.tolist(), values.tolist()) for label, (epochs, values) in data.items()}

    def _curves(self, history: RunHistory) -> Iterator[Curve]:
        yield from self.plot.curves
        if self.plot.each_class:
            for place, name in enumerate(history.class_names(self.plot.step)):
                yield Curve(f"iou/{name}", name, self._colors.get(name, class_color(place)))

        if self.plot.each_network:
            for place, network in enumerate(history.networks(self.plot.step)):
                yield Curve("mean_iou", _short(network), class_color(place), network=network)

    def _make_view(self) -> None:
        graphics, self._view, self._axes = make_view(self, _HEIGHT)
        # The wheel scrolls the dock, and the row shows its tool tip.
        graphics.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self._view.disableAutoRange("x")
        self._rows.addWidget(graphics)

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

    def _legend(self, last: Mapping[Curve, float]) -> str:
        parts = [f"<b>{self.plot.title}</b>"]
        for curve, value in last.items():
            mark = f'<span style="color:{curve.color}">&#9632;</span>'
            words = f"{escaped(curve.label)} {value:.3f}".replace(" ", "&nbsp;")
            parts.append(f"{mark}&nbsp;{words}")
        return " &nbsp; ".join(parts)

    def recolor(self) -> None:
        """Take text colors from the theme."""
        color_axes(self, self._axes)


def make_view(parent: QWidget, height: int) -> tuple[Any, Any, tuple[Any, Any]]:
    """Makes an empty plot: the widget, what curves are added to, and the axes at the left and below."""
    pyqtgraph = import_module("pyqtgraph")
    graphics = pyqtgraph.GraphicsView(parent, background=None)
    graphics.setFixedHeight(height)
    # A background that is kept would be the old one when the theme changes.
    graphics.setCacheMode(graphics.CacheModeFlag.CacheNone)
    graphics.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # nothing in it can be operated by keys
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
    color_axes(parent, (left, bottom))
    return graphics, view, (left, bottom)


def color_axes(widget: QWidget, axes: Sequence[Any]) -> None:
    """Give axes the text color of a widget, which is the theme's."""
    color = widget.palette().color(QPalette.ColorRole.WindowText)
    for axis in axes:
        axis.setTextPen(color)
        axis.setPen(_GRAY)


def _short(network: str) -> str:
    """The size of a network in words that fit beside a curve."""
    return network.replace(" of the resolution", "").replace(", 3 cells", "")
