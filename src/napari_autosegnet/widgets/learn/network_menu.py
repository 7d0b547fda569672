"""The networks of a run to choose from: quality against speed, and what each costs on the image in view."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from math import log10, prod
from typing import Any, get_args

import numpy as np
from qtpy.QtCore import QEvent, Qt, Signal
from qtpy.QtWidgets import QComboBox, QVBoxLayout, QWidget

from napari_autosegnet.data.annotations import PALETTE
from napari_autosegnet.duration import format_duration, rough_duration
from napari_autosegnet.jobs.menu import MenuEntry, choose_network, read_menu
from napari_autosegnet.run import Run
from napari_autosegnet.settings import Goal
from napari_autosegnet.widgets.forms.form_rows import named, tab_as_laid_out
from napari_autosegnet.widgets.forms.message_line import MessageLine, sentence, tool_tip, wrapped_label
from napari_autosegnet.widgets.forms.settings_form import narrow
from napari_autosegnet.widgets.layers.layer_arrays import spatial_shape
from napari_autosegnet.widgets.learn.plots import color_axes, make_view
from napari_autosegnet.widgets.session import Session

_HEIGHT = 195
#: Pixels that a list needs besides its texts.
_SCROLL_BAR = 24
_CHOSEN, _OTHER = "#d55e00", PALETTE[1]


class NetworkMenu(QWidget):
    """A plot to click on, and a list for the keyboard; hidden while there is nothing to choose from.

    Parameters
    ----------
    session : Session
    """

    #: Another network became the run's model.
    chosen = Signal()

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._run: Run | None = None
        self._entries: list[MenuEntry] = []
        self._view: Any = None
        self._axes: tuple[Any, ...] = ()
        self._items: list[Any] = []
        self.points: Any = None
        self.plot: QWidget | None = None
        self.title = wrapped_label(
            "<b>Networks to choose from</b>: mean IoU against speed. Click on a point to take it"
        )
        self.box = named(
            QComboBox(),
            "Network",
            "Quality with its 90 % interval, and time to apply the network to all of the image in view, without "
            "reading and writing. The chosen one is the run's model and is shown on the slice in view",
        )
        narrow(self.box)
        self.box.activated.connect(lambda index: self.choose(self._entries[index].name))
        self.about = wrapped_label()
        self.message = MessageLine()
        self._rows = QVBoxLayout(self)
        self._rows.setContentsMargins(0, 0, 0, 0)
        for widget in (self.title, self.box, self.about, self.message):
            self._rows.addWidget(widget)
        session.annotation.pairs_changed.connect(self._show_costs)
        session.viewer.layers.selection.events.active.connect(self._show_costs)
        self.hide()

    def release(self) -> None:
        """Let go of the viewer."""
        self._session.viewer.layers.selection.events.active.disconnect(self._show_costs)

    def changeEvent(self, event: QEvent | None) -> None:  # noqa: N802
        """Follow the theme."""
        super().changeEvent(event)
        if event is not None and event.type() in (QEvent.Type.StyleChange, QEvent.Type.PaletteChange):
            color_axes(self, self._axes)

    def show_run(self, run: Run | None) -> None:
        """Offer the networks of a run's fit; none for None."""
        self._run = run
        self.message.clear()
        if run is None:
            self._take(None, [])
            return

        def read() -> list[MenuEntry]:
            entries = read_menu(run)
            if entries and find_spec("pyqtgraph") is not None:
                import_module("pyqtgraph")  # takes half a second
            return entries

        self._session.background.call(read, lambda entries: self._take(run, entries), self._refuse)

    def choose(self, name: str) -> None:
        """Make a network the run's model, in a thread."""
        run = self._run
        if run is None or any(each.chosen and each.name == name for each in self._entries):
            return
        self.message.say("Taking this network ...")

        def choose() -> list[MenuEntry]:
            choose_network(run, name)
            return read_menu(run)

        def take(entries: list[MenuEntry]) -> None:
            self.message.clear()
            self._take(run, entries)
            self.chosen.emit()

        self._session.background.call(choose, take, self._refuse)

    def _refuse(self, text: str) -> None:
        self.message.say(sentence(text), "error")
        self._show_costs()

    def _take(self, run: Run | None, entries: list[MenuEntry]) -> None:
        if run is not self._run:
            return
        self._entries = entries
        self.setVisible(bool(entries))
        # Of one network there is nothing to choose; where little is painted, nobody knows how good it is, either.
        several = len(entries) > 1
        for widget in (self.title, self.box, self.plot):
            if widget is not None:
                widget.setVisible(several)
        if entries:
            self._show_costs()
        if several:
            self._draw()

    def _show_costs(self, _: object = None) -> None:
        """Say what each network costs on the image in view."""
        if not self._entries:
            return
        image = self._session.layers.image_in_view()
        voxels = None if image is None else prod(spatial_shape(image))
        self.box.clear()
        for index, entry in enumerate(self._entries):
            self.box.addItem(f"{_quality(entry)}, {_cost(entry, voxels, rough=True)}{_goals(entry)}")
            self.box.setItemData(index, tool_tip(_words(entry)), Qt.ItemDataRole.ToolTipRole)
            if entry.chosen:
                self.box.setCurrentIndex(index)
        if (choices := self.box.view()) is not None:
            choices.setMinimumWidth(choices.sizeHintForColumn(0) + _SCROLL_BAR)
        chosen = next((entry for entry in self._entries if entry.chosen), self._entries[0])
        time = "" if image is None else f" It takes {_cost(chosen, voxels)} for all of '{image.name}'."
        self.about.setText(
            f"{sentence(chosen.description)} {chosen.megapixels_per_second:.2g} million pixels per second.{time}"
        )

    def _draw(self) -> None:
        if find_spec("pyqtgraph") is None:
            return
        pyqtgraph = import_module("pyqtgraph")
        if self._view is None:
            graphics, self._view, self._axes = make_view(self, _HEIGHT)
            self.plot = graphics
            graphics.setToolTip("Up is better, right is faster. Click on a point to choose its network")
            self._axes[1].enableAutoSIPrefix(False)
            self._axes[1].setLabel("million pixels per second")
            color_axes(self, self._axes)
            self._axes[1].setHeight(42)
            graphics.centralWidget.setContentsMargins(0, 2, 0, 5)  # pyqtgraph's labels reach out of their axis
            self._rows.insertWidget(1, graphics)
            if (step := self.parentWidget()) is not None:
                tab_as_laid_out(step)
        for item in self._items:
            self._view.removeItem(item)
        speeds = [log10(each.megapixels_per_second) for each in self._entries]
        values = [each.mean_iou for each in self._entries]
        colors = [_CHOSEN if each.chosen else _OTHER for each in self._entries]
        self._items = []
        for entry, speed, color in zip(self._entries, speeds, colors, strict=True):
            ends = np.array([min(entry.interval[0], entry.mean_iou), max(entry.interval[1], entry.mean_iou)])
            self._items.append(pyqtgraph.PlotDataItem(np.array([speed, speed]), ends, pen=pyqtgraph.mkPen(color)))
        self.points = pyqtgraph.ScatterPlotItem(
            x=speeds,
            y=values,
            size=[13 if each.chosen else 10 for each in self._entries],
            brush=colors,
            pen=None,
            data=[each.name for each in self._entries],
        )
        self.points.sigClicked.connect(lambda _, points: self.choose(points[0].data()))
        self._items.append(self.points)
        for item in self._items:
            self._view.addItem(item)
        first, last = min(speeds) - 0.15, max(speeds) + 0.15
        self._view.setXRange(first, last, padding=0)
        self._axes[1].setTicks([[(log10(tick), f"{tick:g}") for tick in speed_ticks(first, last)]])


def speed_ticks(first: float, last: float) -> list[float]:
    """Round numbers between two logarithms: 1, 2, 5, 10, ... and more of them where there would be fewer than three."""
    ticks: list[float] = []
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        every = [step * 10.0**power for power in range(-4, 6) for step in steps]
        ticks = [tick for tick in every if first <= log10(tick) <= last]
        if len(ticks) >= 3:
            break
    return ticks


def _quality(entry: MenuEntry) -> str:
    """``0.87 ± 0.18``, ``0.791 ± 0.012``: with as many digits as are known."""
    half = (entry.interval[1] - entry.interval[0]) / 2
    digits = 2 if half >= 0.05 else 3
    return f"{entry.mean_iou:.{digits}f} ± {half:.{digits}f}"


def _goals(entry: MenuEntry) -> str:
    if len(entry.goals) == len(get_args(Goal)):
        return " (all goals)"
    return f" ({', '.join(entry.goals)})" if entry.goals else ""


def _words(entry: MenuEntry) -> str:
    """All that is known of a network, for which the list has no room."""
    goals = f" Best for: {', '.join(entry.goals)}." if entry.goals else ""
    low, high = entry.interval
    return (
        f"{sentence(entry.description)} Mean IoU {entry.mean_iou:.3f}, with 90 % confidence between {low:.3f} and "
        f"{high:.3f}. {entry.megapixels_per_second:.2g} million pixels per second.{goals}"
    )


def _cost(entry: MenuEntry, voxels: int | None, *, rough: bool = False) -> str:
    """``1 h 20 min`` for so many voxels; ``12.3 Mpx/s`` where there is no image."""
    if voxels is None:
        return f"{entry.megapixels_per_second:.2g} Mpx/s"
    seconds = 3600 * entry.hours(voxels)
    if seconds < 1:
        return "< 1 s" if rough else "under a second"
    return rough_duration(seconds) if rough else format_duration(seconds)
