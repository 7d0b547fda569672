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
from napari_autosegnet.duration import format_duration
from napari_autosegnet.events import (
    ArchitectureFound,
    BlocksPlanned,
    CandidateRated,
    CandidatesRated,
    DataRead,
    DeviceChosen,
    Epoch,
    Event,
    Failed,
    FinalistTrained,
    Finished,
    LabelsTaken,
    Note,
    PairMatched,
    Paused,
    ProgressMade,
    QualityMeasured,
    Report,
    Resumed,
    Stopped,
    WarningRaised,
)
from napari_autosegnet.plain_text import counted, printable

if TYPE_CHECKING:
    from rich.progress import Progress

SECONDS_BETWEEN_LINES = 60.0

_FIGURES = ("loss", "reward", "best_reward", "mean_iou", "entropy")


def sentence(event: Event) -> str | None:
    """One line for the user about an event; None for events that need no line."""
    words = _words(event)
    return None if words is None else printable(words)


def _words(event: Event) -> str | None:
    match event:
        case DataRead(text=text):
            return text or None
        case PairMatched():
            more = f" (and {event.more} more pairs)" if event.more else ""
            return f"pair: {event.image} with {event.labels}{more}"
        case Note(text=text):
            return f"note: {text}"
        case WarningRaised(text=text):
            return f"warning: {text}"
        case DeviceChosen(name=name):
            return f"device: {name}"
        case Epoch():
            return _epoch(event) + _left(event)
        case CandidatesRated():
            best = "" if event.best is None else f", best {event.best:.3f}"
            return f"search: {event.count} candidates rated{best}"
        case CandidateRated():
            score = "" if event.mean_iou is None else f"mean IoU {event.mean_iou:.3f}"
            speed = "" if event.milliseconds is None else f", {event.milliseconds:.0f} ms for 512 x 512 pixels"
            return f"fit: round {event.round} of {event.rounds}: {event.network}: {score}{speed}"
        case FinalistTrained():
            turn = f"{event.index} of {event.count}, round {event.round} of {event.rounds}"
            score = "" if event.score is None else f": {event.score:.3f}"
            parameters = "" if event.parameters is None else f", {event.parameters / 1e6:.2f} M parameters"
            return f"search: finalist {turn}{score}{parameters}"
        case ArchitectureFound(final=True):
            score = "" if event.score is None else f" (score {event.score:.3f})"
            remark = f"; {event.remark}" if event.remark else ""
            return f"search: architecture chosen{score}{remark}"
        case QualityMeasured():
            return f"{event.step}: {event.sentence()}"
        case LabelsTaken():
            return f"{event.step}: {event.describe()}"
        case BlocksPlanned():
            skipped = f", {event.skipped} empty" if event.skipped else ""
            done = f", {event.done} done before" if event.done else ""
            return f"predict: {counted(event.blocks, 'block')}{done}{skipped}{_halo(event)}"
        case ProgressMade():
            total = "" if event.total is None else f" of {event.total}"
            pace = _pace(event)
            return f"{_counted(event)}: {event.done}{total}{pace and f', {pace}'}{_left(event)}"
        case Paused() | Resumed():
            return event.event
        case Finished():
            return f"{event.step}: finished in {format_duration(event.seconds or 0)}"
        case Failed():
            return f"{event.step or 'job'}: failed: {event.text}"
        case Stopped():
            return f"{event.step or 'job'}: stopped" + (f" ({event.reason})" if event.reason else "")
        case _:
            return None


def _epoch(event: Epoch) -> str:
    values = ((name.replace("_", " "), getattr(event, name)) for name in _FIGURES)
    figures = [f"{name} {value:.3f}" for name, value in values if value is not None]
    count = f"{event.epoch}" + (f"/{event.epochs}" if event.epochs else "")
    network = [event.network] if event.network else []
    return "  ".join([f"{event.phase or event.step}: epoch {count}", *figures, *network])


def _halo(plan: BlocksPlanned) -> str:
    if plan.halo is None:
        return ""
    agreement = plan.halo_agreement
    measured = "" if agreement is None else f" (labels agree with exact on {100 * agreement:.3f} % of pixels)"
    precision = ""
    if plan.precision_agreement is not None:
        percent = f"{100 * plan.precision_agreement:.3f} %"
        precision = f", {plan.precision} (labels agree with float32 on {percent} of pixels)"
    return f", halo {plan.halo} pixels{measured}{precision}"


def _counted(progress: ProgressMade) -> str:
    """What is counted: blocks of a prediction, or sections that are scored."""
    return progress.step or ("evaluate" if progress.voxels_per_second is None else "predict")


def _pace(progress: ProgressMade) -> str:
    speed = progress.voxels_per_second
    return "" if speed is None else f"{speed / 1e6:.2f} M voxels/s"


def _left(event: Epoch | ProgressMade) -> str:
    return "" if event.seconds_left is None else f", {format_duration(event.seconds_left)} left"


class PlainLines:
    """A line per event, those that come often at most once a minute (a `Report`)."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._last: float | None = None

    def __call__(self, event: Event) -> None:
        line = sentence(event)
        if line is None:
            return
        if isinstance(event, ProgressMade) and event.done != event.total:
            now = self._clock()
            if self._last is not None and now - self._last < SECONDS_BETWEEN_LINES:
                return
            self._last = now
        self._write(line)


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
                self._advance(event.step, printable(_epoch(event)), done, total, _left(event))
            case ProgressMade():
                name = _counted(event)
                self._advance(name, f"{name}  {_pace(event)}".rstrip(), event.done, event.total, _left(event))
            case BlocksPlanned():
                self._print(event)
                self._advance("predict", "predict", event.done + event.skipped, event.blocks)
            case Finished() | CandidatesRated():
                # What follows has a bar of its own. A step may have counted for several things, V_rand for example.
                for task in self._tasks.values():
                    self._bar.remove_task(task)
                self._tasks.clear()
                self._print(event)
            case _:
                self._print(event)

    def _advance(self, name: str, text: str, done: float, total: float | None, left: str = "") -> None:
        left = left.removeprefix(", ")
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(text, total=total, left=left)
        self._bar.update(self._tasks[name], description=text, completed=done, total=total, left=left)

    def _print(self, event: Event) -> None:
        line = sentence(event)
        if line is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)


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
