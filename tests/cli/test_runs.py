from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from napari_autosegnet.cli.app import run as run_command
from napari_autosegnet.cli.runs import describe
from napari_autosegnet.events import Epoch, Finished, QualityMeasured, Stopped
from napari_autosegnet.run import Run, find_runs
from run_configs import update_config
from strange_runs import FAKED, ORDERS, is_harmless, write_strange_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run.create(tmp_path / "runs" / "first")
    update_config(made, data={})
    for epoch in range(1, 4):
        made.report(Epoch(step="search", epoch=epoch, epochs=3, loss=0.5, reward=0.1 * epoch, best_reward=0.2 * epoch))
    made.report(Finished(step="search", seconds=3.0))
    return made


def _json(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert run_command([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_runs_are_found_two_levels_deep(run: Run, tmp_path: Path) -> None:
    deeper = Run.create(tmp_path / "a" / "b" / "c")
    update_config(deeper, data={})
    deeper.report(Epoch(step="search", epoch=1))
    (tmp_path / ".hidden").mkdir()
    assert [found.path for found in find_runs(tmp_path)] == [run.path]
    assert [found.path for found in find_runs(run.path)] == [run.path]


def test_list(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = _json(capsys, "runs", "list", str(tmp_path))["runs"]
    assert found["run"] == str(run.path)
    assert (found["state"], found["step"], found["epoch"]) == ("finished", "search", 3)
    assert found["score"] == pytest.approx(0.6)
    assert run_command(["runs", "list", str(tmp_path)]) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.startswith("run") and "first" in line and "0.600" in line


def test_a_score_of_a_few_pixels_is_not_known(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run.report(Epoch(step="train", epoch=1, mean_iou=0.72))
    checked = {"mean_iou": 0.72, "iou": {"a": 0.72, "b": None}, "pixels": {"a": 900, "b": 37}, "sections": 1}
    run.report(QualityMeasured(step="train", **checked))
    (found,) = _json(capsys, "runs", "list", str(tmp_path))["runs"]
    assert found["quality"]["known"] is False and found["quality"]["pixels"] == {"a": 900, "b": 37}
    assert run_command(["runs", "list", str(tmp_path)]) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert "checked on" in header and "not known" in line and "937 pixels of 1 section" in line and "0.72" not in line


def test_list_of_an_empty_and_of_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["runs", "list", str(tmp_path)]) == 0
    assert run_command(["runs", "list", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_states(run: Run) -> None:
    assert describe(run)["state"] == "finished"
    run.report(Epoch(step="train", epoch=1, mean_iou=0.4))
    assert describe(run) | {"time": None} == {
        "run": str(run.path),
        "state": "interrupted",
        "step": "train",
        "epoch": 1,
        "score": 0.4,
        "quality": None,
        "time": None,
    }
    with run.locked():
        assert describe(run)["state"] == "working"
        run.request("pause")
        assert describe(run)["state"] == "paused"
    run.report(Stopped(step="train", reason="asked"))
    assert describe(run)["state"] == "stopped"


def test_requests_reach_the_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(run.path)
    with run.locked():
        assert run_command(["runs", "pause", folder]) == 0
        assert run.requested("pause")
        assert run_command(["runs", "resume", folder]) == 0
        assert not run.requested("pause")
        assert run_command(["runs", "stop", folder]) == 0
        assert run.requested("stop")
    assert "napari-autosegnet runs resume" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["pause", "resume", "stop"])
def test_nobody_to_ask(run: Run, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["runs", command, str(run.path)]) == 1
    assert not run.requested("pause") and not run.requested("stop")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and str(run.path) in line


@pytest.mark.parametrize("command", ["follow", "pause", "resume", "stop"])
def test_no_run(tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["runs", command, str(tmp_path)]) == 1
    assert "not a run folder" in capsys.readouterr().err


def test_follow_an_ended_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with open(run.events_file, "a", encoding="utf-8") as handle:
        handle.write('{"event": "epo')
    assert run_command(["runs", "follow", str(run.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[-1] == "search: finished in 3 s"


def test_follow_until_the_run_ends(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    started = threading.Event()

    def work() -> None:
        with run.locked():
            started.set()
            for epoch in range(1, 6):
                time.sleep(0.1)
                run.report(Epoch(step="train", epoch=epoch, epochs=5, loss=0.1))
            run.report(Finished(step="train", seconds=0.5))

    worker = threading.Thread(target=work)
    worker.start()
    started.wait(5)
    assert run_command(["runs", "follow", str(run.path), "--json"]) == 0
    worker.join()
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["epoch"] for event in events if event.get("step") == "train" and "epoch" in event] == [1, 2, 3, 4, 5]
    assert events[-1]["event"] == "finished"


# Runs that somebody else made


@pytest.fixture
def strange(tmp_path: Path) -> Run:
    """A run whose name, too, wants to fake a line."""
    return write_strange_run(tmp_path / "runs" / f"a{ORDERS}{FAKED}")


@pytest.mark.parametrize(
    "words", [["runs", "list"], ["runs", "list", "--json"], ["runs", "follow"], ["runs", "pause"], ["show"]]
)
def test_names_and_events_steer_no_terminal(words: list[str], strange: Run, capsys: pytest.CaptureFixture[str]) -> None:
    place = strange.path.parent if words[1:2] == ["list"] else strange.path
    run_command([*words, str(place)])
    printed = capsys.readouterr()
    assert printed.out + printed.err and is_harmless(printed.out) and is_harmless(printed.err)
    if words == ["runs", "list"]:
        _, row = printed.out.splitlines()
        assert r"a\x1b[31m" in row and r"\nerror: faked line" in row


def test_a_training_that_is_gone_on_with_steers_no_terminal(strange: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for step in ("search", "train"):
        assert run_command([step, "--run", str(strange.path), "--resume"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and is_harmless(line)


def test_a_run_that_leads_elsewhere_is_named_and_hides_no_other(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_strange_run(tmp_path / "runs" / "leads elsewhere")
    mine = tmp_path / "thesis.txt"
    mine.write_text("my own words")
    other.events_file.unlink()
    (other.path / "events.jsonl").symlink_to(mine)
    (other.path / ".lock").symlink_to(mine)
    assert run_command(["runs", "list", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "unreadable" in printed.out and "first" in printed.out and "is a link" in printed.err
    for words in (["runs", "follow"], ["runs", "stop"], ["show"], ["train", "--resume", "--run"]):
        assert run_command([*words, str(other.path)]) == 1
        assert "is a link" in capsys.readouterr().err
    assert mine.read_text() == "my own words"


def test_what_may_not_be_read_hides_no_other_run(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret, other = tmp_path / "runs" / "a secret", Run.create(tmp_path / "runs" / "b other")
    secret.mkdir()
    update_config(other, search={})
    other.events_file.mkdir()  # to root all files are open
    secret.chmod(0)
    try:
        assert run_command(["runs", "list", str(tmp_path)]) == 0
    finally:
        secret.chmod(0o700)
    printed = capsys.readouterr()
    assert "first" in printed.out and "unreadable" in printed.out
    assert f"cannot read {other.events_file}: Is a directory; start a new run" in printed.err
