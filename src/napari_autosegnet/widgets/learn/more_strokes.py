"""A word when more strokes are worth more than more time, and the way to where they are."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_autosegnet.events import Epoch, Event, LabelsTaken, QualityMeasured, Started
from napari_autosegnet.quality import LEAST_PIXELS, Checked
from napari_autosegnet.widgets.forms.buttons import push_button
from napari_autosegnet.widgets.forms.message_line import MessageLine

#: Seconds of learning before anything is said, and by how much the quality rises in its second half if time helps.
MIN_SECONDS, RISE = 60.0, 0.01
#: With so many checked pixels of every class, what is measured is what there is.
ENOUGH = 4 * LEAST_PIXELS


class QualityCurve:
    """The best quality so far by time, since there was something new to learn from."""

    def __init__(self) -> None:
        self._points: list[tuple[float, float]] = []
        self._since = 0.0
        self._seconds = 0.0
        self._checked: Checked | None = None

    def add(self, event: Event) -> None:
        """Take the next event of a run into account."""
        match event:
            case Started():
                self.__init__()  # type: ignore[misc]
            case LabelsTaken():
                # What was measured before was measured on other pixels.
                self._points, self._since, self._checked = [], self._seconds, None
            case QualityMeasured():
                self._checked = event
            case Epoch(seconds=float(seconds)):
                self._seconds = seconds
                if event.mean_iou is not None:
                    best = max(event.mean_iou, self._points[-1][1] if self._points else 0.0)
                    self._points.append((seconds, best))

    @property
    def flat_for(self) -> float | None:
        """Seconds for which the quality has hardly risen, if that is half of the time; None while it rises."""
        learned = self._seconds - self._since
        half = self._since + learned / 2
        before = [best for seconds, best in self._points if seconds <= half]
        if learned < MIN_SECONDS or not before or self._points[-1][1] - before[-1] >= RISE:
            return None
        return learned / 2

    @property
    def few(self) -> list[str]:
        """Classes of which few pixels are checked."""
        checked = self._checked
        return [] if checked is None else [name for name, count in checked.pixels.items() if count < ENOUGH]


class MoreStrokes(QWidget):
    """Says so, and offers to go where the network is least sure."""

    #: The button was pressed.
    asked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._curve = QualityCurve()
        self.words = MessageLine()
        self.button = push_button(
            "Go to the least certain place",
            "Of the slice in view. What you paint there is learned from at once",
            lambda: self.asked.emit(),
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.words)
        layout.addWidget(self.button)
        self.show_state(active=False)

    def add(self, event: Event) -> None:
        """Take the next event of the run into account."""
        self._curve.add(event)

    def show_state(self, *, active: bool) -> None:
        """Say it while somebody learns."""
        seconds, few = self._curve.flat_for, self._curve.few
        if not active or seconds is None or not few:
            self.setVisible(False)
            return
        self.words.say(
            f"For {_minutes(seconds)} it has hardly become better, and little is painted to check it with: more "
            "strokes are worth more than more time now, best where it is least certain."
        )
        self.setVisible(True)


def _minutes(seconds: float) -> str:
    return f"{round(seconds)} s" if seconds < 120 else f"{round(seconds / 60)} min"
