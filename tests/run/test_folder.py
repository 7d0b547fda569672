"""The run folder."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import small_jobs
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Epoch, Note, Started
from napari_autosegnet.interruption import never_stop
from napari_autosegnet.jobs.configuration import RunConfiguration
from napari_autosegnet.jobs.job_file import read_job, run_job, write_job
from napari_autosegnet.jobs.preview import preview_file
from napari_autosegnet.jobs.worker_info import log_file, write_info
from napari_autosegnet.run import Run
from napari_autosegnet.run.folder import ENTRIES
from run_configs import update_config


def test_events_are_read_back_without_a_line_cut_short(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    run.report(Epoch(step="train", epoch=1, loss=0.5))
    run.report(Epoch(step="train", epoch=2, loss=0.25))
    with open(run.events_file, "a") as handle:
        handle.write('{"event": "epoch", "lo')
    assert [event.loss for event in run.events()] == [0.5, 0.25]


def test_open_refuses_other_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        Run.open(tmp_path)


def test_another_process_cannot_take_a_run_in_use(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    code = (
        "import sys; from pathlib import Path; from napari_autosegnet.run import Run\n"
        "from napari_autosegnet.errors import UserError\n"
        "try:\n"
        "    with Run(Path(sys.argv[1])).locked(): print('taken')\n"
        "except UserError as error: print(error)\n"
    )

    def other() -> str:
        return subprocess.run(
            [sys.executable, "-c", code, str(run.path)], capture_output=True, text=True, check=True
        ).stdout.strip()

    with run.locked():
        assert "in use by another process" in other()
    assert other() == "taken"
    assert not run.is_active


def test_pause_waits_and_stop_ends_it(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    assert not run.should_stop()
    run.request("pause")
    threading.Timer(0.3, run.withdraw, ("pause",)).start()
    started = time.monotonic()
    assert not run.should_stop()
    assert time.monotonic() - started > 0.2
    assert [event.event for event in run.events()] == ["paused", "resumed"]
    run.request("pause")
    run.request("stop")
    assert run.should_stop()
    run.withdraw()
    assert not run.should_stop()


def test_an_event_is_not_glued_to_a_torn_line(tmp_path: Path) -> None:
    """A crash, or a full disk, leaves half a line; the next step must not be lost with it."""
    run = Run.create(tmp_path / "run")
    run.report(Epoch(step="search", epoch=1))
    with open(run.events_file, "a") as handle:
        handle.write('{"event": "epoch", "lo')
    run.report(Started(step="train"))
    run.report(Epoch(step="train", epoch=1))
    assert [(event.event, event.step) for event in run.events()] == [
        ("epoch", "search"),
        ("started", "train"),
        ("epoch", "train"),
    ]
    assert len(run.events_file.read_bytes().split(b"\n")) == 5  # and no empty lines between


def test_lines_are_what_a_newline_ends(tmp_path: Path) -> None:
    """Other programs may write U+2028 as it is; str.splitlines would cut there."""
    run = Run.create(tmp_path / "run")
    run.events_file.write_bytes('{"event": "note", "text": "one\u2028two"}\n'.encode())
    assert [event.text for event in run.events()] == ["one\u2028two"]


# Files that lead elsewhere


def _entries(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("config.json", lambda run: run.read_config()),
        ("config.json", lambda run: RunConfiguration().save(run)),
        ("events.jsonl", lambda run: run.report(Note(text="x"))),
        ("events.jsonl", lambda run: run.events()),
        (".lock", lambda run: run.is_active),
        ("requests", lambda run: run.request("pause")),
        ("checkpoints", lambda run: run.checkpoint_file("training")),
        ("model", lambda run: run.model_folder),
        ("architecture.json", lambda run: run.architecture_file),
        ("job.json", read_job),
        ("logs", log_file),
        ("preview/input.npz", lambda run: preview_file(run, "input")),
    ],
)
def test_files_of_a_run_are_not_opened_through_links(name: str, use: Callable[[Run], Any], tmp_path: Path) -> None:
    run, elsewhere = Run.create(tmp_path / "run"), tmp_path / "mine"
    is_folder = "." not in name
    if is_folder:
        elsewhere.mkdir()
    else:
        elsewhere.write_text("my own words")

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()}

    before = files()
    (run.path / name).parent.mkdir(exist_ok=True)
    (run.path / name).symlink_to(elsewhere)
    assert run.refusal is not None and f"{name} is a link" in run.refusal
    with pytest.raises(UserError, match=f"{name} is a link"):
        use(run)
    assert files() == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes there")
def test_a_pipe_in_a_run_holds_nobody_up(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    os.mkfifo(run.path / "events.jsonl")
    with pytest.raises(UserError, match="a pipe or a device"):
        run.events()


def test_a_run_may_itself_lie_behind_a_link(tmp_path: Path) -> None:
    update_config(Run.create(tmp_path / "scratch" / "run"), search={})
    (tmp_path / "run").symlink_to(tmp_path / "scratch" / "run", target_is_directory=True)
    run = Run.open(tmp_path / "run")
    run.report(Note(text="x"))
    assert run.refusal is None and run.events()


def test_the_files_that_are_looked_at_are_all_that_there_are(tmp_path: Path) -> None:
    """`Run.refusal` knows the files by name; here they are made by a search and a training."""
    run = Run(tmp_path / "run")
    jobs = (small_jobs.search_job(tmp_path / "data"), small_jobs.train_job(epochs=1))
    for job in jobs:
        Run.create(run.path)
        write_job(run, job)
        with run.locked():
            write_info(run, os.getpid(), job.step)
        run_job(run, job, never_stop)
    known = {str(Path(folder, name)) for folder, names in ENTRIES.items() for name in names}
    assert _entries(run.path) <= known
