"""What all commands that take long share: progress, an orderly end, and the result on stdout."""

from __future__ import annotations

import json
import os
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import typer

from napari_autosegnet.cli.lines import print_line, print_note
from napari_autosegnet.cli.progress import progress
from napari_autosegnet.errors import StoppedError
from napari_autosegnet.events import Event, Finished, Report, SomeEvent, Step, Stopped, listeners
from napari_autosegnet.interruption import ShouldStop, clean_shutdown
from napari_autosegnet.plain_text import printable

if TYPE_CHECKING:
    from napari_autosegnet.data.images import ImageStack

Result = TypeVar("Result", covariant=True)


class LastEvents:
    """Keeps the last event of each kind (a `Report`)."""

    def __init__(self) -> None:
        self._events: dict[type, Event] = {}
        self.ended: str | None = None

    def __call__(self, event: Event) -> None:
        self._events[type(event)] = event
        if isinstance(event, Finished | Stopped):
            self.ended = event.event

    def of(self, kind: type[SomeEvent]) -> SomeEvent | None:
        """The last event of a kind; None when there was none."""
        event = self._events.get(kind)
        return event if isinstance(event, kind) else None


class Work(Protocol[Result]):
    """A job whose arguments are known."""

    def __call__(self, *, report: Report, should_stop: ShouldStop) -> Result: ...


def run_job(work: Work[Result], *, resume: str | None = None) -> tuple[Result, LastEvents]:
    """Do the work of a command with progress on stderr; Ctrl-C, SIGTERM and SIGHUP shut it down cleanly.

    Parameters
    ----------
    work
        The long function.
    resume
        The command line that continues after a clean shutdown, where there is one.

    Raises
    ------
    typer.Exit
        With status 130, 143 or 129 when the work was ended before it was done.
    StoppedError
        When it was ended before it had a result, and not by a signal.
    """
    last = LastEvents()
    with clean_shutdown() as interruption:
        try:
            with progress() as report:
                result = work(report=listeners(last, report), should_stop=interruption)
        except StoppedError:
            if not interruption():
                raise
            ended = True
        else:
            # A signal that came after the last step interrupted nothing; a prediction's summary says so itself.
            ended = interruption() and (last.ended != "finished" or getattr(result, "stopped", False))
        if ended:
            if resume is not None:
                print_note(f"stopped; continue with: {resume}")
            elif last.ended != "stopped":
                print_note("stopped")
            raise typer.Exit(interruption.exit_status)
    return result, last


def run_on_image(step: Step, image: ImageStack, work: Work[Result]) -> Result:
    """As `run_job`, for work on one image: its notes come first, and the time that it took last."""
    from napari_autosegnet.data.images import tell_notes

    def noted(*, report: Report, should_stop: ShouldStop) -> Result:
        started = time.monotonic()
        tell_notes([image], report)
        result = work(report=report, should_stop=should_stop)
        report(Finished(step=step, seconds=time.monotonic() - started))
        return result

    return run_job(noted)[0]


def command_line(*words: object) -> str:
    """A command line to copy, quoted for the shell."""
    return " ".join(_shell_word(word) for word in ("napari-autosegnet", *words))


def _shell_word(word: object) -> str:
    """A word as bash and zsh read it, also one that cannot be printed as it is: bytes that are no UTF-8, line ends."""
    text = str(word)
    if text == printable(text):
        return shlex.quote(text)
    plain = (
        chr(byte) if 32 <= byte < 127 and chr(byte) not in "'\\" else f"\\x{byte:02x}" for byte in os.fsencode(text)
    )
    return f"$'{''.join(plain)}'"


def same_command_line(context: typer.Context, *without: str) -> str:
    """The current command line as it was given, without some of its words."""
    return command_line(context.info_name, *(word for word in context.obj or () if word not in without))


def print_json(result: dict[str, Any]) -> None:
    """One object on stdout; paths as text."""
    print(json.dumps(result, indent=1, default=str))


def print_paths(**paths: Path) -> None:
    """Where each result lies, one a line."""
    width = max(len(name) for name in paths)
    for name, path in paths.items():
        print_line(f"{name:<{width}}  {path}")
