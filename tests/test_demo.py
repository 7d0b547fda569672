"""The demo, as a command."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage import io
from typer.testing import CliRunner

from napari_autosegnet.cli.app import app
from napari_autosegnet.data.images import open_labels
from napari_autosegnet.data.sample import sample_folder


def demo(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "napari_autosegnet", "demo", "--out", str(out), "--device", "cpu", *more],
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    found = demo(out, "--budget", "12s")
    assert found.returncode == 0, found.stderr
    return out


def test_the_summary_says_what_was_reached_and_where_it_lies(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert set(summary) == {"mean_iou", "iou", "seconds", "paths"}
    assert set(summary["iou"]) == {"background", "myelin", "axon"}
    assert summary["mean_iou"] == pytest.approx(np.mean(list(summary["iou"].values())))
    assert {"fit", "predict"} <= set(summary["seconds"])
    for name in ("run", "model", "labels", "overlay", "architecture", "curves", "menu", "uncertainty"):
        assert Path(summary["paths"][name]).exists(), name


def test_the_score_is_that_of_the_labels_written(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    found = open_labels(Path(summary["paths"]["labels"]) / "labels" / "segmentation").section(0)[0].astype(int) - 1
    truth = io.imread(sample_folder() / "axon-sem-b-labels.png")
    assert found.shape == truth.shape
    for index, name in enumerate(("background", "myelin", "axon")):
        both = ((found == index) & (truth == index)).sum()
        either = ((found == index) | (truth == index)).sum()
        assert summary["iou"][name] == pytest.approx(both / either)


def test_pictures_show_something(finished: Path) -> None:
    for name in ("overlay", "architecture", "curves", "menu", "uncertainty"):
        picture = io.imread(finished / f"{name}.png")
        assert min(picture.shape[:2]) > 200
        assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 20


def test_a_finished_demo_is_not_done_again(finished: Path) -> None:
    before = (finished / "summary.json").stat().st_mtime_ns
    again = demo(finished, "--json")
    assert again.returncode == 0
    assert json.loads(again.stdout)["mean_iou"] == json.loads((finished / "summary.json").read_text())["mean_iou"]
    assert (finished / "summary.json").stat().st_mtime_ns == before
    assert "holds a finished demo" in again.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is a screen")
def test_without_a_screen_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    found = demo(tmp_path / "demo", "--view")
    assert found.returncode == 1
    assert "no screen here" in found.stderr or "napari is not installed" in found.stderr
    assert not (tmp_path / "demo").exists()


def test_the_window_opens_after_the_scores_and_ctrl_c_closes_it(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    monkeypatch.setattr("napari_autosegnet.demo.check_window", lambda: None)
    monkeypatch.setattr("napari_autosegnet.demo.show_demo", lambda _: seen.append(signal.getsignal(signal.SIGINT)))
    before = signal.getsignal(signal.SIGINT)
    found = CliRunner().invoke(app, ["demo", "--out", str(finished), "--view"])
    assert found.exit_code == 0, found.output
    assert "mean IoU" in found.output
    # Nobody who only waits for an orderly end of the work.
    assert seen == [before]
