"""How far the slice is that is segmented, and a button to cancel it."""

from __future__ import annotations

import threading
import time
from typing import Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QHBoxLayout, QProgressBar, QPushButton, QWidget

from napari_autosegnet.run import Report, ShouldStop
from napari_autosegnet.widgets.forms.background import Background

#: Milliseconds before the bar is shown: most slices are done by then, and nothing flickers.
_WAIT = 300
_PAUSE = 0.1  # seconds between two looks at how far it is


class SliceProgress(QWidget):
    """A bar and *Cancel*, shown while a call in the thread takes long.

    Parameters
    ----------
    background : Background
        Does the work.
    parent : QWidget, optional

    Attributes
    ----------
    was_cancelled : bool
        The latest call was cancelled.
    """

    def __init__(self, background: Background, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._background = background
        self._cancelled = threading.Event()
        self.bar = QProgressBar()
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip("The layers stay as they are")
        self.cancel_button.clicked.connect(self.cancel)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.bar, 1)
        layout.addWidget(self.cancel_button)
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(_WAIT)
        self._later.timeout.connect(lambda: self.setVisible(True))
        self.setVisible(False)

    @property
    def was_cancelled(self) -> bool:
        return self._cancelled.is_set()

    def begin(self) -> tuple[Report, ShouldStop]:
        """Begin; returns what the work is to report to, and what it is to ask, both from the thread."""
        self._cancelled = cancelled = threading.Event()
        closing, latest = self._background.closing, -_PAUSE
        self.bar.setRange(0, 0)
        self.cancel_button.setEnabled(True)
        self._later.start()

        def report(event: str, /, **values: Any) -> None:
            nonlocal latest
            if event == "progress" and time.monotonic() - latest >= _PAUSE:
                latest = time.monotonic()
                self._background.tell(self._show, (int(values["done"]), int(values["total"])))

        return report, lambda: closing.is_set() or cancelled.is_set()

    def end(self) -> None:
        """The work is done or was stopped."""
        self._later.stop()
        self.setVisible(False)

    def cancel(self) -> None:
        """Ask the work to stop."""
        self._cancelled.set()
        self.cancel_button.setEnabled(False)

    def _show(self, progress: tuple[int, int]) -> None:
        done, total = progress
        self.bar.setRange(0, total)
        self.bar.setValue(done)
