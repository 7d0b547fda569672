"""A whole stack segmented by a worker, and its result as a layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from apply_steps import expected, idle, small_classes, use_run
from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.events import BlocksPlanned, BlockWritten
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.run import Run
from napari_autosegnet.settings import PredictSettings
from napari_autosegnet.widgets.apply import uncertainty
from napari_autosegnet.widgets.apply.apply_dialog import ApplyDialog, Chosen
from napari_autosegnet.widgets.apply.apply_step import ApplyStep
from napari_autosegnet.widgets.layers.class_colors import kept_classes, result_layer
from napari_autosegnet.widgets.layers.layer_arrays import METADATA, role
from small_models import small_model


def test_corrections_outlive_a_worker_that_goes_on(step: ApplyStep, qtbot: Any) -> None:
    volume, viewer = step.volume, step.session.viewer
    layer = viewer.add_labels(np.ones((3, 96, 96), np.uint8), **result_layer(small_classes(), name="result"))
    qtbot.wait(20)
    volume._layer = layer
    layer.data_setitem((np.full(3, 1), np.arange(3), np.arange(3)), 2)
    for state in ("starting", "working"):
        volume.client._state = state
        volume.client.state_changed.emit(state)
    layer.data[1] = 3
    volume.client._state = "finished"
    volume.client.state_changed.emit("finished")
    assert (layer.data[1, np.arange(3), np.arange(3)] == 2).all() and np.count_nonzero(
        layer.data[1] == 3
    ) == 96 * 96 - 3
    qtbot.waitUntil(lambda: step.corrections.pixels == 3, timeout=5000)
    volume.client._state = "idle"


def test_nobody_paints_on_a_result_that_is_gone_on_with(step: ApplyStep) -> None:
    volume = step.volume
    layer = step.session.viewer.add_labels(np.ones((3, 96, 96), np.uint8), metadata={METADATA: {"role": "result"}})
    volume._layer = layer
    for state, editable in (("working", False), ("stopped", True), ("starting", False), ("finished", True)):
        volume.client._state = state
        volume.client.state_changed.emit(state)
        assert layer.editable is editable, state
    volume.client._state = "working"
    volume.client.state_changed.emit("working")
    step.session.viewer.dims.ndisplay = 3
    step.session.viewer.dims.ndisplay = 2  # napari allows painting again
    volume._refresh()
    assert not layer.editable
    volume.client._state = "idle"


def test_a_store_that_could_not_be_read_is_looked_at_again(step: ApplyStep, qtbot: Any, tmp_path: Path) -> None:
    volume, out = step.volume, tmp_path / "late.ome.zarr"
    said: list[str] = []
    volume.failed.connect(said.append)
    volume._out = out
    volume.client._state = "working"
    volume.client.reported.emit(BlocksPlanned(blocks=1))
    idle(step, qtbot)
    assert volume.layer is None and said == []
    pixels = np.random.default_rng(0).integers(0, 255, (2, 64, 64), np.uint8)
    predict_volume(small_model(), image_from_array(pixels, name="s"), out, PredictSettings())
    volume.client.reported.emit(BlockWritten(index=0, origin=(0, 0, 0), status="done", voxels=1, step="segmentation"))
    qtbot.waitUntil(lambda: volume.layer is not None, timeout=10_000)
    volume.client._state = "idle"


def test_single_objects_are_shown_in_colors_of_their_own(step: ApplyStep, qtbot: Any, stack: np.ndarray) -> None:
    volume, out = step.volume, step.session.runs_folder / "objects.ome.zarr"
    settings = PredictSettings(instances=True, instance_classes=("2nd myelin",))
    predict_volume(small_model(), image_from_array(stack, name="stack"), out, settings)
    viewer = step.session.viewer
    image = viewer.layers["stack"]
    image.rotate, image.units = [[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]], ("nm", "nm", "nm")
    volume._begin(image, None, out, Path())
    volume.client._state = "finished"
    volume.client.state_changed.emit("finished")
    qtbot.waitUntil(lambda: "stack objects" in viewer.layers, timeout=10_000)
    for layer in (viewer.layers["stack objects"], volume.layer):
        assert np.allclose(layer.data_to_world((1, 20, 30)), image.data_to_world((1, 20, 30)))
        assert layer.units == image.units
    objects = viewer.layers["stack objects"]
    assert role(objects) == "objects" and not objects.editable
    assert tuple(objects.scale) == (50, 4, 4) and tuple(objects.translate) == (100, 8, 8)
    colors = {tuple(objects.get_color(number)) for number in range(1, 20)}
    assert len(colors) > 1, "single objects cannot be told apart"
    assert step.session.layers.labels() == []


@pytest.mark.parametrize("ending", ["mrc", "h5", "tif", "nii.gz"])
def test_a_result_in_a_file_is_shown_when_it_is_finished(
    step: ApplyStep, run: Run, qtbot: Any, stack: np.ndarray, tmp_path: Path, ending: str
) -> None:
    if "nii" in ending:
        pytest.importorskip("nibabel", reason="the extra formats is not installed")
    volume, out = step.volume, tmp_path / f"result.{ending}"
    predict_volume(small_model(), image_from_array(stack, name="stack"), out, PredictSettings())
    image = step.session.viewer.layers["stack"]
    volume._begin(image, None, out, run.model_folder)
    volume.client.reported.emit(BlocksPlanned(blocks=1))
    assert not volume._opening, "only what is finished can be read by everybody"
    volume.client._state = "finished"
    with qtbot.waitSignal(volume.shown, timeout=10_000):
        volume.client.state_changed.emit("finished")
    layer = volume.layer
    assert layer is not None and role(layer) == "result" and not layer.editable
    assert np.array_equal(np.asarray(layer.data[1]), expected(stack, 1))
    assert tuple(layer.scale) == tuple(image.scale) and tuple(layer.translate) == tuple(image.translate)
    assert [each.name for each in kept_classes(layer)] == [each.name for each in small_model().classes]
    assert step.corrections.pixels == 0 and step.session.layers.labels() == []


def test_probabilities_of_an_older_model_name_no_place(
    step: ApplyStep, run: Run, qtbot: Any, stack: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_run(step, run, qtbot)
    image, out = step.session.viewer.layers["stack"], step.session.runs_folder / "all.ome.zarr"
    predict_volume(small_model(), image_from_array(stack, name="stack"), out, PredictSettings(probabilities=True))
    step.volume._begin(image, None, out, Path())
    step.volume._open()
    qtbot.waitUntil(lambda: step.volume.layer is not None, timeout=10_000)
    looked: list[int] = []
    of_volume = uncertainty.least_certain_of_volume
    monkeypatch.setattr(uncertainty, "least_certain_of_volume", lambda *given: (looked.append(1), of_volume(*given))[1])
    step.slices.go_to_least_certain()
    idle(step, qtbot)
    assert looked == [1] and len(step.slices.places[image]) == 1
    assert "segmentation of the slice" not in step.session.viewer.layers
    small_model("unet").save(run.model_folder)  # trained again
    step.slices.go_to_least_certain()
    idle(step, qtbot)
    qtbot.waitUntil(lambda: len(step.slices.places[image]) == 2, timeout=60_000)
    assert looked == [1] and "segmentation of the slice" in step.session.viewer.layers


def test_a_whole_layer_is_segmented_by_a_worker(
    step: ApplyStep, run: Run, qtbot: Any, stack: np.ndarray, runs_folder: Path
) -> None:
    viewer = step.session.viewer
    use_run(step, run, qtbot)
    image = viewer.layers["stack"]
    with qtbot.waitSignal(step.volume.done, timeout=120_000):
        step.volume.start(run.model_folder, Chosen(image, None, PredictSettings(block=(1, 96, 96), probabilities=True)))
        assert not step.stack_button.isEnabled()
        qtbot.waitUntil(lambda: step.volume.layer is not None or not step.volume.client.active, timeout=90_000)
    assert step.volume.client.state == "finished", step.volume.client.reason
    qtbot.waitUntil(lambda: step.volume.layer is not None, timeout=10_000)
    layer = step.volume.layer
    assert layer.name == "stack segmentation" and role(layer) == "result" and layer.editable
    assert tuple(layer.scale) == (50, 4, 4) and tuple(layer.translate) == (100, 8, 8)
    assert type(layer.data).__module__.startswith("zarr")
    for section in range(3):
        assert np.mean(np.asarray(layer.data[section]) == expected(stack, section)) > 0.999
    # Places of the whole stack come from the probabilities, then.
    step.slices.go_to_least_certain()
    idle(step, qtbot)
    assert len(step.slices.places[image]) == 1
    layer.data_setitem((np.zeros(4, int), np.arange(4), np.arange(4)), 3 - np.asarray(layer.data[0])[0, 0] % 2)
    qtbot.waitUntil(lambda: step.take_button.isEnabled())
    step.take_over()
    assert "are annotation now" in step.message.text() and not step.take_button.isEnabled()


def test_a_worker_that_fails_says_why(step: ApplyStep, run: Run, qtbot: Any, tmp_path: Path) -> None:
    use_run(step, run, qtbot)
    (tmp_path / "taken.zarr").mkdir()
    (tmp_path / "taken.zarr" / "other").write_text("something else")
    image = step.session.viewer.layers["stack"]
    step.volume.start(run.model_folder, Chosen(image, tmp_path / "taken.zarr", PredictSettings()))
    qtbot.waitUntil(lambda: not step.volume.client.active, timeout=90_000)
    assert step.volume.client.state == "failed"
    assert "no result of this program" in step.panel.note.text()


def test_one_time_point_and_channel_of_a_file_is_segmented(
    step: ApplyStep, run: Run, qtbot: Any, stack: np.ndarray, tmp_path: Path
) -> None:
    import zarr

    series = np.zeros((2, 2, *stack.shape), np.uint8)
    series[1, 0] = stack
    zarr.create_array(tmp_path / "series.zarr", data=series)
    viewer = step.session.viewer
    viewer.layers.clear()
    use_run(step, run, qtbot)
    dialog = ApplyDialog(step.session)
    qtbot.addWidget(dialog)
    dialog.file_line.setText(str(tmp_path / "series.zarr"))
    dialog.time_line.setText("1")
    dialog.channels_line.setText("0")
    dialog.axes_line.setText("tczyx")
    with qtbot.waitSignal(step.volume.done, timeout=120_000):
        step.volume.start(run.model_folder, dialog.read())
    # The image is shown beneath its result.
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=10_000)
    image, result = viewer.layers
    assert np.array_equal(image.data, stack)
    for section in range(3):
        assert np.mean(np.asarray(result.data[section]) == expected(stack, section)) > 0.999
