"""The run client: with real workers that are paused, stopped, cancelled, killed; with files as they may be found."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pytestqt", reason="pytest-qt is not installed")
pytest.importorskip("napari", reason="napari, which brings psutil, is not installed")

import numpy as np
import psutil
from qtpy.QtCore import QTimer

import small_jobs
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Epoch, Finished, Paused, Started, Stopped
from napari_autosegnet.jobs.configuration import RunConfiguration
from napari_autosegnet.jobs.train import TrainJob
from napari_autosegnet.jobs.worker_info import WorkerInfo, info_file, log_file
from napari_autosegnet.model import Model
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.jobs.run_client import RunClient
from napari_autosegnet.widgets.jobs.worker_process import last_words, launch
from run_configs import update_config
from run_followers import EPOCH, LONG, Follower, write_events
from small_jobs import ENDLESS

pytestmark = pytest.mark.usefixtures("qapp")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("data")
    return small_jobs.write_data(folder) | {"architecture": small_jobs.architecture_file(folder)}


def training(data: dict[str, Any], **changes: Any) -> TrainJob:
    return small_jobs.train_job(**changes).model_copy(update=data)


def pid_of(follower: Follower) -> int:
    process = follower.client.process
    assert process is not None and process.alive
    return process.pid


def test_a_job_from_start_to_end(follow: Callable[..., Follower], run: Run, data: dict[str, Any]) -> None:
    follower = follow(run)
    follower.until_caught_up()
    ended: list[str | None] = []
    follower.client.finished.connect(lambda: ended.append(follower.client.job_step))
    follower.client.start(lambda: training(data))
    assert follower.client.active and follower.client.state == "starting"
    with pytest.raises(UserError, match="worked on already"):
        follower.client.start(training(data))
    follower.until("finished", "failed", "died")
    assert follower.states == ["starting", "working", "finished"] and follower.client.reason == ""
    assert ended == ["train"]
    assert not run.is_active and not follower.client.can_resume
    assert Model.load(run.model_folder).classes[1].name == "myelin"
    # Whoever looks later sees the same, and nothing of it in another step.
    later, other = follow(run), follow(run, "search")
    later.until_caught_up()
    other.until_caught_up()
    assert later.client.state == "finished" and later.events == follower.events
    assert other.client.state == "idle" and other.events == []


def test_pause_resume_close_attach_stop_and_go_on(
    follow: Callable[..., Follower], run: Run, data: dict[str, Any]
) -> None:
    first = follow(run)
    first.client.start(training(data, epochs=ENDLESS))
    first.client.pause()  # before it has begun
    assert first.client.pause_asked
    first.until("paused")
    pid = pid_of(first)
    own = psutil.Process().nice()
    assert psutil.Process(pid).nice() > own or own == 19 or sys.platform == "win32"
    first.client.close()
    second = follow(run)
    second.until("paused")
    assert pid_of(second) == pid
    second.client.resume()
    second.until("working")
    second.until_epoch()
    second.client.stop()
    assert second.client.state == "stopping"
    second.until("stopped")
    assert second.client.can_resume and Model.load(run.model_folder)
    epochs = max(event.epoch for event in second.events if isinstance(event, Epoch))
    second.client.continue_run("cpu")
    second.until("working")
    second.until_epoch()
    assert max(event.epoch for event in second.events if isinstance(event, Epoch)) > epochs
    os.kill(pid_of(second), signal.SIGTERM)
    second.until("stopped")


def test_a_run_whose_images_were_moved_goes_on_with_those_that_are_open(
    follow: Callable[..., Follower], run: Run, tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    data = small_jobs.write_data(old) | {"architecture": small_jobs.architecture_file(tmp_path)}
    follower = follow(run)
    follower.client.start(training(data, epochs=ENDLESS))
    follower.until_epoch()
    follower.client.stop()
    follower.until("stopped")
    old.rename(new)
    follower.client.continue_run("cpu")
    follower.until("failed")
    assert "in napari open it from there, then continue" in follower.client.reason
    follower.client.continue_run("cpu", [tmp_path / "other.tif", *new.iterdir()])
    follower.until("working")
    follower.until_epoch()
    follower.client.stop()
    follower.until("stopped")
    kept = RunConfiguration.load(run).data
    assert kept is not None and {path.parent for path in (*kept.images, *kept.labels)} == {new}


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_killed_worker_is_reported_and_a_cancelled_one_is_gone(
    follow: Callable[..., Follower], run: Run, data: dict[str, Any]
) -> None:
    follower = follow(run)
    follower.client.start(training(data, epochs=ENDLESS))
    follower.until("working")
    follower.until_epoch()
    witness = follow(run)  # one that did not start it, and so learns no exit status
    witness.until("working")
    os.kill(pid_of(follower), signal.SIGKILL)
    follower.until("died")
    witness.until("died")
    for each in (follower, witness):
        assert "killed" in each.client.reason and "memory" in each.client.reason
        assert each.client.can_resume and not each.client.active
    follower.client.continue_run("cpu")
    follower.until("working")
    witness.until("working")
    process = follower.client.process
    assert process is not None
    asked = time.monotonic()
    witness.client.cancel()
    follower.qtbot.waitUntil(lambda: not process.alive, timeout=5000)
    assert time.monotonic() - asked < 2.0
    witness.until("stopped")
    assert witness.client.reason == "cancelled" and not run.model_folder.exists()
    follower.until("stopped", "died")
    witness.until("stopped")
    last = follow(run)
    last.until("stopped")
    assert last.client.reason == "cancelled" and last.client.can_resume


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_cancel_does_not_wait_for_a_worker_that_hangs(
    follow: Callable[..., Follower], run: Run, data: dict[str, Any]
) -> None:
    follower = follow(run)
    follower.client.start(training(data, epochs=ENDLESS))
    follower.qtbot.waitUntil(lambda: follower.client.process is not None, timeout=LONG)
    pid = pid_of(follower)
    os.kill(pid, signal.SIGSTOP)
    asked = time.monotonic()
    follower.client.cancel()
    follower.until("stopped")
    assert time.monotonic() - asked < 2.0 and not psutil.pid_exists(pid)
    assert follower.client.reason == "cancelled" and not follower.client.can_resume


def test_what_the_user_can_mend_comes_as_one_line(
    follow: Callable[..., Follower], run: Run, data: dict[str, Any], tmp_path: Path
) -> None:
    follower = follow(run)

    def no_job() -> TrainJob:
        raise UserError("nothing is painted; paint something")

    follower.client.start(no_job)
    follower.until("failed")
    assert follower.client.reason == "nothing is painted; paint something"
    follower.client.start(training(data | {"labels": (tmp_path / "gone.png",)}))
    follower.until("failed")
    assert "gone.png" in follower.client.reason and "\n" not in follower.client.reason
    assert not follower.client.can_resume


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of another process")
def test_out_of_memory_is_said_and_can_be_gone_on_from(
    follow: Callable[..., Follower], run: Run, data: dict[str, Any]
) -> None:
    import resource

    follower = follow(run)
    follower.client.start(training(data, epochs=ENDLESS))
    follower.until("working")
    follower.until_epoch()
    pid = pid_of(follower)
    size = psutil.Process(pid).memory_info().vms
    resource.prlimit(pid, resource.RLIMIT_AS, (size, size))
    follower.client.pause()
    follower.client.resume()
    # Its own reserves may last a while; then the next larger piece is refused.
    resource.prlimit(pid, resource.RLIMIT_AS, (size // 2, size // 2))
    follower.until("failed", "died")
    # Where native code is refused a small piece, it may crash before anybody can say why.
    assert "memory" in follower.client.reason or "SIGSEGV" in follower.client.reason
    assert follower.client.can_resume


def test_a_folder_that_cannot_be_written_fails_in_words(follow: Callable[..., Follower], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    follower = follow(Run(tmp_path / "file" / "run"))
    follower.client.start(TrainJob())
    follower.until("failed")
    assert "cannot make the run folder" in follower.client.reason


# -- files as they may be found ----------------------------------------------------------------------------------------


def test_damaged_lines_are_left_out_and_a_half_line_is_waited_for(
    follow: Callable[..., Follower], run: Run, qtbot: Any
) -> None:
    write_events(run, {"event": "started", "step": "train"}, EPOCH)
    half = json.dumps(EPOCH | {"epoch": 2})
    with open(run.events_file, "ab") as handle:
        handle.write(
            b'{"event": \n[1]\n"text"\n{"no": "event"}\n' + b"x" * 200_000 + b"\n\xff\xfe\n" + half[:20].encode()
        )
    follower = follow(run)
    follower.until_caught_up()
    assert [getattr(event, "epoch", None) for event in follower.events] == [None, 1]
    with open(run.events_file, "a") as handle:
        handle.write(half[20:] + "\n")
    qtbot.waitUntil(lambda: len(follower.events) > 2, timeout=5000)
    assert [getattr(event, "epoch", None) for event in follower.events] == [None, 1, 2]
    # Another file in its place is read from its beginning.
    write_events(run, {"event": "started", "step": "train"})
    qtbot.waitUntil(lambda: len(follower.events) > 3, timeout=5000)
    assert follower.events[-1].event == "started"


def test_a_long_run_is_read_in_small_pieces(follow: Callable[..., Follower], run: Run, qtbot: Any) -> None:
    write_events(run, {"event": "started", "step": "train"}, *(EPOCH | {"epoch": n} for n in range(20_000)))
    beats: list[float] = []
    timer = QTimer()
    timer.timeout.connect(lambda: beats.append(time.thread_time()))
    timer.start(0)
    follower = follow(run)
    follower.until_caught_up()
    timer.stop()
    took = np.diff(beats)
    assert len(follower.events) == 20_001
    assert len(took) > 5 and sorted(took)[-3] < 0.03


def test_a_run_of_the_command_line_from_before_workers(follow: Callable[..., Follower], run: Run) -> None:
    write_events(run, {"event": "device", "name": "cpu"}, EPOCH, {"event": "finished", "step": "train", "seconds": 1})
    follower = follow(run)
    follower.until("finished")


def test_who_holds_the_lock_is_at_work(follow: Callable[..., Follower], run: Run) -> None:
    write_events(run, {"event": "started", "step": "train"}, EPOCH)
    with run.locked():
        follower = follow(run)
        follower.until("working")
        follower.client.stop()
        follower.qtbot.waitUntil(lambda: run.requested("stop"), timeout=5000)
        assert follower.client.process is None
    run.report(Stopped(step="train", reason="a stop was asked for"))
    follower.until("stopped")


def test_what_another_step_does_in_the_run_is_left_alone(follow: Callable[..., Follower], run: Run) -> None:
    Run.create(run.path).report(Started(step="search"))
    follower = follow(run)
    with run.locked():
        # Nothing of whoever holds the run is overwritten.
        follower.client.start(TrainJob())
        follower.until("failed")
    assert "in use by another process" in follower.client.reason
    assert not (run.path / "job.json").exists() and not info_file(run).exists()


def test_another_run_is_followed_while_a_job_is_starting(
    follow: Callable[..., Follower], run: Run, tmp_path: Path
) -> None:
    other = Run.create(tmp_path / "other")
    update_config(other, training={})
    other.report(Started(step="train"))
    other.report(Finished(step="train"))
    go = threading.Event()

    def job() -> TrainJob:
        go.wait(20)
        raise UserError("nothing to train on")

    follower = follow(run)
    follower.client.start(job)
    follower.until("starting")
    follower.client.attach(run)
    assert follower.client.state == "starting", "the same run continues starting"
    follower.client.attach(other)
    follower.until("finished")
    go.set()
    assert follower.client.attached_to(other)


def test_a_run_that_broke_off_while_nobody_looked(follow: Callable[..., Follower], run: Run) -> None:
    write_events(run, {"event": "started", "step": "train"}, EPOCH)
    update_config(run, training={})
    follower = follow(run)
    follower.until("died")
    assert follower.client.can_resume and follower.states == ["died"]


def test_a_worker_that_died_before_it_told_anything(follow: Callable[..., Follower], run: Run) -> None:
    run.path.mkdir()
    info = WorkerInfo(pid=2**22 + 1, identity=None, started=time.time(), step="train", host="")
    info_file(run).write_text(info.model_dump_json())
    log_file(run).parent.mkdir()
    log_file(run).write_text("old words\n--- train now\nTraceback\nImportError: no torch\n\n")
    follower, other = follow(run), follow(run, "search")
    follower.until("died")
    assert follower.client.reason == "ImportError: no torch" and not follower.client.can_resume
    other.until_caught_up()
    assert other.client.state == "idle"


def test_the_log_of_a_new_job_is_not_glued_to_a_torn_line(run: Run, tmp_path: Path) -> None:
    """Or the last words of the job before would be taken for those of this one."""
    log_file(run).parent.mkdir(parents=True)
    log_file(run).write_text("--- train before\nold words, torn by a kil")
    process = launch(run, TrainJob(resume=True, device="cpu"))
    while process.alive:
        time.sleep(0.05)
    lines = log_file(run).read_text().splitlines()
    assert lines[1] == "old words, torn by a kil" and lines[2].startswith("--- train ")
    assert last_words(run) != "old words, torn by a kil"


def test_the_time_left_counts_down_and_stands_still_in_a_pause(follow: Callable[..., Follower], run: Run) -> None:
    def at(seconds_ago: float) -> str:
        return datetime.fromtimestamp(time.time() - seconds_ago, UTC).isoformat()

    write_events(run, {"event": "started", "step": "train", "time": at(60)}, EPOCH | {"time": at(30)})
    with run.locked():
        follower = follow(run)
        follower.until("working")
        assert follower.client.seconds_left == pytest.approx(70, abs=3)
        run.report(Paused())
        follower.until("paused")
        left = follower.client.seconds_left
        follower.qtbot.wait(300)
        assert follower.client.seconds_left == left
    follower.until("died")
    assert follower.client.seconds_left is None


def test_a_run_folder_that_vanishes(follow: Callable[..., Follower], run: Run) -> None:
    write_events(run, {"event": "started", "step": "train"}, EPOCH)
    with run.locked():
        follower = follow(run)
        follower.until("working")
    shutil.rmtree(run.path)
    follower.until("died")
    assert not follower.client.can_resume


def test_a_client_without_a_run(qtbot: Any) -> None:
    client = RunClient(step="train")
    with pytest.raises(UserError, match="no run is open"):
        client.start(TrainJob())
    client.cancel()
    client.stop()
    client.pause()
    assert client.state == "idle" and client.seconds_left is None
    client.close()
