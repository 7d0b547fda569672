"""Painting while the network learns: with a real window and a real worker."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pytestqt")
pytest.importorskip("napari")

from napari.components import ViewerModel
from qtpy.QtCore import Qt

import small_jobs
from napari_autosegnet.data.selection import ALL
from napari_autosegnet.events import DataRead, Epoch, LabelsTaken, PreviewDrawn, QualityMeasured, Started
from napari_autosegnet.jobs.configuration import RunConfiguration
from napari_autosegnet.jobs.preparation import LabeledData
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.dock import AutoSegNetDock
from napari_autosegnet.widgets.files.sample_data import axons_labeled
from napari_autosegnet.widgets.jobs.run_client import RunClient
from napari_autosegnet.widgets.jobs.worker_process import find
from napari_autosegnet.widgets.learn.more_strokes import ENOUGH, MIN_SECONDS, MoreStrokes, QualityCurve
from napari_autosegnet.widgets.learn.new_strokes import NewStrokes
from run_configs import update_config
from small_layers import gray, painted

LONG = 600_000


def painted_dock(viewer: Any) -> AutoSegNetDock:
    """A dock beside 256 x 256 pixels of axons, of which rows are painted."""
    (image, about_image, _), (labels, about_labels, _) = axons_labeled()
    labels = labels[:256, :256].copy()
    labels[np.arange(256) % 32 > 3] = 0
    viewer.add_image(image[:256, :256], **about_image)
    viewer.add_labels(labels, **about_labels)
    dock = AutoSegNetDock(viewer)
    viewer.window.add_dock_widget(dock)
    return dock


def test_strokes_that_are_painted_meanwhile_reach_the_worker(
    qtbot: Any, make_napari_viewer: Callable[..., Any], settled: Callable[[Any], None]
) -> None:
    viewer = make_napari_viewer()
    dock = painted_dock(viewer)
    settled(dock.session)
    dock.show_step("learn")
    step, annotation = dock.learn_step, dock.session.annotation.pairs()[0].labels
    told: list[Any] = []
    step.client.reported.connect(told.append)

    def events(kind: type) -> list[Any]:
        return [event for event in told if isinstance(event, kind)]

    step.form.set_value(small_jobs.FIT.changed(epochs=small_jobs.ENDLESS, candidates=1, choosing=0.99))
    qtbot.mouseClick(step.primary, Qt.MouseButton.LeftButton)
    try:
        qtbot.waitUntil(lambda: bool(events(Epoch)) or not step.client.active, timeout=LONG)
        before = int(np.sum(events(DataRead)[0].training_pixels))
        for row in range(10, 250, 32):
            for column in range(70, 250, 10):
                annotation.paint((row, column), 1)
        qtbot.waitUntil(lambda: bool(events(LabelsTaken)) or not step.client.active, timeout=LONG)
        (taken,) = events(LabelsTaken)
        assert sum(taken.training_pixels.values()) > before
        assert step.panel.note.text().startswith("New strokes are in: learns from ")
        drawn = len(events(PreviewDrawn))
        qtbot.waitUntil(lambda: len(events(PreviewDrawn)) > drawn, timeout=LONG)
        # Where to paint next.
        assert step.more_strokes.isHidden()
        qtbot.waitUntil(lambda: step.preview.layer is not None, timeout=LONG)
        step.more_strokes.asked.emit()
        qtbot.waitUntil(lambda: "least certain place" in viewer.layers, timeout=LONG)
        assert viewer.layers.selection.active is annotation and annotation.mode == "paint"
        # Another class is none of the running network's.
        dock.session.annotation.class_list.add("vesicle")
        annotation.paint((40, 100), dock.session.annotation.label_classes[-1].value)
        qtbot.waitUntil(lambda: bool(step.strokes_problem.text()) or not step.client.active, timeout=LONG)
        assert step.strokes_problem.text().startswith("'vesicle' came after the start: ")
        qtbot.waitUntil(lambda: len(events(LabelsTaken)) == 2 or not step.client.active, timeout=LONG)
        assert "vesicle" not in events(LabelsTaken)[1].training_pixels, "all else is learned from"
        # What is seen elsewhere than it lies waits until it is put there.
        annotation.translate = np.asarray(annotation.translate) + 5 * np.asarray(annotation.scale)
        annotation.paint((50, 120), 1)
        qtbot.waitUntil(lambda: " is shown up to 5 pixels away" in step.strokes_problem.text(), timeout=LONG)
        dock.session.annotation.put_on_image(dock.session.annotation.pairs()[0])
        qtbot.waitUntil(lambda: len(events(LabelsTaken)) == 3 or not step.client.active, timeout=LONG)
        assert events(LabelsTaken)[2].training_pixels != events(LabelsTaken)[1].training_pixels
        # A worker that is gone continues with what it had.
        run = dock.session.run
        assert run is not None
        process = find(run)
        assert process is not None
        process.kill()
        qtbot.waitUntil(lambda: step.client.state == "died", timeout=LONG)
        last = events(LabelsTaken)[-1]
        told.clear()
        qtbot.waitUntil(lambda: step.primary.text() == "Continue the learning", timeout=LONG)
        qtbot.mouseClick(step.primary, Qt.MouseButton.LeftButton)
        qtbot.waitUntil(lambda: bool(events(Epoch)) or not step.client.active, timeout=LONG)
        configuration = RunConfiguration.load(run)
        assert configuration.labels_taken >= 2 and events(Epoch)[0].epoch > 1
        assert int(np.sum(events(DataRead)[0].training_pixels)) == sum(last.training_pixels.values())
    finally:
        step.client.cancel()
        qtbot.waitUntil(lambda: not step.client.active, timeout=LONG)


def curve(rise: float, pixels: int) -> QualityCurve:
    """After two times the least time, of which the quality rose so much in the second half."""
    made = QualityCurve()
    made.add(Started(step="fit"))
    made.add(QualityMeasured(step="fit", pixels={"a": pixels, "b": 10**5}, sections=1, mean_iou=0.5, iou={}))
    for second in range(0, 2 * int(MIN_SECONDS), 5):
        iou = 0.5 + (rise if second > MIN_SECONDS else 0.0) - 0.1 * (second % 2)
        made.add(Epoch(step="fit", epoch=1 + second // 5, mean_iou=iou, seconds=float(second)))
    return made


def test_more_strokes_are_asked_for_where_time_does_not_help(qtbot: Any) -> None:
    assert curve(0.0, ENOUGH - 1).flat_for == pytest.approx(MIN_SECONDS, abs=5)
    assert curve(0.0, ENOUGH - 1).few == ["a"] and curve(0.0, ENOUGH).few == []
    assert curve(0.05, 100).flat_for is None, "it still becomes better"
    anew = curve(0.0, 100)
    anew.add(LabelsTaken(epoch=24, training_pixels={}, validation_pixels={}))
    assert anew.flat_for is None and anew.few == [], "measured anew on other pixels"
    widget = MoreStrokes()
    qtbot.addWidget(widget)
    widget.show_state(active=True)
    assert widget.isHidden()
    for second in range(0, 300, 5):
        widget.add(Epoch(step="fit", epoch=1 + second, mean_iou=0.6, seconds=float(second)))
    widget.add(QualityMeasured(step="fit", pixels={"a": 600}, sections=1, mean_iou=0.6, iou={"a": 0.6}))
    widget.show_state(active=True)
    assert not widget.isHidden() and widget.words.text().startswith("For 2 min it has hardly become better")
    with qtbot.waitSignal(widget.asked):
        qtbot.mouseClick(widget.button, Qt.MouseButton.LeftButton)
    widget.show_state(active=False)
    assert widget.isHidden()


def test_layers_that_are_closed_are_no_new_strokes(
    make_session: Callable[..., Any], settled: Callable[[Any], None], runs_folder: Path, qtbot: Any
) -> None:
    """It said that the run began with classes of other names."""
    session, run = make_session(), Run.create(runs_folder / "busy")
    update_config(run, fit={})
    run.report(Started(step="fit"))
    session.viewer.add_image(gray(64, 64))
    labels = session.viewer.add_labels(painted(64, 64))
    session.annotation.follow_layers()
    settled(session)
    client = RunClient(step="fit")
    strokes, said = NewStrokes(session, client), list[str]()
    with run.locked():
        client.attach(run)
        qtbot.waitUntil(lambda: client.state == "working", timeout=10_000)
        strokes.follow(run)
        strokes.said.connect(said.append)
        session.viewer.layers.remove(labels)
        settled(session)
        qtbot.wait(2500)
        assert said == [] and not run.request_file("labels").exists()
    client.close()
    strokes.close()


def begin(run: Run, images: tuple[Path, ...], labels: tuple[Path, ...]) -> None:
    """What the worker of a fit keeps when it has begun with two classes."""
    configuration = RunConfiguration.load(run)
    configuration.data = LabeledData.given(images, labels, "1:class 1,2:class 2", ALL, None).description
    configuration.save(run)
    run.report(Started(step="fit"))


def test_a_dock_that_is_opened_again_hands_strokes_to_the_run_of_its_layers(
    make_session: Callable[..., Any], settled: Callable[[Any], None], runs_folder: Path, qtbot: Any
) -> None:
    """They were not learned from, without a word."""
    run, viewer = Run.create(runs_folder / "busy"), ViewerModel()
    viewer.add_image(gray(64, 64), name="cells")
    labels = viewer.add_labels(painted(64, 64))
    with run.locked():
        session = make_session(viewer)
        settled(session)
        data = session.labeled_images.export(run)
        begin(run, tuple(data.images), tuple(data.labels))
        first = NewStrokes(session, RunClient(step="fit"))
        first.follow(run)
        first.close()
        session.close()
        labels.data_setitem((np.array([20]), np.array([20])), 1)  # while no dock is open

        session, client, said = make_session(viewer), RunClient(step="fit"), list[str]()
        strokes = NewStrokes(session, client)
        strokes.said.connect(said.append)
        settled(session)
        client.attach(run)
        qtbot.waitUntil(run.request_file("labels").exists, timeout=30_000)
        handed = json.loads(run.request_file("labels").read_text())
        assert [run.path / image for image in handed["images"]] == data.images, "the run knows it by this file"
        assert [run.path / file for file in handed["labels"]] != data.labels
        qtbot.waitUntil(lambda: said == [""], timeout=30_000)

        run.request_file("labels").unlink()
        session.labeled_images.changed.emit()
        qtbot.wait(2000)
        assert not run.request_file("labels").exists(), "nothing was painted since"
        # An image that came later is none of the run's.
        viewer.add_image(gray(48, 48), name="more")
        viewer.add_labels(painted(48, 48))
        qtbot.waitUntil(lambda: len(said) > 1, timeout=30_000)
        assert said[-1].startswith("The run did not begin with 'more', so strokes there are not learned.")
    client.close()
    strokes.close()


def test_strokes_that_are_none_of_the_runs_are_said_to_be_not_learned_from(
    make_session: Callable[..., Any], settled: Callable[[Any], None], runs_folder: Path, qtbot: Any
) -> None:
    session, run = make_session(), Run.create(runs_folder / "busy")
    given = small_jobs.write_data(runs_folder)
    begin(run, given["images"], given["labels"])
    session.viewer.add_image(gray(64, 64))
    session.viewer.add_labels(painted(64, 64))
    client = RunClient(step="fit")
    strokes, said = NewStrokes(session, client), list[str]()
    strokes.said.connect(said.append)
    settled(session)
    with run.locked():
        client.attach(run)
        qtbot.waitUntil(lambda: bool(said), timeout=10_000)
        assert said[0].startswith("New strokes are not learned from: the run began with other annotation")
        qtbot.wait(2000)
        assert not run.request_file("labels").exists()
    client.close()
    strokes.close()
