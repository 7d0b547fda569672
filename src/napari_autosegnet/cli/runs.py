"""``napari-autosegnet runs``: the runs in a folder, and requests to those that are being worked on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_autosegnet.cli.groups import command_group
from napari_autosegnet.cli.job import command_line, print_json
from napari_autosegnet.cli.lines import print_line, print_note, print_table
from napari_autosegnet.cli.progress import PlainLines
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Event
from napari_autosegnet.quality import Quality
from napari_autosegnet.run import Run, RunStatus, find_runs
from napari_autosegnet.run.event_tail import EventTail

SECONDS_BETWEEN_LOOKS = 0.3
EVENTS_BEFORE = 10

app = command_group("List, follow, pause, resume, and stop runs.")

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder", show_default=False)]


@app.command("list")
def list_runs(
    folder: Annotated[Path, typer.Argument(help="Where to look, two levels deep")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """List runs with their state and best score.

    Example: [bold]napari-autosegnet runs list runs[/bold]
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give one that holds run folders")
    runs = [_described(run) for run in find_runs(folder)]
    if as_json:
        print_json({"runs": runs})
        return
    if not runs:
        print_line(f"no runs in {folder}")
        return
    rows: list[tuple[str, ...]] = [("run", "state", "step", "epoch", "score", "checked on", "last event (UTC)")]
    for each in runs:
        quality = Quality.of(each["quality"])
        score = "-" if each["score"] is None else f"{each['score']:.3f}"
        if quality is not None and not quality.known:
            score = "not known"
        checked = "-" if quality is None else quality.extent()
        cells = (each["run"], each["state"], each["step"], each["epoch"], score, checked, each["time"])
        rows.append(tuple(str(cell or "-") for cell in cells))
    print_table(rows)


@app.command()
def follow(
    run: RunFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Print events as they are, one JSON object a line")] = False,
) -> None:
    """Print what happens in a run until it ends; Ctrl-C stops following, not the run.

    Example: [bold]napari-autosegnet runs follow runs/isbi[/bold]
    """
    opened = Run.open(run)
    lines = PlainLines(print_line)
    for event in _events_as_they_come(opened):
        if as_json:
            print(event.model_dump_json(exclude_unset=True), flush=True)
        else:
            lines(event)


@app.command()
def pause(run: RunFolder) -> None:
    """Pause a run after its current step.

    Example: [bold]napari-autosegnet runs pause runs/isbi[/bold]
    """
    _active(run).request("pause")
    print_line(f"pause requested; continue with: {command_line('runs', 'resume', run)}")


@app.command()
def resume(run: RunFolder) -> None:
    """Let a paused run continue.

    Example: [bold]napari-autosegnet runs resume runs/isbi[/bold]
    """
    opened = Run.open(run)
    if not opened.requested("pause"):
        raise UserError(
            f"{run} is not paused; nothing to do (continue an ended run with 'search --resume' or 'train --resume')"
        )
    opened.withdraw("pause")
    print_line(
        "the run continues"
        if opened.is_active
        else "no longer paused, but the run is not active; start it with --resume"
    )


@app.command()
def stop(run: RunFolder) -> None:
    """Stop a run after its current step and keep the best that it found.

    Example: [bold]napari-autosegnet runs stop runs/isbi[/bold]
    """
    _active(run).request("stop")
    print_line("stop requested; the run ends after its current step and keeps the best result")


def _active(path: Path) -> Run:
    run = Run.open(path)
    if not run.is_active:
        raise UserError(f"{path} is not active; continue it with --resume")
    return run


def _described(run: Run) -> dict[str, Any]:
    """As `describe`; one run that cannot be read does not hide the others."""
    try:
        return describe(run)
    except UserError as error:
        print_note(f"warning: {error}")
        nothing = dict.fromkeys(("step", "epoch", "score", "quality", "time"))
        return {"run": str(run.path), "state": "unreadable", **nothing}


def describe(run: Run) -> dict[str, Any]:
    """State, step, epoch, best score, on how much it was checked, and time of the last event of a run."""
    status = RunStatus.after(run.events())
    state: str = status.state
    if run.is_active:
        state = "paused" if run.requested("pause") else "working"
    return {
        "run": str(run.path),
        "state": state,
        "step": status.step,
        "epoch": status.epoch,
        "score": status.score,
        "quality": None if status.quality is None else status.quality.model_dump(mode="json"),
        "time": None if status.time is None else f"{status.time:%Y-%m-%d %H:%M:%S}",
    }


def _events_as_they_come(run: Run) -> Iterator[Event]:
    """The last events so far, then new ones as long as a process works in the run."""
    tail, is_first = EventTail(run.events_file), True
    while True:
        # Asked before reading, so that what the process wrote last is still read.
        active = run.is_active
        events: list[Event] = []
        tail.read(events.append)
        yield from events[-EVENTS_BEFORE:] if is_first else events
        is_first = is_first and not events
        if not active:
            return
        time.sleep(SECONDS_BETWEEN_LOOKS)
