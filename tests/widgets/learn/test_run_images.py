"""The images of a run, offered where they are not open."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from qtpy.QtCore import Qt

from napari_autosegnet.run import Run
from napari_autosegnet.widgets.dock import AutoSegNetDock
from napari_autosegnet.widgets.files.sample_data import axons_labeled
from napari_autosegnet.widgets.learn.run_images import RunImages


@pytest.fixture
def run(make_session: Any, settled: Any, runs_folder: Path, tmp_path: Path) -> Run:
    """A run with annotation on a layer and on a file."""
    session = make_session()
    (image, about_image, _), (labels, about_labels, _) = axons_labeled()
    session.viewer.add_image(image[:128, :128], **about_image)
    session.viewer.add_labels(labels[:128, :128], **about_labels)
    other = zarr.create_array(tmp_path / "other.zarr", data=image[128:256, :200].copy())
    session.viewer.add_image(other, name="other")
    session.viewer.add_labels(labels[128:256, :200], name="other annotation", metadata=about_labels["metadata"])
    settled(session)
    run = Run.create(runs_folder / "earlier")
    session.labeled_images.export(run)
    return run


def test_a_dock_that_is_attached_again_offers_the_images(
    run: Run, make_napari_viewer: Callable[..., Any], settled: Any, qtbot: Any
) -> None:
    with run.locked():
        viewer = make_napari_viewer()
        dock = AutoSegNetDock(viewer)
        viewer.window.add_dock_widget(dock)
        button = dock.images.button
        qtbot.waitUntil(lambda: not button.isHidden() and not dock.images.isHidden(), timeout=20_000)
        assert dock.session.run.path == run.path and "axons" in button.toolTip() and "other" in button.toolTip()
        qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
        assert button.isHidden(), "it is pressed once"
        qtbot.waitUntil(lambda: len(viewer.layers) == 4, timeout=20_000)
        settled(dock.session)
    assert [layer.name for layer in viewer.layers] == ["axons", "axons annotation", "other", "other annotation"]
    (pixels, *_), (labels, *_) = axons_labeled()
    assert np.array_equal(viewer.layers["axons"].data, pixels[:128, :128])
    assert np.array_equal(viewer.layers["other annotation"].data, labels[128:256, :200])
    assert [pair.image.name for pair in dock.session.annotation.pairs()] == ["axons", "other"]
    assert dock.session.labeled_images.problem is None
    assert [each.name for each in dock.session.annotation.classes][1:] == ["myelin", "axon"]
    assert dock.images.isHidden()


def test_what_is_gone_is_told_and_the_rest_is_loaded(
    run: Run, make_session: Any, settled: Any, qtbot: Any, tmp_path: Path
) -> None:
    moved = shutil.move(tmp_path / "other.zarr", tmp_path / "moved.zarr")
    session = make_session()
    # Also while an image is open that the run knows nothing of.
    session.viewer.add_image(np.zeros((50, 50), np.uint8), name="something else")
    images = RunImages(session)
    qtbot.addWidget(images)
    session.run = run
    settled(session)
    assert not images.button.isHidden()
    images.button.click()
    settled(session)
    names = [layer.name for layer in session.viewer.layers]
    assert names == ["something else", "axons", "axons annotation", "other annotation"]
    assert images.message.text().startswith(f"'other' is gone from {tmp_path / 'other.zarr'}; open it")
    assert images.message.text().endswith("where it is now. Its annotation is loaded.")
    assert "\n" not in images.message.text() and images.button.isHidden()
    # Opened from where it is now, the image has its annotation again.
    other = session.viewer.add_image(zarr.open_array(moved), name="other")
    settled(session)
    pairs = {pair.image.name: pair.labels for pair in session.annotation.pairs()}
    assert pairs.keys() == {"axons", "other"} and session.labeled_images.problem is None
    assert np.array_equal(pairs["other"].data, axons_labeled()[1][0][128:256, :200])
    assert tuple(pairs["other"].scale) == tuple(other.scale)
    # All images are closed: offered again; of a run without images nothing is.
    session.viewer.layers.clear()
    settled(session)
    assert not images.button.isHidden()
    session.run = None
    settled(session)
    assert images.isHidden()
    (run.path / "annotation" / "annotation.json").write_text("{")
    session.run = run
    settled(session)
    assert images.button.isHidden() and "cannot be read" in images.message.text()
