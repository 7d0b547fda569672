"""Live curves."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("pytestqt")
pytest.importorskip("pyqtgraph")

from napari_autosegnet.events import DeviceChosen, Epoch, QualityMeasured, Started
from napari_autosegnet.quality import LEAST_PIXELS
from napari_autosegnet.widgets.learn import plots
from napari_autosegnet.widgets.learn.plots import PLOTS, LivePlots, thinned


def epoch(number: int, **values: Any) -> Epoch:
    return Epoch(**{"step": "train", "epoch": number, "loss": 1 / number, "mean_iou": 0.5, **values})


def test_curves_and_last_values_of_a_training(qtbot: Any) -> None:
    widget = LivePlots([plot for plot in PLOTS if plot.step == "train"])
    qtbot.addWidget(widget)
    widget.set_colors({"axon": "#009e73"})
    widget.add(DeviceChosen(name="cpu"))
    widget.add(Epoch(step="search", epoch=9, loss=7.0))
    for number in (1, 2, 3, 2):  # resumed after the first: what came later is computed again
        widget.add(epoch(number, iou={"axon": 0.1 * number, "myelin": None}, mean_iou=float("nan")))
    quality, error = widget.rows
    assert widget.epochs == 2
    qtbot.waitUntil(lambda: bool(error.drawn()) and bool(error.legend.text()), timeout=20_000)
    assert quality.drawn() == {"axon": ([1, 2], pytest.approx([0.1, 0.2]))}, "no value, no curve"
    assert "axon&nbsp;0.200" in quality.legend.text() and "#009e73" in quality.legend.text()
    assert error.drawn() == {"training": ([1, 2], [1, 1 / 2])}
    widget.set_colors({"axon": "#123456"})
    qtbot.waitUntil(lambda: "#123456" in quality.legend.text(), timeout=5000)
    widget.clear()
    qtbot.waitUntil(lambda: quality.isHidden() and error.isHidden(), timeout=5000)


def test_a_job_that_begins_anew_takes_the_place_of_the_one_before(qtbot: Any) -> None:
    widget = LivePlots(PLOTS)
    qtbot.addWidget(widget)

    def curve(row: int) -> tuple[list[int], list[float]]:
        return next(iter(widget.rows[row].drawn().values()), ([], []))

    def train(epochs: range, value: float) -> None:
        widget.add(Started(step="train"))
        for epoch in epochs:
            widget.add(Epoch(step="train", epoch=epoch, loss=value))

    widget.add(Started(step="search"))
    for epoch in (1, 2, 3):
        widget.add(Epoch(step="search", epoch=epoch, loss=2.0))
    train(range(1, 31), 1.0)
    train(range(28, 32), 0.5)  # gone on with from epoch 27
    qtbot.waitUntil(lambda: curve(4) == ([*range(1, 32)], [1.0] * 27 + [0.5] * 4), timeout=20_000)
    train(range(1, 6), 0.1)
    qtbot.waitUntil(lambda: curve(4) == ([*range(1, 6)], [0.1] * 5), timeout=20_000)
    assert widget.rows[2].isHidden() and not widget.rows[4].isHidden(), "only of what was worked on last"


def test_what_has_no_value_yet_is_not_shown(qtbot: Any) -> None:
    widget = LivePlots([plot for plot in PLOTS if plot.step == "search"])
    qtbot.addWidget(widget)
    widget.add(Epoch(step="search", epoch=1, loss=2.0))
    quality, error = widget.rows
    qtbot.waitUntil(lambda: bool(error.drawn()), timeout=20_000)
    assert quality.isHidden() and not error.isHidden()


@pytest.mark.parametrize("step", ["fit", "train"])
def test_no_curve_of_a_quality_that_is_not_known(qtbot: Any, step: Any) -> None:
    widget = LivePlots([plot for plot in PLOTS if plot.step == step])
    qtbot.addWidget(widget)
    widget.show()
    quality = widget.rows[0]

    def learn(number: int, checked: int) -> None:
        widget.add(epoch(number, step=step, network="a chain", iou={"axon": 1.0}))
        pixels = {"axon": checked, "myelin": checked}
        widget.add(QualityMeasured(step=step, pixels=pixels, sections=1, mean_iou=1.0, iou={"axon": 1.0}))

    learn(1, LEAST_PIXELS)
    qtbot.waitUntil(quality.isVisible, timeout=20_000)
    learn(2, LEAST_PIXELS - 1)
    qtbot.waitUntil(quality.isHidden, timeout=5000)
    learn(3, LEAST_PIXELS)
    qtbot.waitUntil(quality.isVisible, timeout=5000)


def test_long_runs_are_thinned_but_for_the_last_epoch() -> None:
    points = [(epoch, float(epoch)) for epoch in range(1, 10_001)]
    few = thinned(points, 2000)
    assert 1000 < len(few) <= 2000 and few[-1] == points[-1] and thinned(points[:2000], 2000) == points[:2000]


def test_without_pyqtgraph_it_says_what_to_install(qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    widget = LivePlots([plot for plot in PLOTS if plot.step == "train"])
    qtbot.addWidget(widget)
    widget.add(epoch(1))
    qtbot.waitUntil(lambda: not widget.missing.isHidden(), timeout=5000)
    assert "pip install pyqtgraph" in widget.missing.text()
