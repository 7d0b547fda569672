"""Which process is a run's worker: nobody else's may be ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pytestqt", reason="pytest-qt is not installed")
pytest.importorskip("napari", reason="napari, which brings psutil, is not installed")

import psutil

from napari_autosegnet.jobs.worker_info import WorkerInfo, info_file, read_info
from napari_autosegnet.processes import identity
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.jobs.worker_process import WorkerProcess, cause_of_death, find
from run_followers import EPOCH, Follower, write_events

#: A process that looks as its arguments say, and holds the lock of a run if it is to.
SOMEBODY = """
import sys, time
from contextlib import nullcontext
from pathlib import Path
from napari_autosegnet.run import Run
with Run(Path(sys.argv[-1])).locked() if sys.argv[1] == "holds" else nullcontext():
    print("ready", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def somebody() -> Iterator[Callable[..., int]]:
    """Starts processes that nobody here is to end, and checks at the end that nobody did."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> int:
        command = [sys.executable, "-c", SOMEBODY, *words]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True))
        assert started[-1].stdout is not None and started[-1].stdout.readline() == "ready\n"
        return started[-1].pid

    yield start
    ended = [process.poll() for process in started]
    for process in started:
        process.kill()
        process.communicate()
    assert ended == [None] * len(started)


def works_as(run: Run, process: int, **changes: Any) -> None:
    """Write down that a process works on the run."""
    run.path.mkdir(exist_ok=True)
    about = {
        "pid": process,
        "identity": identity(process),
        "started": time.time(),
        "step": "train",
        "host": socket.gethostname(),
    }
    info_file(run).write_text(json.dumps({**about, **changes}))


def is_taken_for_the_worker(run: Run, pid: int) -> bool:
    """Whether a process is found as the run's worker; it is asked to end, and ended, at any rate."""
    found = find(run)
    process = found or WorkerProcess(run, pid, identity(pid))
    process.ask_to_end()
    process.kill()
    time.sleep(0.1)
    return found is not None


def test_a_process_that_is_no_worker_on_this_folder_is_left_alone(
    run: Run, tmp_path: Path, somebody: Callable[..., int]
) -> None:
    """As a run folder from somebody else, or a copy of one that is being worked on, may name one."""
    module = "napari_autosegnet.worker"
    (tmp_path / "another run").mkdir()
    foreign = somebody("idle", str(tmp_path))
    works_as(run, foreign)
    assert not is_taken_for_the_worker(run, foreign)
    elsewhere = somebody("holds", "-m", module, str(tmp_path / "another run"))
    works_as(run, elsewhere)
    assert not is_taken_for_the_worker(run, elsewhere)


def test_a_process_of_the_same_number_is_not_the_worker(run: Run, somebody: Callable[..., int]) -> None:
    """Nor is one after a restart of the computer, or on another one."""
    run.path.mkdir()
    pid = somebody("idle", "-m", "napari_autosegnet.worker", str(run.path))
    known = identity(pid)
    assert known is not None
    boot, _, start = known.partition(" ")
    for other in (f"{boot} {start}1", f"0{boot} {start}", None, ""):
        works_as(run, pid, identity=other)
        assert find(run) is None
    works_as(run, pid)
    assert find(run) is not None


def test_a_worker_without_the_lock_is_not_ended_by_who_did_not_start_it(run: Run, somebody: Callable[..., int]) -> None:
    run.path.mkdir()
    pid = somebody("idle", "-m", "napari_autosegnet.worker", str(run.path))
    works_as(run, pid)
    assert is_taken_for_the_worker(run, pid)


def test_a_worker_that_somebody_else_started_is_ended(run: Run) -> None:
    run.path.mkdir()
    words = [sys.executable, "-c", SOMEBODY, "holds", "-m", "napari_autosegnet.worker", str(run.path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        works_as(run, process.pid)
        found = find(run)
        assert found is not None
        found.kill()
        assert process.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize("pid", [-1, 0, 1, 2**31, 2**70, "12", 3.5, None, True])
def test_a_number_that_means_no_process_is_no_worker(follow: Callable[..., Follower], run: Run, pid: Any) -> None:
    works_as(run, os.getpid(), pid=pid)
    assert read_info(run) is None and find(run) is None
    follower = follow(run)
    follower.until_caught_up()
    assert follower.client.state == "idle"


def test_a_cancel_ends_no_process_that_the_folder_only_names(
    follow: Callable[..., Follower], run: Run, somebody: Callable[..., int]
) -> None:
    """Somebody works on the run, and its worker.json names another process."""
    run.path.mkdir()
    foreign = somebody("idle", str(run.path))
    somebody("holds", str(run.path))
    works_as(run, foreign)
    write_events(run, {"event": "started", "step": "train"}, EPOCH)
    follower = follow(run)
    follower.until("working")
    follower.client.cancel()
    follower.qtbot.wait(2500)
    assert run.requested("cancel") and follower.client.state == "stopping"


@pytest.mark.parametrize(
    ("status", "words"),
    [(-9, "filled the computer's memory"), (-11, "SIGSEGV"), (-15, "SIGTERM"), (-99, "signal 99")],
)
def test_how_a_signal_ended_it(run: Run, status: int, words: str) -> None:
    assert words in cause_of_death(run, status)


def test_a_restart_of_the_computer_is_recognized(run: Run) -> None:
    run.path.mkdir()
    info = WorkerInfo(pid=2, identity=None, started=psutil.boot_time() - 1000, step="train", host="")
    info_file(run).write_text(info.model_dump_json())
    assert cause_of_death(run, None) == "the computer was restarted"
