"""Live curves."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("pytestqt")
pytest.importorskip("pyqtgraph")

from napari_autosegnet.widgets.learn import plots
from napari_autosegnet.widgets.learn.plots import SEARCH_PLOTS, TRAIN_PLOTS, LivePlots


def epoch(number: int, **values: Any) -> dict[str, Any]:
    return {"event": "epoch", "step": "train", "epoch": number, "loss": 1 / number, "mean_iou": 0.5, **values}


def test_curves_and_last_values_of_a_training(qtbot: Any) -> None:
    widget = LivePlots(TRAIN_PLOTS)
    qtbot.addWidget(widget)
    widget.set_colors({"axon": "#009e73"})
    widget.take({"event": "device", "name": "cpu"})
    for number in (1, 2, 3, 2):  # an epoch that was computed twice counts once, the later one
        widget.take(epoch(number, iou={"axon": 0.1 * number, "myelin": None}, mean_iou=float("nan")))
    widget.take({"event": "epoch", "step": "search", "epoch": 9, "loss": 7.0})
    quality, error = widget._plots
    assert widget.epochs == 3
    assert quality.courses["iou/axon"].points() == ([1, 2, 3], pytest.approx([0.1, 0.2, 0.3]))
    assert quality.courses["iou/myelin"].values == {} == quality.courses["mean_iou"].values
    qtbot.waitUntil(lambda: "loss" in error._items and bool(error.legend.text()), timeout=20_000)
    assert "axon&nbsp;0.300" in quality.legend.text() and "#009e73" in quality.legend.text()
    assert error._items["loss"].getData()[1].tolist() == pytest.approx([1, 1 / 2, 1 / 3])
    widget.set_colors({"axon": "#123456"})
    qtbot.waitUntil(lambda: "#123456" in quality.legend.text(), timeout=5000)
    widget.clear()
    qtbot.waitUntil(lambda: quality.isHidden() and error.isHidden(), timeout=5000)


def test_a_job_that_begins_anew_takes_the_place_of_the_one_before(qtbot: Any) -> None:
    widget = LivePlots((*SEARCH_PLOTS, *TRAIN_PLOTS))
    qtbot.addWidget(widget)

    def loss(row: int) -> dict[int, float]:
        return widget._plots[row].courses["loss"].values

    def train(epochs: range, value: float) -> None:
        widget.take({"event": "started", "step": "train"})
        for epoch in epochs:
            widget.take({"event": "epoch", "step": "train", "epoch": epoch, "loss": value})

    widget.take({"event": "started", "step": "search"})
    for epoch in (1, 2, 3):
        widget.take({"event": "epoch", "step": "search", "epoch": epoch, "loss": 2.0})
    train(range(1, 31), 1.0)
    train(range(28, 32), 0.5)  # gone on with from epoch 27
    assert sorted(loss(3)) == list(range(1, 32)) and loss(3)[27] == 1.0 and loss(3)[28] == 0.5
    train(range(1, 6), 0.1)
    assert loss(3) == dict.fromkeys(range(1, 6), 0.1)
    assert sorted(loss(1)) == [1, 2, 3], "the search's curves are not the training's"


def test_what_has_no_value_yet_is_not_shown(qtbot: Any) -> None:
    widget = LivePlots(SEARCH_PLOTS)
    qtbot.addWidget(widget)
    widget.take({"event": "epoch", "step": "search", "epoch": 1, "loss": 2.0, "reward": None, "best_reward": None})
    quality, error = widget._plots
    qtbot.waitUntil(lambda: "loss" in error._items, timeout=20_000)
    assert quality.isHidden() and not error.isHidden()


def test_long_runs_are_thinned_but_for_the_last_epoch() -> None:
    course = plots._Course(plots.Curve("loss", "loss", "#000000"), {n: float(n) for n in range(1, 10_001)})
    epochs, values = course.points()
    assert len(epochs) <= plots._MOST_POINTS and epochs[-1] == 10_000 == values[-1]


def test_without_pyqtgraph_it_says_what_to_install(qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    widget = LivePlots(TRAIN_PLOTS)
    qtbot.addWidget(widget)
    widget.take(epoch(1))
    qtbot.waitUntil(lambda: not widget.missing.isHidden(), timeout=5000)
    assert "pip install pyqtgraph" in widget.missing.text()
