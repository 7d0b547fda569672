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
from napari_autosegnet.widgets.layers.layer_arrays import METADATA
from napari_autosegnet.widgets.learn.live_preview import LivePreview, _Place
from napari_autosegnet.widgets.session import Session


@pytest.fixture
def preview(
    make_napari_viewer: Callable[..., Any], qtbot: Any, runs_folder: Path
) -> Iterator[tuple[LivePreview, Session, Run]]:
    """Of a training that is under way."""
    session = Session(make_napari_viewer())
    run = Run.create(runs_folder / "busy")
    run.update_config(training={})
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


def origin(preview: LivePreview) -> tuple[int, int] | None:
    places = list(preview._places.values())
    return places[-1].origin if places else None


def test_the_slice_is_given_again_after_the_box_was_off(preview: Any, qtbot: Any) -> None:
    live, session, run = preview
    session.viewer.add_image(np.zeros((64, 64), np.uint8))
    session.follow_layers()
    live._on_view()
    given = preview_file(run, "input")
    qtbot.waitUntil(lambda: bool(live._places), timeout=10_000)
    live.set_enabled(False)
    qtbot.waitUntil(lambda: not given.exists(), timeout=10_000)
    live.set_enabled(True)
    qtbot.waitUntil(lambda: bool(live._places), timeout=10_000)
    assert given.is_file()


def test_the_part_in_view_follows_the_camera(preview: Any, qtbot: Any) -> None:
    live, session, _ = preview
    viewer = session.viewer
    viewer.add_image(np.broadcast_to(np.uint8(0), (3000, 3000)))
    session.follow_layers()
    viewer.scene.camera.center = (0, 600, 700)
    qtbot.waitUntil(lambda: origin(live) == (88, 188), timeout=10_000)
    viewer.scene.camera.center = (0, 2500, 2000)
    qtbot.waitUntil(lambda: origin(live) == (1976, 1488), timeout=10_000)


def test_classes_are_those_of_the_training(preview: Any, qtbot: Any) -> None:
    live, session, run = preview
    image = session.viewer.add_image(np.zeros((64, 64), np.uint8))
    session.follow_layers()
    live._places[7] = _Place(image, 0, (0, 0))
    save_array(preview_file(run, "labels"), np.full((64, 64), 2, np.uint8))
    save_array(preview_file(run, "uncertainty"), np.zeros((64, 64), np.float32))
    classes = [{"name": "axon", "color": "#009e73"}, {"name": "myelin", "color": "#e69f00"}]
    run.report(PreviewDrawn(input=7, shape=(64, 64), classes=tuple(classes)))
    qtbot.waitUntil(lambda: live.layer is not None, timeout=10_000)
    assert [(each.name, each.color) for each in kept_classes(live.layer)] == [
        (each["name"], each["color"]) for each in classes
    ]
    about = live.layer.metadata[METADATA]
    assert about["passing"] and about["origin"] == (0, 0)
    run.report(PreviewDrawn(input=7, shape=(64, 64), classes=({"name": 1},)))  # damaged: the dock's own
    own = [each.name for each in session.classes]
    qtbot.waitUntil(lambda: [each.name for each in kept_classes(live.layer)] == own, timeout=10_000)
