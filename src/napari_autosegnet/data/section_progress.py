"""Progress while a volume is written."""

from __future__ import annotations

import time

from napari_autosegnet.events import ProgressMade, Report

#: Seconds between two events.
_SECONDS = 0.5


class SectionProgress:
    """Reports how many sections are written and the time left, at most twice a second.

    Parameters
    ----------
    step : str
        What is done.
    total : int
        Sections in all.
    report : Report
        Is told ``progress``.
    """

    def __init__(self, step: str, total: int, report: Report) -> None:
        self._step, self._total, self._report = step, total, report
        self._began = self._told = time.monotonic()

    def reach(self, done: int) -> None:
        """So many sections are written."""
        now = time.monotonic()
        if done and (now - self._told >= _SECONDS or done == self._total):
            self._told = now
            left = (now - self._began) / done * (self._total - done)
            self._report(ProgressMade(step=self._step, done=done, total=self._total, seconds_left=left))
