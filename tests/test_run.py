"""The run folder."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from napari_autosegnet.errors import UserError
from napari_autosegnet.run import Run, listeners, write_atomically


def test_events_are_read_back_without_a_line_cut_short(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    run.report("epoch", loss=0.5)
    run.report("epoch", loss=0.25)
    with open(run.events_file, "a") as handle:
        handle.write('{"event": "epoch", "lo')
    assert [event["loss"] for event in run.events()] == [0.5, 0.25]


def test_config_keeps_other_sections(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    run.update_config(search={"epochs": 3})
    run.update_config(training={"epochs": 4})
    assert run.read_config() == {"version": 1, "search": {"epochs": 3}, "training": {"epochs": 4}}
    assert json.loads(run.config_file.read_text()) == run.read_config()


def test_open_refuses_other_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run folder"):
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


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    write_atomically(file, "old")
    with pytest.raises(UserError, match="cannot write"):
        write_atomically(file / "below.json", "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_pause_waits_and_stop_ends_it(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    assert not run.should_stop()
    run.request("pause")
    threading.Timer(0.3, run.withdraw, ("pause",)).start()
    started = time.monotonic()
    assert not run.should_stop()
    assert time.monotonic() - started > 0.2
    assert [event["event"] for event in run.events()] == ["paused", "resumed"]
    run.request("pause")
    run.request("stop")
    assert run.should_stop()
    run.withdraw()
    assert not run.should_stop()


def test_listeners_hear_the_same(tmp_path: Path) -> None:
    heard: list[tuple[str, int]] = []
    report = listeners(*[lambda event, /, **values: heard.append((event, values["n"]))] * 2)
    report("x", n=3)
    assert heard == [("x", 3), ("x", 3)]
