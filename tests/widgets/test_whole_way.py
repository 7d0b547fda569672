"""From an opened image to a corrected segmentation in a real napari window, by the buttons that a person presses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

import small_jobs
from napari_autosegnet.data.images import open_labels
from napari_autosegnet.model import Model
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.dock import AutoSegNetDock
from napari_autosegnet.widgets.files.sample_data import axons_labeled
from napari_autosegnet.widgets.jobs.worker_process import find

LONG = 180_000
SIDE = 256
MYELIN, AXON = 2, 3


@pytest.fixture
def make_dock(make_napari_viewer: Callable[..., Any], qtbot: Any) -> Iterator[Callable[[], AutoSegNetDock]]:
    """Makes a window with the dock; a function, so that nothing but the test holds on to it."""
    runs: list[Path] = []

    def make() -> AutoSegNetDock:
        viewer = make_napari_viewer(show=True)
        dock = AutoSegNetDock(viewer)
        viewer.window.add_dock_widget(dock, name="AutoSegNet")
        qtbot.waitUntil(lambda: not dock.session.background.is_busy, timeout=10_000)
        runs.append(dock.session.runs_folder)
        return dock

    yield make
    for folder in runs:
        for run in folder.iterdir():
            if (process := find(Run(run))) is not None:
                process.kill()


@pytest.mark.slow
def test_from_an_image_to_a_corrected_segmentation(make_dock: Callable[[], AutoSegNetDock], qtbot: Any) -> None:
    dock = make_dock()
    session, viewer = dock.session, dock.session.viewer

    def click(button: Any) -> None:
        assert button.isVisible() and button.isEnabled(), button.text()
        qtbot.mouseClick(button, Qt.MouseButton.LeftButton)

    def settled() -> bool:
        return not (
            session.annotation.is_counting or session.background.is_busy or dock.apply_step.slices.progress.is_under_way
        )

    def wait(condition: Callable[[], bool]) -> None:
        qtbot.waitUntil(condition, timeout=LONG)
        qtbot.wait(50)

    (pixels, about_image, _), (truth, _, _) = axons_labeled()
    pixels, truth = pixels[:SIDE, :SIDE], truth[:SIDE, :SIDE]
    image = viewer.add_image(pixels, **about_image)
    # Annotate: a layer, three classes, dabs of the brush.
    step = dock.annotate_step
    assert not step.next_button.isEnabled()
    wait(step.new_button.isEnabled)
    click(step.new_button)
    click(step.add_button)
    for row, name in enumerate(("background", "myelin", "axon")):
        step.table.item(row, 1).setText(name)
    labels = session.layers.labels()[0]
    assert viewer.layers.selection.active is labels and labels.mode == "paint"
    labels.brush_size = 1
    for value in (1, MYELIN, AXON):
        places = np.argwhere(truth == value)
        for y, x in places[:: len(places) // 60]:
            labels.paint((y, x), value)
    wait(settled)
    assert [each.name for each in session.annotation.classes] == ["background", "myelin", "axon"]
    click(step.next_button)

    # Learn, long enough for myelin to be told from the rest.
    assert dock.step == "learn" and dock.next_button.isHidden()
    learn = dock.learn_step
    learn.form.set_value(small_jobs.FIT.changed(epochs=8, steps_per_epoch=25, batch_size=4, patch_size=64))
    click(learn.primary)
    wait(lambda: learn.client.state in ("finished", "failed", "died"))
    assert learn.client.state == "finished", learn.client.reason
    run = session.run
    assert run is not None and Model.load(run.model_folder).metrics["validation"]["mean_iou"] > 0
    click(dock.next_button)

    # Apply: the slice, then the stack; both are right to the eye, and the same.
    apply = dock.apply_step
    viewer.layers.selection.active = image
    wait(lambda: apply.slices.slice_button.isEnabled())
    click(apply.slices.slice_button)
    wait(lambda: "segmentation of the slice" in viewer.layers and settled())
    found = np.asarray(viewer.layers["segmentation of the slice"].data)
    truly_myelin, found_myelin = truth == MYELIN, found == MYELIN
    iou = (truly_myelin & found_myelin).sum() / (truly_myelin | found_myelin).sum()
    by_chance = truly_myelin.mean()
    assert iou > by_chance + 0.1, f"IoU of myelin {iou:.2f}, everywhere: {by_chance:.2f}"
    click(apply.stack_button)
    dialog = next(each for each in QApplication.topLevelWidgets() if type(each).__name__ == "ApplyDialog")
    with qtbot.waitSignal(apply.volume.done, timeout=LONG):
        click(dialog.start_button)
    # A short job can end before its result is opened.
    wait(lambda: apply.volume.layer is not None)
    result = apply.volume.layer
    assert result is not None and type(result.data).__module__.startswith("zarr")
    assert np.mean(np.asarray(result.data).reshape(SIDE, SIDE) == found) > 0.999
    assert Path(str(apply.volume.out)).parent.parent == session.runs_folder

    # A mistake is painted over, taken over as annotation, and trained on with.
    before = np.asarray(labels.data).copy()
    value = MYELIN if found[100, 100] != MYELIN else AXON
    viewer.layers.selection.active = result
    result.brush_size = 6
    result.mode = "paint"
    result.paint((100, 100), value)
    wait(lambda: apply.take_button.isEnabled())
    click(apply.take_button)
    assert labels.data[100, 100] == value and (np.asarray(labels.data) != before).any()
    click(apply.next_button)
    assert dock.step == "learn"
    wait(settled)
    learn.advanced.train_form.set_value(small_jobs.TRAIN.changed(epochs=1, patch_size=64))
    assert learn.primary.text() == "Add labels and continue"
    click(learn.primary)
    wait(lambda: learn.client.state in ("finished", "failed", "died"))
    assert learn.client.state == "finished", learn.client.reason
    content = run.read_config()
    assert content["continued"]
    assert open_labels(content["data"]["labels"][0]).section(0)[0][100, 100] == value
