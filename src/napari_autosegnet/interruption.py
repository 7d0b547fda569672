"""Ctrl-C, SIGTERM and a closed terminal: the first asks for a clean shutdown, the second ends the process at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_OUTPUTS = (1, 2)
#: The question that a long function asks again and again.
ShouldStop = Callable[[], bool]


def never_stop() -> bool:
    """The answer of a caller that never asks a long function to stop."""
    return False


class Interruption:
    """Whether a clean shutdown was asked for (a `ShouldStop`)."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._terminals = [output for output in _OUTPUTS if os.isatty(output)]

    def __call__(self) -> bool:
        return self.signal is not None

    @property
    def exit_status(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM, 129 when the terminal was closed, as shells number them."""
        return 128 + (self.signal or 0)

    def ask(self, signum: int, frame: FrameType | None) -> None:
        """The signals' handler."""
        self.signal = signum
        # From now on the system's own action: it ends the process even inside a long computation.
        for each in _SIGNALS:
            if signal.getsignal(each) != signal.SIG_IGN:
                signal.signal(each, signal.SIG_DFL)
        for output in self._terminals:
            if not os.isatty(output):  # closed: whatever is printed there would be an error
                os.dup2(os.open(os.devnull, os.O_WRONLY), output)
        # Straight to the descriptor: a handler may interrupt a print.
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"\nshutting down ... (again: quit at once)\n")


@contextmanager
def clean_shutdown() -> Iterator[Interruption]:
    """Turn the signals that end a process into a question that long functions ask."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    # nohup lets a program outlive its terminal.
    wanted = [each for each in _SIGNALS if each == signal.SIGINT or signal.getsignal(each) != signal.SIG_IGN]
    before = {each: signal.signal(each, interruption.ask) for each in wanted}
    try:
        yield interruption
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
