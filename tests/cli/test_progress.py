from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from napari_autosegnet.cli.progress import Bar, PlainLines, progress, sentence
from napari_autosegnet.events import (
    ArchitectureFound,
    BlocksPlanned,
    BlockWritten,
    CandidatesRated,
    DataRead,
    Epoch,
    Event,
    Failed,
    FinalistTrained,
    Finished,
    Note,
    ProgressMade,
    QualityMeasured,
    Stopped,
    WarningRaised,
)

EPOCH = Epoch(step="train", epoch=3, epochs=10, loss=0.51234, mean_iou=0.7, seconds=30.0, seconds_left=70.0)
ARCHITECTURE: dict[str, Any] = {"down": []}


def test_an_epoch_in_one_line() -> None:
    assert sentence(EPOCH) == "train: epoch 3/10  loss 0.512  mean iou 0.700, 1 min 10 s left"


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Note(text="smaller batch"), "note: smaller batch"),
        (WarningRaised(text="entropy has collapsed"), "warning: entropy has collapsed"),
        (BlocksPlanned(blocks=8, done=3, skipped=0), "predict: 8 blocks, 3 done before"),
        (Finished(step="search", seconds=61.0), "search: finished in 1 min 01 s"),
        (Finished(step="search"), "search: finished in 0 s"),
        (Stopped(step="search", reason="asked"), "search: stopped (asked)"),
        (Stopped(), "job: stopped"),
        (Failed(text="gone"), "job: failed: gone"),
        (CandidatesRated(count=24, best=0.5), "search: 24 candidates rated, best 0.500"),
        (CandidatesRated(count=24), "search: 24 candidates rated"),
        (
            BlocksPlanned(blocks=2, halo=32, halo_agreement=0.99962),
            "predict: 2 blocks, halo 32 pixels (labels agree with exact on 99.962 % of pixels)",
        ),
        (
            BlocksPlanned(blocks=2, halo=8, precision="float16", precision_agreement=0.99991),
            "predict: 2 blocks, halo 8 pixels, float16 (labels agree with float32 on 99.991 % of pixels)",
        ),
        (
            FinalistTrained(index=1, count=4, round=2, rounds=3, score=0.5, parameters=1_200_000),
            "search: finalist 1 of 4, round 2 of 3: 0.500, 1.20 M parameters",
        ),
        (FinalistTrained(index=1, count=4, round=2, rounds=3), "search: finalist 1 of 4, round 2 of 3"),
        (ArchitectureFound(architecture=ARCHITECTURE, score=0.5, final=False), None),
        (ArchitectureFound(architecture=ARCHITECTURE, score=0.5), "search: architecture chosen (score 0.500)"),
        (
            ArchitectureFound(architecture=ARCHITECTURE, score=0.5, remark="why"),
            "search: architecture chosen (score 0.500); why",
        ),
        (Epoch(step="search", phase="warm-up", epoch=1, reward=None), "warm-up: epoch 1"),
        (
            QualityMeasured(step="train", mean_iou=0.71, iou={"a": 0.71}, pixels={"a": 1240}, sections=3),
            "train: quality 0.71, checked on 1,240 pixels of 3 sections",
        ),
        (ProgressMade(step="V_rand", done=2, total=30), "V_rand: 2 of 30"),
        (ProgressMade(step="V_rand", done=2, total=None), "V_rand: 2"),
        (DataRead(text=""), None),
        (BlockWritten(index=3, origin=(0, 0, 0), status="done", voxels=8, step="predict"), None),
    ],
)
def test_events_in_words(event: Event, line: str | None) -> None:
    assert sentence(event) == line


def test_frequent_events_give_a_line_a_minute_and_the_last_one() -> None:
    lines: list[str] = []
    now = 0.0
    report = PlainLines(lines.append, clock=lambda: now)
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
