"""Progress on stderr: a bar with the time left on a terminal, plain lines elsewhere.

Both are listeners to the events of a run (`napari_autosegnet.run.Report`); results go to stdout and are
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
from napari_autosegnet.plain_text import printable
from napari_autosegnet.quality import Quality
from napari_autosegnet.run import Report

if TYPE_CHECKING:
    from rich.progress import Progress

#: Events that can come many times a second; where there is no bar, one line a minute is enough.
FREQUENT = frozenset({"block", "progress"})
SECONDS_BETWEEN_LINES = 60.0

_FIGURES = ("loss", "reward", "best_reward", "mean_iou", "entropy")


def sentence(event: str, values: dict[str, Any]) -> str | None:
    """One line that tells an event to a person, or None for events that nobody needs to read."""
    words = _words(event, values)
    return None if words is None else printable(words)


def _words(event: str, values: dict[str, Any]) -> str | None:
    match event:
        case "data":
            return str(values.get("text", "")) or None
        case "pair":
            more = f" (and {values['more']} more pairs)" if values.get("more") else ""
            return f"pair: {values.get('image')} with {values.get('labels')}{more}"
        case "note":
            return f"note: {values.get('text', '')}"
        case "alarm":
            return f"warning: {values.get('text', '')}"
        case "device":
            return f"device: {values.get('name', '')}"
        case "epoch":
            return _epoch(values)
        case "candidates":
            best = f", best {values['best']:.3f}" if isinstance(values.get("best"), float) else ""
            return f"search: {values.get('count')} candidates rated{best}"
        case "finalist":
            place = f"{values.get('index')} of {values.get('count')}"
            turn = f"round {values.get('round')} of {values.get('rounds')}"
            score = f": {values['score']:.3f}" if isinstance(values.get("score"), float) else ""
            weights = values.get("parameters")
            parameters = "" if weights is None else f", {weights / 1e6:.2f} M parameters"
            return f"search: finalist {place}, {turn}{score}{parameters}"
        case "architecture" if values.get("final", True):
            score = f" (score {values['score']:.3f})" if isinstance(values.get("score"), float) else ""
            remark = f"; {values['remark']}" if values.get("remark") else ""
            return f"search: architecture chosen{score}{remark}"
        case "quality":
            found = Quality.of(values)
            return None if found is None else f"{values.get('step', 'job')}: {found.sentence()}"
        case "plan":
            skipped = f", {values['skipped']} empty" if values.get("skipped") else ""
            done = f", {values['done']} done before" if values.get("done") else ""
            return f"predict: {values.get('blocks')} blocks{done}{skipped}{_halo(values)}"
        case "progress":
            speed = values.get("voxels_per_second")
            pace = f", {speed / 1e6:.2f} M voxels/s" if isinstance(speed, int | float) else ""
            total = "" if values.get("total") is None else f" of {values['total']}"
            return f"{_counted(values)}: {values.get('done')}{total}{pace}{_left(values)}"
        case "paused" | "resumed":
            return event
        case "finished":
            return f"{values.get('step', 'job')}: finished in {format_duration(float(values.get('seconds') or 0))}"
        case "failed":
            return f"{values.get('step', 'job')}: failed: {values.get('text', '')}"
        case "stopped":
            reason = f" ({values['reason']})" if values.get("reason") else ""
            return f"{values.get('step', 'job')}: stopped{reason}"
        case _:
            return None


def _epoch(values: dict[str, Any]) -> str:
    figures = [f"{n.replace('_', ' ')} {values[n]:.3f}" for n in _FIGURES if isinstance(values.get(n), int | float)]
    count = f"{values.get('epoch')}" + (f"/{values['epochs']}" if values.get("epochs") else "")
    step = values.get("phase") or values.get("step", "")
    return "  ".join([f"{step}: epoch {count}", *figures]) + _left(values)


def _halo(values: dict[str, Any]) -> str:
    if values.get("halo") is None:
        return ""
    agreement = values.get("halo_agreement")
    measured = (
        f" (labels agree with exact on {100 * agreement:.3f} % of pixels)" if isinstance(agreement, float) else ""
    )
    return f", halo {values['halo']} pixels{measured}"


def _counted(values: dict[str, Any]) -> str:
    """The step that a `progress` event counts for: blocks of a prediction, or sections that are scored."""
    return str(values.get("step") or ("predict" if "voxels_per_second" in values else "evaluate"))


def _left(values: dict[str, Any]) -> str:
    left = values.get("seconds_left")
    return f", {format_duration(float(left))} left" if isinstance(left, int | float) else ""


class PlainLines:
    """A line per event, those that come often at most once a minute (a `Report`)."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._last: float | None = None

    def __call__(self, event: str, /, **values: Any) -> None:
        line = sentence(event, values)
        if line is None:
            return
        if event in FREQUENT and not self._is_last_block(values):
            now = self._clock()
            if self._last is not None and now - self._last < SECONDS_BETWEEN_LINES:
                return
            self._last = now
        self._write(line)

    @staticmethod
    def _is_last_block(values: dict[str, Any]) -> bool:
        return "total" in values and values.get("done") == values["total"]


class Bar:
    """A progress bar; what is to be read stays above it (a `Report`)."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._tasks: dict[str, Any] = {}

    def __call__(self, event: str, /, **values: Any) -> None:
        if event == "epoch":
            self._epoch(values)
        elif event == "plan":
            self._print(event, values)
            done = int(values.get("done", 0)) + int(values.get("skipped", 0))
            self._advance("predict", "predict", done, int(values.get("blocks", 0)))
        elif event == "progress":
            speed = values.get("voxels_per_second")
            pace = f"  {speed / 1e6:.2f} M voxels/s" if isinstance(speed, int | float) else ""
            name = _counted(values)
            self._advance(name, f"{name}{pace}", values.get("done", 0), values.get("total"), values)
        elif event == "finished":
            # A step may have counted for several things, V_rand for example.
            for task in self._tasks.values():
                self._bar.remove_task(task)
            self._tasks.clear()
            self._print(event, values)
        else:
            self._print(event, values)

    def _epoch(self, values: dict[str, Any]) -> None:
        step = str(values.get("step", ""))
        seconds, left = values.get("seconds"), values.get("seconds_left")
        # A time budget may end a run long before its last epoch: then time is what the bar measures.
        if isinstance(seconds, int | float) and isinstance(left, int | float):
            done, total = float(seconds), float(seconds) + float(left)
        else:
            done, total = float(values.get("epoch", 0)), float(values.get("epochs") or 0)
        text = printable(_epoch({name: value for name, value in values.items() if name != "seconds_left"}))
        self._advance(step, text, done, total, values)

    def _advance(
        self, name: str, text: str, done: float, total: float | None, values: dict[str, Any] | None = None
    ) -> None:
        left = _left(values or {}).removeprefix(", ")
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(text, total=total, left=left)
        self._bar.update(self._tasks[name], description=text, completed=done, total=total, left=left)

    def _print(self, event: str, values: dict[str, Any]) -> None:
        line = sentence(event, values)
        if line is not None and event not in FREQUENT:
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
