"""Long calls in a thread, one after the other, their results handed over in the GUI thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_autosegnet.errors import UserError


class Background(QObject):
    """One thread for calls that read files or many pixels.

    Parameters
    ----------
    parent : QObject, optional
        Its `close` has to be called when the parent goes.

    Attributes
    ----------
    closing : threading.Event
        Set by `close`; long calls look at it between their steps.
    """

    _finished = Signal(object, object)
    _told = Signal(object, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.closing = threading.Event()
        self._executor = ThreadPoolExecutor(1, "napari-autosegnet")
        self._under_way = 0
        self._finished.connect(self._finish)
        self._told.connect(self._hand_over)

    @property
    def is_busy(self) -> bool:
        """Whether a call waits or is under way."""
        return self._under_way > 0

    def call(
        self,
        function: Callable[[], Any],
        then: Callable[[Any], None],
        failed: Callable[[str], None] | None = None,
    ) -> None:
        """Call ``function`` in the thread, then ``then`` with its result in the GUI thread.

        A `UserError` goes to ``failed`` as its line; any other error is raised in the GUI thread, where napari
        shows it.
        """
        if self.closing.is_set():
            return
        self._under_way += 1

        def work() -> None:
            try:
                result, receiver = function(), then
            except UserError as error:
                if failed is None:
                    result, receiver = error, _raise
                else:
                    result, receiver = str(error), failed  # type: ignore[assignment]
            except Exception as error:
                result, receiver = error, _raise
            if not self.closing.is_set():
                self._finished.emit(receiver, result)

        self._executor.submit(work)

    def tell(self, receiver: Callable[[Any], None], value: Any) -> None:
        """Hand over something in the middle of a call; for use in the thread."""
        if not self.closing.is_set():
            self._told.emit(receiver, value)

    def close(self) -> None:
        """Forget what waits and wait for what is under way, which should look at `closing`."""
        self.closing.set()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _finish(self, receiver: Callable[[Any], None], value: Any) -> None:
        self._under_way -= 1
        self._hand_over(receiver, value)

    def _hand_over(self, receiver: Callable[[Any], None], value: Any) -> None:
        if not self.closing.is_set():
            receiver(value)


def _raise(error: Exception) -> None:
    raise error
