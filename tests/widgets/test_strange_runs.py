"""Runs that somebody else made, in a real dock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QLabel, QMessageBox, QWidget

from napari_autosegnet import api
from napari_autosegnet.errors import UserError
from napari_autosegnet.jobs.job_file import read_job
from napari_autosegnet.plain_text import printable
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.dock import AutoSegNetDock
from napari_autosegnet.widgets.jobs.run_list import newest_runs
from napari_autosegnet.widgets.plugin_reader import get_reader
from small_models import small_model
from strange_runs import FAKED, ORDERS, write_strange_job, write_strange_run


@pytest.fixture
def dock(make_napari_viewer: Callable[..., Any], qtbot: Any) -> AutoSegNetDock:
    viewer = make_napari_viewer()
    made = AutoSegNetDock(viewer)
    viewer.window.add_dock_widget(made, name="AutoSegNet")
    qtbot.waitUntil(lambda: not made.session.background.is_busy, timeout=60_000)
    return made


def shown_texts(widget: QWidget) -> Iterator[tuple[str, bool]]:
    """What labels, boxes and tool tips show, and whether Qt reads it as HTML."""
    for label in widget.findChildren(QLabel):
        rich = Qt.mightBeRichText(label.text()) and label.textFormat() != Qt.TextFormat.PlainText
        yield label.text(), rich
    for box in widget.findChildren(QComboBox):
        for index in range(box.count()):
            yield box.itemText(index), False
            tip = box.itemData(index, Qt.ItemDataRole.ToolTipRole) or ""
            yield tip, Qt.mightBeRichText(tip)
    for each in widget.findChildren(QWidget):
        yield each.toolTip(), Qt.mightBeRichText(each.toolTip())


def test_names_and_events_are_text_in_every_label(dock: AutoSegNetDock, qtbot: Any, runs_folder: Path) -> None:
    run = write_strange_run(runs_folder / f"a<img src=x>{ORDERS}{FAKED}")
    dock.open(run.path)
    for step in ("learn", "apply", "annotate", "learn"):
        dock.show_step(step)
    panel, plots = dock.learn_step.panel, dock.learn_step.plots
    qtbot.waitUntil(lambda: dock.learn_step.client.state == "failed", timeout=60_000)
    qtbot.waitUntil(lambda: any("mine" in row.legend.text() for row in plots.rows), timeout=60_000)
    assert "faked line" in panel.note.text()
    texts = list(shown_texts(dock))
    assert any("&lt;img" in text for text, rich in texts if rich)
    for text, rich in texts:
        assert all(line == printable(line) for line in text.split("\n")) and "\nerror: faked" not in text, text
        assert not (rich and "<img" in text), text


def test_a_run_that_leads_elsewhere_is_not_opened(dock: AutoSegNetDock, runs_folder: Path, tmp_path: Path) -> None:
    run = write_strange_run(runs_folder / "strange")
    mine = tmp_path / "thesis.txt"
    mine.write_text("my own words")
    (run.path / ".lock").symlink_to(mine)
    assert [(entry.path, entry.active) for entry in newest_runs(runs_folder)] == [(run.path, False)]
    dock.open(run.path)
    assert ".lock is a link" in dock.message.text() and dock.session.run is None
    assert mine.read_text() == "my own words"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes there")
def test_a_pipe_in_a_run_does_not_hold_napari_up(dock: AutoSegNetDock, runs_folder: Path) -> None:
    run = write_strange_run(runs_folder / "strange")
    for name in ("job.json", "worker.json"):
        os.mkfifo(run.path / name)
    run.config_file.unlink()
    os.mkfifo(run.path / "config.json")
    assert get_reader(str(run.path)) is None and newest_runs(runs_folder) == []
    dock.open(run.path)
    assert "a pipe or a device" in dock.message.text()


# Going on with a segmentation that somebody else's file describes


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A model, an image and the result of it, which no test changes."""
    tmp_path = tmp_path_factory.mktemp("mine")
    small_model().save(tmp_path / "model")
    pixels = np.random.default_rng(0).integers(0, 255, (1, 40, 40), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "image.tif", pixels[0], photometric="minisblack")
    api.predict(tmp_path / "model", tmp_path / "image.tif", tmp_path / "mine.zarr", device="cpu")
    return tmp_path / "model", tmp_path / "image.tif", tmp_path / "mine.zarr"


def content(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def offered(dock: AutoSegNetDock, run: Run, qtbot: Any) -> None:
    """The dock shows the job as one that broke off."""
    dock.show_step("apply")
    dock.apply_step.volume.attach(run)
    qtbot.waitUntil(lambda: dock.apply_step.volume.client.can_resume, timeout=60_000)


def test_no_file_has_a_result_replaced(
    dock: AutoSegNetDock, mine: tuple[Path, Path, Path], tmp_path: Path, qtbot: Any
) -> None:
    model, image, result = mine
    run = write_strange_job(tmp_path / "strange", result, model, image, overwrite=False)
    offered(dock, run, qtbot)
    write_strange_job(run.path, result, model, image, overwrite=True)
    before = content(result)
    dock.apply_step.continue_button.click()
    assert "asks to replace" in dock.apply_step.message.text()
    assert not dock.apply_step.volume.client.active and content(result) == before
    with pytest.raises(UserError, match="which a job file must not"):
        read_job(run)


def test_it_is_asked_before_something_elsewhere_is_written(
    dock: AutoSegNetDock, mine: tuple[Path, Path, Path], tmp_path: Path, qtbot: Any
) -> None:
    model, image, _ = mine
    elsewhere = tmp_path / "elsewhere.zarr"
    run = write_strange_job(tmp_path / "strange", elsewhere, model, image, overwrite=False)
    offered(dock, run, qtbot)
    step = dock.apply_step
    step.continue_button.click()
    (question,) = step.findChildren(QMessageBox)
    assert str(elsewhere) in question.text() and question.textFormat() == Qt.TextFormat.PlainText
    question.button(QMessageBox.StandardButton.Cancel).click()
    assert not step.volume.client.active and not elsewhere.exists()
    qtbot.waitUntil(lambda: not step.findChildren(QMessageBox), timeout=60_000)
    step.continue_button.click()
    (question,) = step.findChildren(QMessageBox)
    question.button(QMessageBox.StandardButton.Yes).click()
    assert step.volume.client.active
    qtbot.waitUntil(lambda: not step.volume.client.active, timeout=240_000)
    assert step.volume.client.state == "finished", step.volume.client.reason
    assert elsewhere.is_dir()


def test_what_lies_in_the_run_itself_is_gone_on_with(
    dock: AutoSegNetDock, mine: tuple[Path, Path, Path], tmp_path: Path, qtbot: Any
) -> None:
    model, image, _ = mine
    inside = tmp_path / "strange" / "result.ome.zarr"
    offered(dock, write_strange_job(tmp_path / "strange", inside, model, image, overwrite=False), qtbot)
    assert dock.apply_step.volume.writes_elsewhere() is None
    # But not where a link in it leads out of it.
    (tmp_path / "strange" / "out").symlink_to(tmp_path, target_is_directory=True)
    outside = tmp_path / "strange" / "out" / "mine.zarr"
    write_strange_job(tmp_path / "strange", outside, model, image, overwrite=False)
    assert dock.apply_step.volume.writes_elsewhere() == outside
