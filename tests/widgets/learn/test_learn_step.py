"""The step Learn: from a click to a model, with real processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

pytest.importorskip("pytestqt")
pytest.importorskip("napari")

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLineEdit, QWidget

import small_jobs
from axon_docks import axon_dock
from napari_autosegnet.architecture import SearchSpace
from napari_autosegnet.jobs.menu import model_of, read_menu
from napari_autosegnet.model import Model
from napari_autosegnet.run import Run
from napari_autosegnet.settings import FitSettings
from napari_autosegnet.widgets.files.sample_data import axons_labeled
from napari_autosegnet.widgets.jobs.worker_process import find
from napari_autosegnet.widgets.learn.advanced import PRESET_WORDS
from napari_autosegnet.widgets.learn.learn_step import LearnStep
from run_configs import update_config
from small_jobs import ENDLESS
from small_models import small_model

LONG = 120_000


@pytest.fixture
def make_step(
    qtbot: Any, make_session: Callable[..., Any], settled: Callable[[Any], None]
) -> Iterator[Callable[..., LearnStep]]:
    """The step in a session of its own, on a crop of the sample."""
    made: list[LearnStep] = []

    def make(with_layers: bool = True) -> LearnStep:
        session = make_session()
        if with_layers:
            (image, about_image, _), (labels, about_labels, _) = axons_labeled()
            session.viewer.add_image(image[:256, :256], **about_image)
            session.viewer.add_labels(labels[:256, :256], **about_labels)
        step = LearnStep(session)
        qtbot.addWidget(step)
        made.append(step)
        settled(session)
        return step

    yield make
    for step in made:
        if step.run is not None and (process := find(step.run)) is not None:
            process.kill()
        step.release()


def wait(qtbot: Any, step: LearnStep, *states: str) -> None:
    qtbot.waitUntil(lambda: step.client.state in states, timeout=LONG)
    qtbot.wait(20)


def press(qtbot: Any, button: Any) -> None:
    assert button.isEnabled() and not button.isHidden(), button.text()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def test_one_button_from_the_annotation_to_a_model(qtbot: Any, make_step: Callable[..., LearnStep]) -> None:
    step = make_step()
    session, told = step.session, []
    session.step_finished.connect(told.append)
    asked = [
        name for each in step.form.findChildren(QWidget) if (name := each.objectName()) in FitSettings.model_fields
    ]
    assert asked == ["budget", "goal"] and step.form.advanced.isHidden()
    assert step.advanced.isHidden() and step.secondary.isHidden()
    # Smaller than what a person can ask for, so that it takes seconds.
    step.form.set_value(small_jobs.FIT)
    press(qtbot, step.primary)
    assert step.client.active and step.form.isHidden() and step.primary.isHidden()
    wheres, qualities = set(), set()
    step.client.reported.connect(lambda _: wheres.add(step.panel.status.text()))
    step.client.reported.connect(lambda _: qualities.add(step.quality.text().split(",")[0]))
    qtbot.waitUntil(lambda: step.preview.layer is not None or not step.client.active, timeout=LONG)
    layer = step.preview.layer
    assert layer is not None and layer.data.shape == (256, 256) and set(np.unique(layer.data)) <= {1, 2, 3}
    wait(qtbot, step, "finished", "failed", "died")
    assert step.client.state == "finished", step.client.reason
    assert told == ["learn"]
    assert any("comparing 2 networks, round 1 of 2" in each for each in wheres)
    assert any("training the chosen one to the end: " in each and "epoch" in each for each in wheres)
    assert any("measuring and writing the networks" in each for each in wheres)
    assert any(each.startswith("So far: Quality") for each in qualities), "known before the end"
    assert "pixels of 1 section" in step.quality.text() and "axon: " in step.quality.text()
    drawn = step.plots.rows[0]
    qtbot.waitUntil(lambda: len(drawn.drawn()) == 2, timeout=20_000)
    assert "24 channels at 1/4" in drawn.legend.text().replace("&nbsp;", " ")
    assert step.has_model and step.primary.text() == "Add labels and continue"
    choose_by_mouse_and_keyboard(qtbot, step)
    # From scratch again, beside the first.
    press(qtbot, step.secondary)
    assert step.primary.text() == "Learn" and step.primary.isEnabled() and not step.form.isHidden()
    # A stop, with what is best so far.
    step.form.set_value(small_jobs.FIT.changed(epochs=ENDLESS, candidates=1))
    first = session.run
    press(qtbot, step.primary)
    assert session.run.path != first.path
    qtbot.waitUntil(lambda: step.has_model or not step.client.active, timeout=LONG)
    press(qtbot, step.panel.stop)
    wait(qtbot, step, "stopped", "died")
    assert step.client.state == "stopped" and "can be applied" in step.words.text()
    assert step.primary.text() == "Continue the learning" and Model.load(step.run.model_folder)


def choose_by_mouse_and_keyboard(qtbot: Any, step: LearnStep) -> None:
    """The other network becomes the run's model by a click, the first one again by a key; the slice follows."""
    menu, run = step.menu, step.run
    qtbot.waitUntil(lambda: menu.points is not None, timeout=LONG)
    step.show()
    qtbot.wait(50)
    entries = read_menu(run)
    assert len(entries) == 2 and menu.box.count() == 2
    assert (
        "±" in menu.box.itemText(0)
        and f"for all of '{step.session.annotation.pairs()[0].image.name}'" in menu.about.text()
    )
    (before,) = [index for index, entry in enumerate(entries) if entry.chosen]
    for index in (1 - before, before):
        seen, name = np.array(step.preview.layer.data), entries[index].name
        if index == before:
            menu.box.setFocus()
            qtbot.keyClick(menu.box, Qt.Key.Key_Down if index else Qt.Key.Key_Up)
        else:
            (point,) = [each for each in menu.points.points() if each.data() == name]
            place = menu.plot.mapFromScene(menu.points.mapToScene(point.pos()))
            qtbot.mouseClick(menu.plot.viewport(), Qt.MouseButton.LeftButton, pos=place)
        qtbot.waitUntil(lambda seen=seen: (seen != step.preview.layer.data).any(), timeout=LONG)
        assert [entry.name for entry in read_menu(run) if entry.chosen] == [name]
        kept, model = Model.load(model_of(run, entries[index])), Model.load(run.model_folder)
        assert model.specification == kept.specification
    # In the other steps their own results are looked at.
    assert step.preview.layer is not None and step.preview.layer.visible
    step.hide()
    assert not step.preview.layer.visible
    step.show()
    assert step.preview.layer.visible
    step.hide()


def test_search_and_retrain_under_advanced(qtbot: Any, make_step: Callable[..., LearnStep]) -> None:
    step = make_step()
    session, advanced = step.session, step.advanced
    step.advanced_section.unfold(True)
    assert not advanced.train_button.isEnabled() and "First search" in advanced.train_words.text()
    advanced.search_form.preset.setCurrentText(PRESET_WORDS["fast"])
    advanced.search_form.set_value(small_jobs.SEARCH)
    press(qtbot, advanced.search_button)
    assert step.client.active and not advanced.search_button.isEnabled()
    wait(qtbot, step, "finished", "failed", "died")
    assert step.client.state == "finished", step.client.reason
    assert step.architecture.final and step.plots.epochs == 2
    run = session.run
    assert run is not None and run.path.parent == session.runs_folder
    # The training takes over the preset, and starts from what was found.
    assert advanced.train_form.preset.currentText() == PRESET_WORDS["fast"]
    assert step.primary.text() == "Train it" and "It is still to be trained" in step.words.text()
    advanced.train_form.set_value(small_jobs.TRAIN)
    labels = session.annotation.pairs()[0].labels
    session.viewer.layers.selection.active = labels
    press(qtbot, advanced.train_button)
    wait(qtbot, step, "finished", "failed", "died")
    assert step.client.state == "finished", step.client.reason
    assert session.viewer.layers.selection.active is labels and len(session.annotation.pairs()) == 1
    first = Model.load(run.model_folder)
    # More labels, and on from the model.
    labels.data[:20, :20] = 3
    labels.refresh()
    advanced.train_form.set_value(small_jobs.TRAIN.model_copy(update={"epochs": 1}))
    assert step.primary.text() == "Add labels and continue"
    press(qtbot, step.primary)
    wait(qtbot, step, "finished", "failed", "died")
    assert step.client.state == "finished", step.client.reason
    content = run.read_config()
    assert content["continued"] and content["preset"] == "fast"
    from napari_autosegnet.data.images import open_labels

    # Written into the run, so the path there is relative to it.
    assert (open_labels(run.path / content["data"]["labels"][0]).section(0)[0, :20, :20] == 3).all()
    assert Model.load(run.model_folder).normalization == first.normalization


def test_the_run_goes_on_when_the_step_is_closed_and_is_found_again(
    qtbot: Any, make_step: Callable[..., LearnStep]
) -> None:
    step = make_step()
    step.form.set_value(small_jobs.FIT.changed(epochs=ENDLESS))
    press(qtbot, step.primary)
    qtbot.waitUntil(lambda: step.plots.epochs > 0 or not step.client.active, timeout=LONG)
    run = step.run
    step.release()
    step.session.close()
    process = find(run)
    assert process is not None and process.alive
    again = make_step(with_layers=False)
    again.session.run = run
    wait(qtbot, again, "working", "died")
    assert again.client.state == "working" and again.primary.isHidden()
    press(qtbot, again.panel.pause)
    assert again.panel.pause.text() == "Resume"
    wait(qtbot, again, "paused", "died")
    assert "Learning paused" in again.panel.status.text()
    press(qtbot, again.panel.cancel)
    wait(qtbot, again, "stopped", "died")
    assert not process.alive and "Learning cancelled" in again.panel.status.text()


def test_form_errors_start_nothing(qtbot: Any, make_step: Callable[..., LearnStep]) -> None:
    step = make_step()
    advanced = step.advanced
    advanced.network.setCurrentIndex(advanced.network.findData("unet"))  # it needs no search
    for form, field, button, line in (
        (step.form, "budget", step.primary, step.problem),
        (advanced.search_form, "epochs", advanced.search_button, advanced.search_problem),
        (advanced.train_form, "epochs", advanced.train_button, advanced.train_problem),
    ):
        form.findChild(QLineEdit, field).setText("many")
        button.click()
        assert not step.client.active and "many" in line.text() and not line.isHidden()
    assert step.run is None


@pytest.mark.slow
def test_the_plain_chain_trains_without_a_search(qtbot: Any, make_step: Callable[..., LearnStep]) -> None:
    step = make_step()
    advanced = step.advanced
    advanced.network.setCurrentIndex(advanced.network.findData("plain"))
    advanced.train_form.set_value(small_jobs.TRAIN.model_copy(update={"epochs": 1, "steps_per_epoch": 1}))
    advanced.train_button.click()
    wait(qtbot, step, "finished", "failed", "died")
    assert step.client.state == "finished"
    assert Model.load(step.run.model_folder).specification.architecture == SearchSpace().plain


@pytest.mark.slow
def test_a_forest_is_trained_like_a_network(qtbot: Any, make_step: Callable[..., LearnStep]) -> None:
    step = make_step()
    advanced = step.advanced
    advanced.network.setCurrentIndex(advanced.network.findData("forest"))
    assert advanced.train_form.isHidden() and advanced.train_button.isEnabled()
    advanced.train_button.click()
    wait(qtbot, step, "finished", "failed", "died")
    assert step.client.state == "finished" and "Quality" in step.quality.text()
    assert Model.load(step.run.model_folder).specification.network == "forest"
    advanced.network.setCurrentIndex(advanced.network.findData("plain"))
    assert not advanced.train_form.isHidden()
    press(qtbot, step.primary)
    wait(qtbot, step, "finished", "failed", "died")
    assert step.client.state == "finished" and step.run.read_config()["continued"]
    assert Model.load(step.run.model_folder).specification.network == "forest"


def test_a_forest_is_not_said_to_continue(qtbot: Any, make_step: Callable[..., LearnStep], tmp_path: Path) -> None:
    step, run = make_step(), Run(tmp_path / "runs" / "forest")
    write_run(run, {"event": "started", "step": "train"}, {"event": "finished", "step": "train", "seconds": 1.0})
    update_config(run, network="forest")
    small_model().save(run.model_folder)
    step.session.run = run
    wait(qtbot, step, "finished")
    assert step.words.text().startswith("<b>The forest has learned.</b>") and "in seconds" in step.words.text()
    assert "continue" not in step.words.text() and step.primary.text() == "Learn from all labels"
    # It was stopped, and has no epochs.
    stopped = Run(tmp_path / "runs" / "stopped")
    write_run(stopped, {"event": "started", "step": "train"}, {"event": "stopped", "step": "train", "reason": "asked"})
    update_config(stopped, network="forest")
    step.session.run = stopped
    wait(qtbot, step, "stopped", "died")
    assert "forest ended early" in step.words.text() and "epoch" not in step.words.text()


def test_what_is_missing_is_said(qtbot: Any, make_step: Callable[..., LearnStep]) -> None:
    step = make_step(with_layers=False)
    assert "Open an image" in step.words.text() and not step.primary.isEnabled()
    step.advanced.network.setCurrentIndex(step.advanced.network.findData("unet"))
    assert "Open an image" in step.advanced.train_words.text() and not step.advanced.train_button.isEnabled()


def test_a_worker_that_cannot_begin_is_explained(qtbot: Any, make_step: Callable[..., LearnStep]) -> None:
    step = make_step()
    (step.session.runs_folder).write_text("a file where the folder should be")
    press(qtbot, step.primary)
    wait(qtbot, step, "failed")
    assert "cannot make the run folder" in step.panel.note.text().lower()
    assert step.primary.text() == "Learn" and step.primary.isEnabled()


def write_run(run: Run, *events: dict[str, Any]) -> None:
    run.path.mkdir(parents=True)
    update_config(run, data={}, search={}, training={}, preset="paper")
    now = datetime.now(UTC).isoformat()
    run.events_file.write_text("".join(json.dumps({"time": now} | event) + "\n" for event in events))


def test_a_broken_off_training_is_offered_to_go_on(
    qtbot: Any, make_step: Callable[..., LearnStep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = make_step()
    run = Run(tmp_path / "runs" / "old")
    write_run(
        run,
        {"event": "started", "step": "train"},
        {"event": "device", "name": "cpu"},
        {
            "event": "note",
            "text": "too little memory is free on cpu: continuing with 2 patches at a time",
        },
        {"event": "epoch", "step": "train", "epoch": 3, "loss": 0.5, "iou": {"axon": 0.5}, "mean_iou": 0.5},
    )
    step.session.run = run
    wait(qtbot, step, "died")
    assert "Training broke off" in step.panel.status.text()
    assert step.primary.text() == "Continue the training" and step.form.isHidden()
    assert step.advanced.train_form.preset.currentText() == PRESET_WORDS["paper"]
    assert step.plots.epochs == 1
    # What is gone is looked for among the files that are open.
    asked: list[Any] = []
    monkeypatch.setattr(step.client, "continue_run", lambda *arguments: asked.append(arguments))
    step.session.viewer.add_image(zarr.create_array(tmp_path / "opened.zarr", data=np.zeros((64, 64), np.uint8)))
    press(qtbot, step.primary)
    assert asked == [(step.session.device, [tmp_path / "opened.zarr"])]
    # Another run: nothing of the first is left.
    step.session.run = None
    qtbot.wait(20)
    assert step.plots.epochs == 0 and step.panel.isHidden() and not step.form.isHidden()


def test_a_damaged_run_does_not_stop_the_step(qtbot: Any, make_step: Callable[..., LearnStep], tmp_path: Path) -> None:
    step = make_step()
    run = Run(tmp_path / "runs" / "damaged")
    write_run(run, {"event": "started", "step": "search"}, {"event": "finished", "step": "search"})
    run.config_file.write_text("{")
    run.architecture_file.write_text("{")
    step.session.run = run
    wait(qtbot, step, "finished")
    assert step.architecture.isHidden()
    assert step.primary.isEnabled()


def test_a_search_that_keeps_the_plain_chain_says_why(
    qtbot: Any, make_step: Callable[..., LearnStep], tmp_path: Path
) -> None:
    step = make_step()
    chosen = {"event": "architecture", "step": "search", "score": 0.5, "final": True}
    chosen["architecture"] = SearchSpace().plain.model_dump(mode="json")
    ends = ({"event": "started", "step": "search"}, {"event": "finished", "step": "search", "seconds": 1.0})
    for name, remark, words in (
        ("plain", "no other was better by 0.01 <here>", "No other was better by 0.01 &lt;here&gt;. It is still"),
        ("found", None, "A network was found. It is still to be trained"),
    ):
        run = Run(tmp_path / "runs" / name)
        write_run(run, ends[0], {**chosen, "remark": remark}, ends[1])
        run.architecture_file.write_text("{}")
        step.session.run = run
        wait(qtbot, step, "finished")
        assert step.words.text().startswith(words) and step.primary.text() == "Train it"


def test_a_search_that_found_next_to_nothing_is_no_plain_success(
    qtbot: Any, make_step: Callable[..., LearnStep], tmp_path: Path
) -> None:
    step = make_step()
    quality = {"event": "quality", "mean_iou": 0.038, "iou": {"a": 0.04, "b": 0.036}, "pixels": {"a": 9000, "b": 9000}}
    run = Run(tmp_path / "runs" / "poor")
    chosen = {"event": "architecture", "step": "search", "score": 0.038, "final": True}
    chosen["architecture"] = SearchSpace().plain.model_dump(mode="json")
    end = {"event": "finished", "seconds": 1.0}
    write_run(
        run,
        {"event": "started", "step": "search"},
        chosen,
        {**quality, "step": "search", "sections": 3},
        {**end, "step": "search"},
        {"event": "started", "step": "train"},
        {**quality, "step": "train", "sections": 3},
        {**end, "step": "train"},
    )
    small_model().save(run.model_folder)
    step.session.run = run
    wait(qtbot, step, "finished")
    qtbot.waitUntil(lambda: "Quality 0.04, checked on 18,000 pixels of 3 sections" in step.quality.text())
    assert "<b>Warning:</b> it is hardly better than guessing (mean IoU 0.04, guessing gives" in step.quality.text()


def test_the_activity_dock_shows_the_job(
    qtbot: Any, make_step: Callable[..., LearnStep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari.utils import progress

    bars: list[progress] = []

    class Remembered(progress):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            bars.append(self)

    monkeypatch.setattr("napari.utils.progress", Remembered)
    step = make_step()
    run = Run(tmp_path / "runs" / "old")
    epoch = {"event": "epoch", "step": "search", "epoch": 3, "loss": 0.5, "seconds": 60, "seconds_left": 60}
    write_run(run, {"event": "started", "step": "search"}, epoch)
    with run.locked():
        step.session.run = run
        wait(qtbot, step, "working")
        qtbot.waitUntil(lambda: any(each.n >= 49 for each in bars), timeout=5000)
        assert step.panel.bar.value() == pytest.approx(500, abs=30)
        assert step.panel.bar.text().startswith("50%") or step.panel.bar.text().startswith("51%")
        assert "left" in step.panel.bar.text()
    wait(qtbot, step, "died")
    assert [each.disable for each in bars] == [True], "closed"


@pytest.mark.slow
def test_the_viewer_is_closed_in_mid_run(qtbot: Any, make_napari_viewer: Callable[..., Any], tmp_path: Path) -> None:
    viewer = make_napari_viewer()
    dock = axon_dock(viewer)
    step = dock.learn_step
    dock.show_step("learn")
    qtbot.waitUntil(
        lambda: not dock.session.annotation.is_counting and not dock.session.background.is_busy, timeout=20_000
    )
    step.form.set_value(small_jobs.FIT.changed(epochs=ENDLESS))
    step.primary.click()
    qtbot.waitUntil(lambda: step.preview.layer is not None or not step.client.active, timeout=LONG)
    process = find(step.run)
    assert process is not None and process.alive and step.preview.layer is not None
    viewer.close()
    assert process.alive
    process.kill()
    qtbot.waitUntil(lambda: not process.alive, timeout=5000)
