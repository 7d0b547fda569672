"""The steps with a worker: from a click to a model, with real processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pytestqt")
pytest.importorskip("napari")

import small_jobs
from napari_autosegnet.architecture import SearchSpace
from napari_autosegnet.model import Model
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.files.sample_data import axons_labelled
from napari_autosegnet.widgets.jobs.worker_process import find
from napari_autosegnet.widgets.learn.job_step import PRESET_WORDS, JobStep
from napari_autosegnet.widgets.learn.retrain_step import RetrainStep
from napari_autosegnet.widgets.learn.search_step import SearchStep
from small_jobs import ENDLESS
from small_models import small_model

LONG = 120_000


@pytest.fixture
def steps(
    qtbot: Any, make_session: Callable[..., Any], settled: Callable[[Any], None]
) -> Iterator[Callable[[], tuple[SearchStep, RetrainStep]]]:
    """Both steps in a session of their own on a crop of the sample."""
    made: list[JobStep] = []

    def make(with_layers: bool = True) -> tuple[SearchStep, RetrainStep]:
        session = make_session()
        if with_layers:
            (image, about_image, _), (labels, about_labels, _) = axons_labelled()
            session.viewer.add_image(image[:256, :256], **about_image)
            session.viewer.add_labels(labels[:256, :256], **about_labels)
        search, retrain = SearchStep(session), RetrainStep(session)
        for step in (search, retrain):
            qtbot.addWidget(step)
            made.append(step)
        settled(session)
        return search, retrain

    yield make
    for step in made:
        if step.run is not None and (process := find(step.run)) is not None:
            process.kill()
        step.shutdown()


def wait(qtbot: Any, step: JobStep, *states: str) -> None:
    qtbot.waitUntil(lambda: step.client.state in states, timeout=LONG)
    qtbot.wait(20)


def test_from_the_annotation_to_a_better_model_by_clicks(qtbot: Any, steps: Callable[..., Any]) -> None:
    search, retrain = steps()
    session = search.session
    told: list[str] = []
    session.step_finished.connect(told.append)
    assert session.problem() is None
    assert not retrain.primary.isEnabled() and "search for an architecture" in retrain.words.text()
    search.form.preset.setCurrentText(PRESET_WORDS["fast"])
    search.form.set_value(small_jobs.SEARCH)
    search.primary.click()
    assert search.client.active and search.form.isHidden() and not search.panel.isHidden()
    wait(qtbot, search, "finished", "failed", "died")
    assert search.client.state == "finished" and told == ["search"]
    assert search.architecture.final and search.plots.epochs == 2
    run = session.run
    assert run is not None and run.path.parent == session.runs_folder
    # The training takes over the preset, and starts from what was found.
    assert retrain.form.preset.currentText() == PRESET_WORDS["fast"]
    assert retrain.primary.isEnabled() and "architecture that was found" in retrain.words.text()
    retrain.form.set_value(small_jobs.TRAIN.changed(epochs=4, optimization={"average_weights": 0.0}))
    labels = session.pairs()[0].labels
    session.viewer.layers.selection.active = labels
    retrain.primary.click()
    qtbot.waitUntil(lambda: retrain.preview.layer is not None or not retrain.client.active, timeout=LONG)
    layer = retrain.preview.layer
    assert layer is not None and layer.data.shape == (256, 256) and set(np.unique(layer.data)) <= {1, 2, 3}
    assert session.viewer.layers.selection.active is labels and len(session.pairs()) == 1
    wait(qtbot, retrain, "finished", "failed", "died")
    assert retrain.client.state == "finished" and told == ["search", "retrain"]
    assert retrain.has_model and retrain.primary.text() == "Add labels and continue"
    first = Model.load(run.model_folder)
    # More labels, and on from the model.
    labels.data[:20, :20] = 3
    labels.refresh()
    retrain.form.set_value(small_jobs.TRAIN.model_copy(update={"epochs": 1}))
    retrain.primary.click()
    wait(qtbot, retrain, "finished", "failed", "died")
    assert retrain.client.state == "finished", retrain.client.reason
    content = run.read_config()
    assert content["continued"] and content["preset"] == "fast"
    from napari_autosegnet.data.images import open_labels

    assert (open_labels(content["data"]["labels"][0]).section(0)[0, :20, :20] == 3).all()
    assert Model.load(run.model_folder).normalisation == first.normalisation
    # From scratch again, beside the first.
    retrain.secondary.click()
    assert retrain.primary.text() == "Start the training" and not retrain.form.isHidden()


def test_the_run_goes_on_when_the_steps_are_closed_and_is_found_again(qtbot: Any, steps: Callable[..., Any]) -> None:
    search, _ = steps()
    search.form.set_value(small_jobs.SEARCH.changed(epochs=ENDLESS, warmup_fraction=0.0))
    search.primary.click()
    qtbot.waitUntil(lambda: search.plots.epochs > 0 or not search.client.active, timeout=LONG)
    run = search.run
    search.shutdown()
    search.session.close()
    process = find(run)
    assert process is not None and process.alive
    again, retrain = steps(with_layers=False)
    again.session.run = run
    wait(qtbot, again, "working", "died")
    assert again.client.state == "working" and again.buttons.isHidden()
    assert not retrain.client.active
    again.panel.pause.click()
    assert again.panel.pause.text() == "Resume"
    wait(qtbot, again, "paused", "died")
    assert "Search paused" in again.panel.status.text()
    again.panel.stop.click()
    wait(qtbot, again, "stopped", "died")
    assert not process.alive and again.client.state == "stopped"
    assert again.architecture.architecture is not None
    assert again.primary.text() == "Continue the search" and "step Retrain" in again.words.text()


def test_form_errors_start_nothing(qtbot: Any, steps: Callable[..., Any]) -> None:
    search, retrain = steps()
    for step in (search, retrain):
        if step is retrain:
            retrain.network.setCurrentIndex(retrain.network.findData("unet"))  # it needs no search
        line = step.form.findChild(type(step.form._editors[("epochs",)].widget), "epochs")
        line.setText("many")
        step.primary.click()
        assert not step.client.active and "many" in step.problem.text() and not step.problem.isHidden()
        line.setText("0")
        step.primary.click()
        assert "must be at least 1, not 0" in step.problem.text()
    assert search.run is None


@pytest.mark.slow
def test_the_plain_chain_trains_without_a_search(qtbot: Any, steps: Callable[..., Any]) -> None:
    _, retrain = steps()
    assert not retrain.primary.isEnabled() and "plain chain" in retrain.words.text()
    retrain.network.setCurrentIndex(retrain.network.findData("plain"))
    assert retrain.primary.isEnabled() and "this network" in retrain.words.text()
    retrain.form.set_value(small_jobs.TRAIN.model_copy(update={"epochs": 1, "steps_per_epoch": 1}))
    retrain.primary.click()
    wait(qtbot, retrain, "finished", "failed", "died")
    assert retrain.client.state == "finished"
    assert Model.load(retrain.run.model_folder).specification.architecture == SearchSpace().plain


def test_what_is_missing_is_said(qtbot: Any, steps: Callable[..., Any]) -> None:
    search, retrain = steps(with_layers=False)
    assert "Open an image" in search.words.text() and not search.primary.isEnabled()
    retrain.network.setCurrentIndex(retrain.network.findData("unet"))
    assert "Open an image" in retrain.words.text() and not retrain.primary.isEnabled()


def test_a_worker_that_cannot_begin_is_explained(qtbot: Any, steps: Callable[..., Any]) -> None:
    search, _ = steps()
    (search.session.runs_folder).write_text("a file where the folder should be")
    search.primary.click()
    wait(qtbot, search, "failed")
    assert "cannot make the run folder" in search.panel.note.text().lower()
    assert search.primary.text() == "Start the search" and search.primary.isEnabled()


def write_run(run: Run, *events: dict[str, Any]) -> None:
    run.path.mkdir(parents=True)
    run.update_config(data={}, search={}, training={}, preset="paper")
    now = datetime.now(UTC).isoformat()
    run.events_file.write_text("".join(json.dumps({"time": now} | event) + "\n" for event in events))


def test_a_broken_off_training_is_offered_to_go_on(qtbot: Any, steps: Callable[..., Any], tmp_path: Path) -> None:
    search, retrain = steps()
    run = Run(tmp_path / "runs" / "old")
    write_run(
        run,
        {"event": "started", "step": "train"},
        {"event": "device", "name": "cpu"},
        {"event": "note", "text": "out of memory: going on with 2 patches at a time, gradients added up"},
        {"event": "epoch", "step": "train", "epoch": 3, "loss": 0.5, "iou": {"axon": 0.5}, "mean_iou": 0.5},
    )
    search.session.run = run
    wait(qtbot, retrain, "died")
    assert "Training broke off" in retrain.panel.status.text()
    assert retrain.primary.text() == "Continue the training" and retrain.form.isHidden()
    assert retrain.form.preset.currentText() == PRESET_WORDS["paper"]
    assert retrain.plots.epochs == 1 and search.client.state == "idle"
    # Another run: nothing of the first is left.
    search.session.run = None
    qtbot.wait(20)
    assert retrain.plots.epochs == 0 and retrain.panel.isHidden() and not retrain.form.isHidden()


def test_no_training_starts_while_the_search_works(qtbot: Any, steps: Callable[..., Any], tmp_path: Path) -> None:
    search, retrain = steps()
    run = Run(tmp_path / "runs" / "busy")
    epoch = {"event": "epoch", "step": "search", "epoch": 1, "loss": 0.5}
    write_run(run, {"event": "started", "step": "search"}, epoch)
    run.update_config(training=None)
    with run.locked():
        search.session.run = run
        wait(qtbot, search, "working")
        retrain.network.setCurrentIndex(retrain.network.findData("plain"))
        qtbot.waitUntil(lambda: "The search is working in this run" in retrain.words.text(), timeout=10_000)
        assert not retrain.primary.isEnabled()
    qtbot.waitUntil(retrain.primary.isEnabled, timeout=10_000)


def test_a_damaged_run_does_not_stop_the_step(qtbot: Any, steps: Callable[..., Any], tmp_path: Path) -> None:
    search, retrain = steps()
    run = Run(tmp_path / "runs" / "damaged")
    write_run(run, {"event": "started", "step": "search"}, {"event": "finished", "step": "search"})
    run.config_file.write_text("{")
    run.architecture_file.write_text("{")
    search.session.run = run
    wait(qtbot, search, "finished")
    assert search.architecture.isHidden()
    assert retrain.primary.isEnabled()


def test_the_preview_lies_where_the_slice_does(qtbot: Any, steps: Callable[..., Any]) -> None:
    _, retrain = steps(with_layers=False)
    viewer, preview = retrain.session.viewer, retrain.preview
    image = viewer.add_image(np.zeros((3, 1500, 200), np.uint8), scale=(5, 2, 2), translate=(10, 0, 4))
    viewer.scene.camera.center = (0, 2 * 1400, 0)
    rows, columns = preview._window(image)
    assert (rows.start, rows.stop, columns.start, columns.stop) == (476, 1500, 0, 200)
    from napari_autosegnet.widgets.learn.live_preview import _Place

    unsure = np.full((1024, 200), 0.5, np.float32)
    preview._show(np.ones((1024, 200), np.uint8), unsure, _Place(image, 2, (476, 0)))
    layer = preview.layer
    assert layer is not None and layer.data.shape == (1, 1024, 200)
    assert layer.translate.tolist() == [20, 2 * 476, 4] and layer.scale.tolist() == [5, 2, 2]
    assert preview.uncertainty is not None and not preview.uncertainty.visible
    assert np.array_equal(preview.uncertainty.data[0], unsure)
    assert preview.uncertainty.translate.tolist() == layer.translate.tolist()
    viewer.layers.remove(layer)
    assert preview.layer is None
    preview._show(np.ones((1024, 200), np.uint8), unsure, _Place(image, 1, (0, 0)))
    # On to another image: what lies on the first is not left behind.
    other = viewer.add_image(np.zeros((64, 64), np.uint8))
    preview._show(np.ones((64, 64), np.uint8), unsure[:64, :64], _Place(other, 0, (0, 0)))
    assert set(viewer.layers) == {image, other, preview.layer, preview.uncertainty}
    preview.set_enabled(False)
    assert preview.uncertainty is None and set(viewer.layers) == {image, other}


def test_a_search_that_keeps_the_plain_chain_says_why(qtbot: Any, steps: Callable[..., Any], tmp_path: Path) -> None:
    search, _ = steps()
    chosen = {"event": "architecture", "step": "search", "score": 0.5, "final": True}
    chosen["architecture"] = SearchSpace().plain.model_dump(mode="json")
    ends = ({"event": "started", "step": "search"}, {"event": "finished", "step": "search", "seconds": 1.0})
    for name, remark, words in (
        ("plain", "no other was better by 0.01 <here>", "No other was better by 0.01 &lt;here&gt;. Next: train it"),
        ("found", None, "A network was found. Next: train it"),
    ):
        run = Run(tmp_path / "runs" / name)
        write_run(run, ends[0], {**chosen, "remark": remark}, ends[1])
        search.session.run = run
        wait(qtbot, search, "finished")
        assert search.words.text().startswith(words)


def test_a_search_that_found_next_to_nothing_is_no_plain_success(
    qtbot: Any, steps: Callable[..., Any], tmp_path: Path
) -> None:
    search, retrain = steps()
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
    search.session.run = run
    wait(qtbot, search, "finished")
    wait(qtbot, retrain, "finished")
    for step in (search, retrain):
        qtbot.waitUntil(lambda step=step: "Quality 0.04, checked on 18,000 pixels of 3 sections" in step.words.text())
        assert "<b>Warning:</b> it is hardly better than guessing (mean IoU 0.04, guessing gives" in step.words.text()


def test_the_activity_dock_shows_the_job(qtbot: Any, steps: Callable[..., Any], tmp_path: Path) -> None:
    from napari.utils import progress

    search, _ = steps()
    run = Run(tmp_path / "runs" / "old")
    epoch = {"event": "epoch", "step": "search", "epoch": 3, "loss": 0.5, "seconds": 60, "seconds_left": 60}
    write_run(run, {"event": "started", "step": "search"}, epoch)
    with run.locked():
        search.session.run = run
        wait(qtbot, search, "working")
        qtbot.waitUntil(lambda: any(each.n >= 49 for each in progress._all_instances), timeout=5000)
        assert search.panel.bar.value() == pytest.approx(500, abs=30)
        assert search.panel.bar.text().startswith("50%") or search.panel.bar.text().startswith("51%")
        assert "left" in search.panel.bar.text()
    wait(qtbot, search, "died")
    assert not progress._all_instances


@pytest.mark.slow
def test_the_viewer_is_closed_in_mid_run(qtbot: Any, make_napari_viewer: Callable[..., Any], tmp_path: Path) -> None:
    from napari_autosegnet.widgets.dock import AutoSegNetDock

    viewer = make_napari_viewer()
    (image, about_image, _), (labels, about_labels, _) = axons_labelled()
    viewer.add_image(image[:256, :256], **about_image)
    viewer.add_labels(labels[:256, :256], **about_labels)
    dock = AutoSegNetDock(viewer)
    viewer.window.add_dock_widget(dock)
    step = dock.retrain_step
    dock.show_step("retrain")
    qtbot.waitUntil(lambda: not dock.session.is_counting and not dock.session.background.is_busy, timeout=20_000)
    step.network.setCurrentIndex(1)
    settings = small_jobs.TRAIN.model_copy(update={"epochs": ENDLESS})
    step.form.set_value(settings.model_copy(update={"network": settings.network.model_copy(update={"base_width": 2})}))
    step.primary.click()
    qtbot.waitUntil(lambda: step.preview.layer is not None or not step.client.active, timeout=LONG)
    process = find(step.run)
    assert process is not None and process.alive and step.preview.layer is not None
    viewer.close()
    assert process.alive
    process.kill()
    qtbot.waitUntil(lambda: not process.alive, timeout=5000)
