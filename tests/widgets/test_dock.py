from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from qtpy.QtCore import Qt

from napari_autosegnet.events import Epoch, Started
from napari_autosegnet.run import Run
from napari_autosegnet.widgets import session as session_module
from napari_autosegnet.widgets.dock import STEPS, AutoSegNetDock
from napari_autosegnet.widgets.jobs.run_list import newest_runs, step_of
from napari_autosegnet.widgets.preferences import Preferences
from run_configs import update_config
from small_models import small_model


@pytest.fixture
def make_dock(make_napari_viewer: Callable[..., Any], qtbot: Any) -> Callable[..., AutoSegNetDock]:
    def make() -> AutoSegNetDock:
        viewer = make_napari_viewer()
        dock = AutoSegNetDock(viewer)
        viewer.window.add_dock_widget(dock, name="AutoSegNet")
        qtbot.waitUntil(lambda: not dock.session.background.is_busy, timeout=10_000)
        return dock

    return make


def our_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("napari-autosegnet")]


def test_steps_are_reached_by_their_buttons_and_by_what_is_next(make_dock: Any, qtbot: Any) -> None:
    dock = make_dock()
    for name in reversed(STEPS):
        qtbot.mouseClick(dock.step_buttons[name], Qt.MouseButton.LeftButton)
        assert dock.step == name and dock.step_buttons[name].isChecked()
        assert [button.isChecked() for button in dock.step_buttons.values()].count(True) == 1
        assert dock.next_button.isHidden()
    dock.session.step_finished.emit("annotate")
    assert dock.step == "learn"
    dock.show_step("annotate")
    dock.session.step_finished.emit("learn")
    assert dock.step == "annotate", "whoever paints is not sent elsewhere"
    dock.session.step_finished.emit("apply")
    assert dock.step == "learn"


def test_a_run_with_a_model_offers_to_apply_it(make_dock: Any, qtbot: Any, runs_folder: Path) -> None:
    dock = make_dock()
    run = Run.create(runs_folder / "earlier")
    update_config(run, search={})
    small_model().save(run.model_folder)
    dock.open(run.path)
    assert dock.step == "apply" and dock.session.run.path == run.path
    qtbot.waitUntil(lambda: dock.apply_step.model is not None, timeout=10_000)
    assert dock.run_box.currentText() == "earlier"
    dock.show_step("learn")
    assert "apply" in dock.next_button.text() and not dock.next_button.isHidden()
    qtbot.mouseClick(dock.next_button, Qt.MouseButton.LeftButton)
    assert dock.step == "apply"
    dock.run_box.setCurrentIndex(0)
    dock.run_box.activated.emit(0)
    assert dock.session.run is None
    dock.open(run.model_folder)
    assert dock.step == "apply" and dock.session.run is None
    qtbot.waitUntil(lambda: dock.apply_step.model is not None, timeout=10_000)


def test_a_folder_with_other_files_is_no_run(make_dock: Any, tmp_path: Path) -> None:
    dock = make_dock()
    photos, empty, run = tmp_path / "photos", tmp_path / "empty", Run.create(tmp_path / "run")
    photos.mkdir()
    empty.mkdir()
    (photos / "a.jpg").write_text("x")
    (empty / ".DS_Store").write_text("x")
    run.report(Started(step="search"))
    dock.open(photos)
    assert dock.session.run is None and "'photos' is not a run folder" in dock.message.text()
    for path in (empty, run.path, tmp_path / "new"):
        dock.open(path)
        assert dock.session.run.path == path and dock.message.text() == ""


def test_the_first_result_finds_its_colors_ready(make_dock: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[Any] = []
    monkeypatch.setattr("napari_autosegnet.widgets.dock.prepare_colors", prepared.append)
    make_dock()
    qtbot.waitUntil(lambda: prepared == [np.uint8], timeout=20_000)


def test_preferences_that_change_are_followed(
    make_session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session()
    monkeypatch.setattr(session_module, "read_preferences", lambda: Preferences(runs_folder=tmp_path, device="cuda"))
    assert session.runs_folder == tmp_path and session.device == "cuda"
    assert session.new_run_folder("x").parent == tmp_path


def test_the_dock_goes_on_with_what_is_under_way(make_dock: Any, qtbot: Any, runs_folder: Path) -> None:
    update_config(Run.create(runs_folder / "old"), search={})
    run = Run.create(runs_folder / "busy")
    update_config(run, search={})
    (run.path / "job.json").write_text('{"step": "search"}')
    with run.locked():
        dock = make_dock()
        qtbot.waitUntil(lambda: dock.session.run is not None, timeout=10_000)
        assert dock.session.run.path == run.path and dock.step == "learn"

        def listed() -> list[str]:
            return [dock.run_box.itemText(index) for index in range(dock.run_box.count())]

        assert "busy (working)" in listed()
    qtbot.waitUntil(lambda: "busy" in listed(), timeout=30_000)


def test_a_job_that_ends_before_it_is_followed_is_not_listed(make_dock: Any, qtbot: Any, runs_folder: Path) -> None:
    run = Run.create(runs_folder / "busy")
    update_config(run, search={})
    dock = make_dock()
    with run.locked():
        dock.run_box.look()
        qtbot.waitUntil(lambda: dock.run_box.findText("busy (working)") > 0, timeout=10_000)
    dock.session.work.follow([run.path])
    qtbot.waitUntil(lambda: dock.run_box.findText("busy") > 0, timeout=10_000)


@pytest.mark.parametrize("way", ["viewer", "dock button", "widget"])
def test_nothing_is_left_when_it_closes(way: str, make_dock: Any, qtbot: Any) -> None:
    dock = make_dock()
    viewer = dock.session.viewer
    viewer.add_image(np.zeros((64, 64), np.uint8))
    qtbot.wait(50)
    assert our_threads()
    if way == "viewer":
        viewer.close()
    elif way == "dock button":
        viewer.window.remove_dock_widget(dock)
    else:
        dock.close()
    qtbot.waitUntil(lambda: our_threads() == [], timeout=10_000)
    if way == "dock button":
        with qtbot.assertNotEmitted(dock.session.annotation.pairs_changed, wait=100):
            viewer.add_labels(np.zeros((64, 64), np.uint8))


def test_small_windows_scroll_and_nothing_is_cut_off_sideways(make_dock: Any, qtbot: Any) -> None:
    dock = make_dock()
    for name in STEPS:
        dock.show_step(name)
    for name in STEPS:
        dock.show_step(name)
        qtbot.wait(20)
        area = dock.pages.currentWidget()
        assert area.widget().minimumSizeHint().width() <= dock.minimumSizeHint().width(), name


def test_runs_are_listed_newest_first(tmp_path: Path) -> None:
    for number, name in enumerate(("b", "a")):
        run = Run.create(tmp_path / name)
        update_config(run, search={})
        run.report(Epoch(step="search", epoch=1))
        stamp = 1e9 + number
        for path in (run.path, run.events_file):
            import os

            os.utime(path, (stamp, stamp))
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "job.json").write_text('{"step": "predict"}')
    (tmp_path / "nothing").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "job.json").write_text("{")
    found = newest_runs(tmp_path)
    assert [(entry.path.name, entry.kind) for entry in found] == [
        ("p", "segmentation"),
        ("a", "network"),
        ("b", "network"),
    ]
    assert newest_runs(tmp_path / "missing") == []


def test_a_run_is_opened_at_its_step(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    assert step_of(run) == "annotate"
    update_config(run, search={})
    assert step_of(run) == "learn"
    run.model_folder.mkdir()
    (run.model_folder / "model.json").write_text("{}")
    assert step_of(run) == "apply"
    (run.path / "job.json").write_text('{"step": "train"}')
    with run.locked():
        assert step_of(run) == "learn"


def test_a_job_does_not_have_the_window_drawn_all_the_time(make_dock: Any, qtbot: Any, tmp_path: Path) -> None:
    from qtpy.QtGui import QMovie
    from qtpy.QtWidgets import QLabel

    dock = make_dock()
    run = Run.create(tmp_path / "busy")
    run.report(Started(step="train"))
    run.report(Epoch(step="train", epoch=1, seconds=10, seconds_left=90))
    movies = [label.movie() for label in dock.window().statusBar().findChildren(QLabel)]

    def states() -> list[QMovie.MovieState]:
        return [movie.state() for movie in movies if movie is not None]

    assert states() == [QMovie.MovieState.NotRunning]
    with run.locked():
        dock.open(run.path)
        qtbot.waitUntil(lambda: dock.learn_step.panel.bar.value() > 0, timeout=10_000)
        assert states() == [QMovie.MovieState.Paused]
    qtbot.waitUntil(lambda: not dock.learn_step.client.active, timeout=10_000)
