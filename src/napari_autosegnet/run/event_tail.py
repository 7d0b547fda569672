"""New lines of a growing ``events.jsonl``, read in small pieces so that nobody has to wait."""

from __future__ import annotations

import math
import time
from pathlib import Path

from napari_autosegnet.events import Report, parse_event

_PIECE = 64 * 1024


class EventTail:
    """Remembers how far a file of events was read.

    Parameters
    ----------
    path : Path
        The file; it may be missing, and may be replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._position = 0

    def read(self, report: Report, seconds: float = math.inf) -> bool:
        """Hand over new events one by one, as long as there is time; returns whether there are more.

        Lines that are no events are left out. A line that is being written is read when it is complete.
        """
        until = time.monotonic() + seconds
        while True:
            piece = self._piece()
            complete, newline, _ = piece.rpartition(b"\n")
            if not newline:
                if len(piece) < _PIECE:
                    return False
                # A line as long as this is damage.
                self._position += len(piece)
                continue
            # What does not fit in the time is read again.
            for line in complete.split(b"\n"):
                if time.monotonic() > until:
                    return True
                self._position += len(line) + 1
                event = parse_event(line)
                if event is not None:
                    report(event)

    def _piece(self) -> bytes:
        try:
            with open(self.path, "rb") as handle:
                # A file that became shorter is another one.
                if handle.seek(0, 2) < self._position:
                    self._position = 0
                handle.seek(self._position)
                return handle.read(_PIECE)
        except OSError:
            return b""
