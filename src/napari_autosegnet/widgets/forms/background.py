"""Long calls in a thread, one after the other, their results handed over in the GUI thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_autosegnet.errors import UserError, is_out_of_memory


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

    _arrived = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.closing = threading.Event()
        self._executor = ThreadPoolExecutor(1, "napari-autosegnet")
        self._under_way = 0
        # Not in the signal: an event that is never delivered would keep the receiver, and the window with it, alive.
        self._results: deque[tuple[Callable[[Any], None], Any, bool]] = deque()
        self._arrived.connect(self._hand_over)

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

        A `UserError` goes to ``failed`` as its line. Of any other error ``failed`` gets a line, too, so that it can
        free what waits; then the error is raised in the GUI thread, where napari shows it.
        """
        if self.closing.is_set():
            return
        self._under_way += 1

        def work() -> None:
            try:
                result, receiver = _called(function), then
            except UserError as error:
                if failed is None:
                    result, receiver = error, _raise
                else:
                    result, receiver = str(error), failed  # type: ignore[assignment]
            except Exception as error:
                result, receiver = error, _raise if failed is None else partial(_tell_and_raise, failed)
            self._put(receiver, result, True)

        self._executor.submit(work)

    def tell(self, receiver: Callable[[Any], None], value: Any) -> None:
        """Hand over something in the middle of a call; for use in the thread."""
        self._put(receiver, value, False)

    def close(self) -> None:
        """Forget what waits and wait for what is under way, which should look at `closing`."""
        self.closing.set()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._results.clear()

    def _put(self, receiver: Callable[[Any], None], value: Any, is_last: bool) -> None:
        if not self.closing.is_set():
            self._results.append((receiver, value, is_last))
            self._arrived.emit()

    def _hand_over(self) -> None:
        if self.closing.is_set():
            return
        receiver, value, is_last = self._results.popleft()
        if is_last:
            self._under_way -= 1
        receiver(value)


def _called(function: Callable[[], Any]) -> Any:
    """The result of a call, which is made again where another thread was just importing torch.

    SciPy and scikit-learn ask whether an array is one of torch's, of a module that has no classes yet.
    """
    try:
        return function()
    except Exception as error:
        if "partially initialized module 'torch'" not in str(error):
            raise
        import torch  # noqa: F401  # waits until it is imported

        return function()


def _tell_and_raise(failed: Callable[[str], None], error: Exception) -> None:
    failed(in_words(error))
    raise error


def in_words(error: Exception) -> str:
    if is_out_of_memory(error):
        return "too little memory was free, in the computer or on its graphics card; end other programs and try again"
    line = str(error).partition("\n")[0]
    return f"an unexpected error, {type(error).__name__}: {line}"


def _raise(error: Exception) -> None:
    raise error
