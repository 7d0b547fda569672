"""How far the slice is that is segmented, and a button to cancel it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QProgressBar, QWidget
from superqt.utils import qdebounced

from napari_autosegnet.events import Event, ProgressMade, Report
from napari_autosegnet.interruption import ShouldStop
from napari_autosegnet.widgets.forms.background import Background
from napari_autosegnet.widgets.forms.buttons import push_button

_T = TypeVar("_T")
#: Milliseconds before the bar is shown: most slices are done by then, and nothing flickers.
_WAIT = 300
_PAUSE = 0.25  # seconds between two looks at how far it is: each draws the whole window


class SliceProgress(QWidget):
    """Makes calls in a thread, with a bar and *Cancel* while one takes long.

    *Cancel* takes effect at once, also while a model is loaded or a file is read, which cannot be interrupted: that
    comes to its end in the thread, and its result is dropped.
    """

    #: The call under way was cancelled.
    cancelled = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._background = Background(self)
        self._stop: threading.Event | None = None
        self.bar = QProgressBar()
        self.cancel_button = push_button("Cancel", "The layers stay as they are", self.cancel)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.bar, 1)
        layout.addWidget(self.cancel_button)
        self._show_soon = qdebounced(lambda: self.setVisible(True), timeout=_WAIT, parent=self)
        self.setVisible(False)

    @property
    def is_under_way(self) -> bool:
        """Whether there is a call that was not cancelled."""
        return self._stop is not None

    def call(
        self, work: Callable[[Report, ShouldStop], _T], then: Callable[[_T], None], failed: Callable[[str], None]
    ) -> None:
        """Call ``work`` in the thread, then ``then`` with its result, or ``failed`` with the line of its error.

        Neither is called once it was cancelled. ``work`` gets what it is to report ``progress`` to, and what it is to
        ask whether it should stop.
        """
        self._stop = stop = threading.Event()
        closing, latest = self._background.closing, -_PAUSE
        self.bar.setRange(0, 0)
        self._show_soon()

        def report(event: Event) -> None:
            nonlocal latest
            if isinstance(event, ProgressMade) and time.monotonic() - latest >= _PAUSE:
                latest = time.monotonic()
                self._background.tell(unless_cancelled(self._show), (event.done, event.total))

        def unless_cancelled(receiver: Callable[[Any], None], *, end: bool = False) -> Callable[[Any], None]:
            def receive(value: Any) -> None:
                if self._stop is stop:
                    if end:
                        self._end()
                    receiver(value)

            return receive

        self._background.call(
            lambda: work(report, lambda: closing.is_set() or stop.is_set()),
            unless_cancelled(then, end=True),
            unless_cancelled(failed, end=True),
        )

    def cancel(self) -> None:
        """Ask the work to stop, and wait for it no longer."""
        if self._stop is not None:
            self._stop.set()
            self._end()
            self.cancelled.emit()

    def release(self) -> None:
        """Forget what waits, and wait for what is under way."""
        self._background.close()

    def _end(self) -> None:
        self._stop = None
        self._show_soon.cancel()
        self.setVisible(False)

    def _show(self, progress: tuple[int, int]) -> None:
        done, total = progress
        self.bar.setRange(0, total)
        self.bar.setValue(done)
