from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from napari_autosegnet.cli.progress import Bar, PlainLines, progress
from napari_autosegnet.events import (
    BlocksPlanned,
    BlockWritten,
    Epoch,
    Finished,
    ProgressMade,
    WarningRaised,
)

EPOCH = Epoch(step="train", epoch=3, epochs=10, loss=0.51234, mean_iou=0.7, seconds=30.0, seconds_left=70.0)


def test_frequent_events_give_a_line_a_minute_and_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    report = PlainLines(lines.append)
    for done in range(1, 301):
        report(ProgressMade(done=done, total=300, voxels_per_second=2e6, seconds_left=300.0 - done))
        report(BlockWritten(index=done, origin=(0, 0, done), status="done", voxels=8, step="predict"))
        now += 1
    assert [line.split()[1] for line in lines] == ["1", "61", "121", "181", "241", "300"]
    report(EPOCH)
    report(EPOCH)
    assert len(lines) == 8


def _bar() -> tuple[Bar, Progress, io.StringIO]:
    text = io.StringIO()
    shown = Progress(TextColumn("{task.description}"), console=Console(file=text, width=100), auto_refresh=False)
    return Bar(shown), shown, text


def test_the_bar_follows_the_time_where_there_is_a_budget() -> None:
    bar, shown, _ = _bar()
    bar(EPOCH)
    (task,) = shown.tasks
    assert task.percentage == pytest.approx(30)
    assert task.fields["left"] == "1 min 10 s left"
    bar(Epoch(step="train", epoch=5, epochs=10, loss=0.4))
    assert task.percentage == pytest.approx(50)
    assert len(shown.tasks) == 1


def test_a_finished_step_leaves_a_line_instead_of_its_bar() -> None:
    bar, shown, text = _bar()
    bar(EPOCH)
    bar(WarningRaised(text="[entropy] has collapsed"))
    bar(Finished(step="train", seconds=100.0))
    assert not shown.tasks
    assert "warning: [entropy] has collapsed" in text.getvalue()
    assert "train: finished in 1 min 40 s" in text.getvalue()


def test_a_finished_step_takes_away_all_that_it_counted() -> None:
    bar, shown, _ = _bar()
    bar(ProgressMade(step="evaluate", done=3, total=3))
    bar(ProgressMade(step="V_rand", done=1, total=3))
    assert len(shown.tasks) == 2
    bar(Finished(step="evaluate", seconds=1.0))
    assert not shown.tasks


def test_blocks_done_before_count() -> None:
    bar, shown, _ = _bar()
    bar(BlocksPlanned(blocks=10, done=2, skipped=1))
    assert shown.tasks[0].completed == 3
    bar(ProgressMade(done=6, total=10, voxels_per_second=1e6, seconds_left=4.0))
    assert shown.tasks[0].completed == 6


def test_plain_lines_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as report:
        report(EPOCH)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("train: epoch 3/10")
