"""The preview of a training: which slice the worker is given, and what is shown of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from napari_autosegnet.events import Epoch, PreviewDrawn, Started
from napari_autosegnet.jobs.preview import preview_file, save_array
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.jobs.run_client import RunClient
from napari_autosegnet.widgets.layers.class_colors import kept_classes
from napari_autosegnet.widgets.layers.notes import METADATA
from napari_autosegnet.widgets.learn.live_preview import LivePreview
from napari_autosegnet.widgets.session import Session
from run_configs import update_config


@pytest.fixture
def preview(
    make_napari_viewer: Callable[..., Any], qtbot: Any, runs_folder: Path
) -> Iterator[tuple[LivePreview, Session, Run]]:
    """Of a training that is under way."""
    session = Session(make_napari_viewer())
    run = Run.create(runs_folder / "busy")
    update_config(run, training={})
    run.report(Started(step="train"))
    run.report(Epoch(step="train", epoch=1))
    client = RunClient(step="train")
    preview = LivePreview(session, client)
    with run.locked():
        client.attach(run)
        qtbot.waitUntil(lambda: client.state == "working", timeout=10_000)
        yield preview, session, run
    client.close()
    preview.close()
    session.close()


class Training:
    """Draws every slice that it is given, all of class 2, as the worker does."""

    def __init__(self, live: LivePreview, session: Session, run: Run) -> None:
        self.live, self.session, self.run = live, session, run
        self.classes: tuple[dict[str, Any], ...] = ()
        self.drawn: tuple[int, tuple[dict[str, Any], ...]] | None = None

    def draw(self) -> None:
        given = preview_file(self.run, "input")
        if self.session.background.is_busy or not given.is_file():
            return
        modified = given.stat().st_mtime_ns
        if self.drawn == (modified, self.classes):
            return
        self.drawn = modified, self.classes
        with np.load(given) as content:
            shape = content["pixels"].shape[-2:]
        save_array(preview_file(self.run, "labels"), np.full(shape, 2, np.uint8))
        save_array(preview_file(self.run, "uncertainty"), np.full(shape, 0.5, np.float32))
        self.run.report(PreviewDrawn(input=modified, shape=shape, classes=self.classes))

    def shown(self) -> dict[str, Any]:
        """What is known of the layer that is shown, after the newest slice was drawn."""
        self.draw()
        return {} if self.live.layer is None else self.live.layer.metadata[METADATA]

    def origin(self) -> tuple[int, int] | None:
        return self.shown().get("origin")


def test_the_slice_is_given_again_after_the_box_was_off(preview: Any, qtbot: Any) -> None:
    live, session, run = preview
    session.viewer.add_image(np.zeros((64, 64), np.uint8))
    session.annotation.follow_layers()
    given = preview_file(run, "input")
    qtbot.waitUntil(given.is_file, timeout=10_000)
    live.set_enabled(False)
    qtbot.waitUntil(lambda: not given.exists(), timeout=10_000)
    live.set_enabled(True)
    qtbot.waitUntil(given.is_file, timeout=10_000)
    training = Training(*preview)
    qtbot.waitUntil(lambda: training.origin() == (0, 0), timeout=10_000)


def test_the_part_in_view_follows_the_camera(preview: Any, qtbot: Any) -> None:
    _, session, _ = preview
    viewer, training = session.viewer, Training(*preview)
    viewer.add_image(np.broadcast_to(np.uint8(0), (3000, 3000)))
    session.annotation.follow_layers()
    viewer.scene.camera.center = (0, 600, 700)
    qtbot.waitUntil(lambda: training.origin() == (88, 188), timeout=10_000)
    viewer.scene.camera.center = (0, 2500, 2000)
    qtbot.waitUntil(lambda: training.origin() == (1976, 1488), timeout=10_000)


def test_the_preview_lies_where_the_slice_does(preview: Any, qtbot: Any) -> None:
    live, session, _ = preview
    viewer, training = session.viewer, Training(*preview)
    image = viewer.add_image(np.zeros((3, 1500, 200), np.uint8), scale=(5, 2, 2), translate=(10, 0, 4))
    session.annotation.follow_layers()
    viewer.scene.camera.center = (0, 2 * 1400, 0)
    viewer.dims.set_point(0, 20)
    qtbot.waitUntil(lambda: training.origin() == (476, 0), timeout=10_000)
    layer = live.layer
    assert layer is not None and layer.data.shape == (1, 1024, 200)
    qtbot.waitUntil(lambda: layer.translate.tolist() == [20, 2 * 476, 4], timeout=10_000)
    assert layer.scale.tolist() == [5, 2, 2]
    assert live.uncertainty is not None and not live.uncertainty.visible
    assert np.array_equal(live.uncertainty.data[0], np.full((1024, 200), 0.5, np.float32))
    assert live.uncertainty.translate.tolist() == layer.translate.tolist()
    viewer.layers.remove(layer)
    assert live.layer is None
    viewer.layers.selection.active = image
    viewer.dims.set_point(0, 15)
    qtbot.waitUntil(lambda: training.origin() == (476, 0), timeout=10_000)
    assert live.layer.translate.tolist() == [15, 2 * 476, 4]
    # On to another image: what lies on the first is not left behind.
    other = viewer.add_image(np.zeros((64, 64), np.uint8))
    session.annotation.follow_layers()
    qtbot.waitUntil(lambda: training.origin() == (0, 0), timeout=10_000)
    assert set(viewer.layers) == {image, other, live.layer, live.uncertainty}
    live.set_enabled(False)
    assert live.uncertainty is None and set(viewer.layers) == {image, other}


def test_classes_are_those_of_the_training(preview: Any, qtbot: Any) -> None:
    live, session, _ = preview
    training = Training(*preview)
    session.viewer.add_image(np.zeros((64, 64), np.uint8))
    session.annotation.follow_layers()
    classes = [{"name": "axon", "color": "#009e73"}, {"name": "myelin", "color": "#e69f00"}]
    training.classes = tuple(classes)
    qtbot.waitUntil(lambda: bool(training.shown()), timeout=10_000)
    assert [(each.name, each.color) for each in kept_classes(live.layer)] == [
        (each["name"], each["color"]) for each in classes
    ]
    about = training.shown()
    assert about["passing"] and about["origin"] == (0, 0)
    training.classes = ({"name": 1},)  # damaged: the dock's own
    own = [each.name for each in session.annotation.classes]
    qtbot.waitUntil(
        lambda: bool(training.shown()) and [each.name for each in kept_classes(live.layer)] == own, timeout=10_000
    )


def test_what_lies_on_an_image_that_is_closed_is_out_of_sight(preview: Any, qtbot: Any) -> None:
    live, session, _ = preview
    viewer, training = session.viewer, Training(*preview)
    image = viewer.add_image(np.zeros((64, 64), np.uint8))
    session.annotation.follow_layers()
    qtbot.waitUntil(lambda: training.origin() == (0, 0), timeout=10_000)
    labels, unsure = live.layer, live.uncertainty
    unsure.visible = True
    viewer.layers.remove(image)
    assert not labels.visible and not unsure.visible
    live.come_back()
    assert not labels.visible
    again = viewer.add_image(np.ones((64, 64), np.uint8))
    session.annotation.follow_layers()
    qtbot.waitUntil(lambda: bool(training.shown()) and live.layer.visible, timeout=10_000)
    assert set(viewer.layers) == {again, live.layer, live.uncertainty}
    viewer.layers.select_all()
    viewer.layers.remove_selected()
    assert len(viewer.layers) == 0 and live.layer is None and live.uncertainty is None
