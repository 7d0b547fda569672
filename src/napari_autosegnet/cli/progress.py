"""Progress on stderr: a bar with the time left on a terminal, plain lines elsewhere.

Both are listeners to the events of a run (`napari_autosegnet.events.Report`); results go to stdout and are
not printed here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari_autosegnet.cli.lines import print_note
from napari_autosegnet.event_words import epoch_figures, line, pace, task, time_left
from napari_autosegnet.events import BlocksPlanned, CandidatesRated, Epoch, Event, Finished, ProgressMade, Report
from napari_autosegnet.plain_text import printable

if TYPE_CHECKING:
    from rich.progress import Progress

SECONDS_BETWEEN_LINES = 60.0


class PlainLines:
    """A line per event, those that come often at most once a minute (a `Report`)."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._last: float | None = None

    def __call__(self, event: Event) -> None:
        words = line(event)
        if words is None:
            return
        if isinstance(event, ProgressMade) and event.done != event.total:
            now = time.monotonic()
            if self._last is not None and now - self._last < SECONDS_BETWEEN_LINES:
                return
            self._last = now
        self._write(words)


class Bar:
    """A progress bar; what is to be read stays above it (a `Report`)."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._tasks: dict[str, Any] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case Epoch():
                # A time budget may end a run long before its last epoch: then time is what the bar measures.
                done, total = float(event.epoch), float(event.epochs or 0)
                if event.seconds is not None and event.seconds_left is not None:
                    done, total = event.seconds, event.seconds + event.seconds_left
                self._advance(event.step, printable(epoch_figures(event)), done, total, time_left(event))
            case ProgressMade():
                name = task(event)
                self._advance(name, f"{name}  {pace(event)}".rstrip(), event.done, event.total, time_left(event))
            case BlocksPlanned():
                self._print(event)
                self._advance("predict", "predict", event.done + event.skipped, event.blocks)
            case Finished() | CandidatesRated():
                # What follows has a bar of its own. A step may have counted for several things, V_rand for example.
                for shown in self._tasks.values():
                    self._bar.remove_task(shown)
                self._tasks.clear()
                self._print(event)
            case _:
                self._print(event)

    def _advance(self, name: str, text: str, done: float, total: float | None, left: str = "") -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(text, total=total, left=left)
        self._bar.update(self._tasks[name], description=text, completed=done, total=total, left=left)

    def _print(self, event: Event) -> None:
        words = line(event)
        if words is not None:
            self._bar.console.print(words, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress() -> Iterator[Report]:
    """A listener that shows progress on stderr as fits what stderr is."""
    if not sys.stderr.isatty():
        yield PlainLines(print_note)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield Bar(bar)
