from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from napari_autosegnet.cli.progress import Bar, PlainLines, progress, sentence

EPOCH: dict[str, Any] = {
    "step": "train",
    "epoch": 3,
    "epochs": 10,
    "loss": 0.51234,
    "mean_iou": 0.7,
    "seconds": 30.0,
    "seconds_left": 70.0,
}


def test_an_epoch_in_one_line() -> None:
    assert sentence("epoch", EPOCH) == "train: epoch 3/10  loss 0.512  mean iou 0.700, 1 min 10 s left"


@pytest.mark.parametrize(
    ("event", "values", "line"),
    [
        ("note", {"text": "smaller batch"}, "note: smaller batch"),
        ("alarm", {"text": "entropy has collapsed"}, "warning: entropy has collapsed"),
        ("plan", {"blocks": 8, "done": 3, "skipped": 0}, "predict: 8 blocks, 3 done before"),
        ("finished", {"step": "search", "seconds": 61.0}, "search: finished in 1 min 01 s"),
        ("stopped", {"step": "search", "reason": "asked"}, "search: stopped (asked)"),
        ("candidates", {"count": 24, "best": 0.5}, "search: 24 candidates rated, best 0.500"),
        (
            "plan",
            {"blocks": 2, "halo": 32, "halo_agreement": 0.99962},
            "predict: 2 blocks, halo 32 pixels (labels agree with exact on 99.962 % of pixels)",
        ),
        (
            "finalist",
            {"index": 1, "count": 4, "round": 2, "rounds": 3, "score": 0.5, "parameters": 1_200_000},
            "search: finalist 1 of 4, round 2 of 3: 0.500, 1.20 M parameters",
        ),
        ("architecture", {"score": 0.5, "final": False}, None),
        ("architecture", {"score": 0.5, "final": True}, "search: architecture chosen (score 0.500)"),
        ("architecture", {"score": 0.5, "remark": "why"}, "search: architecture chosen (score 0.500); why"),
        ("epoch", {"step": "search", "phase": "warm-up", "epoch": 1, "reward": None}, "warm-up: epoch 1"),
        (
            "quality",
            {"step": "train", "mean_iou": 0.71, "iou": {"a": 0.71}, "pixels": {"a": 1240}, "sections": 3},
            "train: quality 0.71, checked on 1,240 pixels of 3 sections",
        ),
        ("quality", {"step": "train", "mean_iou": 0.71}, None),
        ("progress", {"step": "V_rand", "done": 2, "total": 30}, "V_rand: 2 of 30"),
        ("progress", {"step": "V_rand", "done": 2, "total": None}, "V_rand: 2"),
        ("block", {"index": 3}, None),
        ("something new", {"x": 1}, None),
    ],
)
def test_events_in_words(event: str, values: dict[str, Any], line: str | None) -> None:
    assert sentence(event, values) == line


def test_values_that_are_missing_are_left_out() -> None:
    for event in (
        "quality",
        "epoch",
        "candidates",
        "finalist",
        "architecture",
        "plan",
        "progress",
        "finished",
        "stopped",
        "data",
    ):
        line = sentence(event, {})
        assert line is None or "\n" not in line


def test_frequent_events_give_a_line_a_minute_and_the_last_one() -> None:
    lines: list[str] = []
    now = 0.0
    report = PlainLines(lines.append, clock=lambda: now)
    for done in range(1, 301):
        report("progress", done=done, total=300, voxels_per_second=2e6, seconds_left=300.0 - done)
        report("block", index=done, status="done")
        now += 1
    assert [line.split()[1] for line in lines] == ["1", "61", "121", "181", "241", "300"]
    report("epoch", **EPOCH)
    report("epoch", **EPOCH)
    assert len(lines) == 8


def _bar() -> tuple[Bar, Progress, io.StringIO]:
    text = io.StringIO()
    shown = Progress(TextColumn("{task.description}"), console=Console(file=text, width=100), auto_refresh=False)
    return Bar(shown), shown, text


def test_the_bar_follows_the_time_where_there_is_a_budget() -> None:
    bar, shown, _ = _bar()
    bar("epoch", **EPOCH)
    (task,) = shown.tasks
    assert task.percentage == pytest.approx(30)
    assert task.fields["left"] == "1 min 10 s left"
    bar("epoch", step="train", epoch=5, epochs=10, loss=0.4)
    assert task.percentage == pytest.approx(50)
    assert len(shown.tasks) == 1


def test_a_finished_step_leaves_a_line_instead_of_its_bar() -> None:
    bar, shown, text = _bar()
    bar("epoch", **EPOCH)
    bar("alarm", text="[entropy] has collapsed")
    bar("finished", step="train", seconds=100.0)
    assert not shown.tasks
    assert "warning: [entropy] has collapsed" in text.getvalue()
    assert "train: finished in 1 min 40 s" in text.getvalue()


def test_a_finished_step_takes_away_all_that_it_counted() -> None:
    bar, shown, _ = _bar()
    bar("progress", step="evaluate", done=3, total=3)
    bar("progress", step="V_rand", done=1, total=3)
    assert len(shown.tasks) == 2
    bar("finished", step="evaluate", seconds=1.0)
    assert not shown.tasks


def test_blocks_done_before_count() -> None:
    bar, shown, _ = _bar()
    bar("plan", blocks=10, done=2, skipped=1)
    assert shown.tasks[0].completed == 3
    bar("progress", done=6, total=10, voxels_per_second=1e6, seconds_left=4.0)
    assert shown.tasks[0].completed == 6


def test_plain_lines_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as report:
        report("epoch", **EPOCH)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("train: epoch 3/10")
