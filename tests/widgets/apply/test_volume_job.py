"""A whole stack segmented by a worker, and its result as a layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

import npe2
import tifffile
from qtpy.QtWidgets import QLineEdit

from apply_steps import expected, idle, use_run
from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.events import BlocksPlanned, BlockWritten, Event, Finished, Started, Stopped
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.jobs.job_file import write_job
from napari_autosegnet.jobs.predict import PredictJob
from napari_autosegnet.run import Run
from napari_autosegnet.settings import PredictSettings
from napari_autosegnet.widgets.apply import uncertainty
from napari_autosegnet.widgets.apply.apply_dialog import ApplyDialog, Chosen
from napari_autosegnet.widgets.apply.apply_step import ApplyStep
from napari_autosegnet.widgets.layers.class_colors import kept_classes
from napari_autosegnet.widgets.layers.notes import role
from remembered_events import Events
from small_models import small_model


@pytest.fixture
def image(step: ApplyStep, stack: np.ndarray, tmp_path: Path) -> Any:
    """The stack, opened from a file."""
    npe2.PluginManager.instance().discover()  # napari's own readers, as in a window
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    step.session.viewer.layers.clear()
    (image,) = step.session.viewer.open(tmp_path / "stack.tif", plugin="napari")
    image.scale, image.translate, image.axis_labels = (50, 4, 4), (100, 8, 8), ("z", "y", "x")
    step.session.annotation.follow_layers()
    return image


@pytest.fixture
def begun(image: Any, run: Run, tmp_path: Path) -> Callable[..., Run]:
    """Begins a segmentation of the image as another program would: only its folder tells of it."""

    def begin(out: str = "result.ome.zarr") -> Run:
        folder = Run.create(tmp_path / "segmentation")
        write_job(folder, PredictJob(model=run.model_folder, image=Path(image.source.path), out=tmp_path / out))
        folder.report(Started(step="predict"))
        return folder

    return begin


def show_finished(step: ApplyStep, job: Run, qtbot: Any) -> Any:
    """The result of a segmentation that somebody else finished."""
    job.report(Finished(step="predict"))
    step.volume.attach(job)
    qtbot.waitUntil(lambda: step.volume.layer is not None, timeout=10_000)
    return step.volume.layer


def attach_running(step: ApplyStep, job: Run, qtbot: Any) -> None:
    """Open a segmentation on which somebody works, and wait until its first event is known."""
    events = Events()
    step.volume.client.reported.connect(events)
    job.report(BlocksPlanned(blocks=1))
    step.volume.attach(job)
    qtbot.waitUntil(lambda: bool(events.of(BlocksPlanned)), timeout=10_000)
    idle(step, qtbot)


def wait_for(step: ApplyStep, state: str, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: step.volume.client.state == state, timeout=60_000)


def test_corrections_outlive_a_worker_that_goes_on(
    step: ApplyStep, run: Run, image: Any, qtbot: Any, stack: np.ndarray, tmp_path: Path
) -> None:
    use_run(step, run, qtbot)
    folder = Run.create(tmp_path / "segmentation")
    out, settings = folder.path / "result.ome.zarr", PredictSettings(block=(1, 48, 48))
    job = PredictJob(model=run.model_folder, image=Path(image.source.path), out=out, settings=settings, device="cpu")
    write_job(folder, job)
    folder.report(Started(step="predict"))
    events = Events()

    def report(event: Event) -> None:
        folder.report(event)
        events(event)

    job.run(report=report, should_stop=lambda: bool(events.of(BlockWritten)))
    step.volume.attach(folder)
    qtbot.waitUntil(lambda: step.volume.layer is not None and step.continue_button.isVisible(), timeout=60_000)
    layer = step.volume.layer
    assert layer is not None and layer.editable and np.any(layer.data[0]) and not np.any(layer.data[2])
    where = np.arange(3), np.arange(3)
    wanted = expected(stack, 2)[where] % 3 + 1  # another class than what the worker is going to say
    layer.data_setitem((np.full(3, 2), *where), wanted)
    step.continue_button.click()
    assert step.volume.client.state == "starting" and not layer.editable
    wait_for(step, "finished", qtbot)
    assert layer.editable and (np.asarray(layer.data[2])[where] == wanted).all()
    assert np.mean(np.asarray(layer.data[2]) == expected(stack, 2)) > 0.999 - 3 / 96**2
    qtbot.waitUntil(lambda: step.corrections.pixels == 3, timeout=5000)


def test_nobody_paints_on_a_result_that_is_gone_on_with(
    step: ApplyStep, begun: Callable[..., Run], qtbot: Any, stack: np.ndarray, tmp_path: Path
) -> None:
    job, viewer = begun(), step.session.viewer
    predict_volume(small_model(), image_from_array(stack), tmp_path / "result.ome.zarr", PredictSettings())
    job.report(BlocksPlanned(blocks=1))
    with job.locked():
        step.volume.attach(job)
        wait_for(step, "working", qtbot)
        qtbot.waitUntil(lambda: step.volume.layer is not None, timeout=10_000)
        layer = step.volume.layer
        assert layer is not None and not layer.editable
        viewer.dims.ndisplay = 3
        viewer.dims.ndisplay = 2
        layer.editable = True  # as some versions of napari do by themselves then
        job.report(BlockWritten(index=0, origin=(0, 0, 0), status="done", voxels=1, step="segmentation"))
        qtbot.waitUntil(lambda: not layer.editable, timeout=5000)
        job.report(Stopped(step="predict", reason="a stop was asked for"))
    wait_for(step, "stopped", qtbot)
    assert layer.editable
    with job.locked():
        job.report(Started(step="predict"))
        wait_for(step, "working", qtbot)
        assert not layer.editable
        job.report(Finished(step="predict"))
    wait_for(step, "finished", qtbot)
    assert layer.editable


def test_a_store_that_could_not_be_read_is_looked_at_again(
    step: ApplyStep, begun: Callable[..., Run], qtbot: Any, tmp_path: Path
) -> None:
    volume, job = step.volume, begun()
    said: list[str] = []
    volume.failed.connect(said.append)
    with job.locked():
        attach_running(step, job, qtbot)
        assert volume.layer is None and said == []
        pixels = np.random.default_rng(0).integers(0, 255, (2, 64, 64), np.uint8)
        predict_volume(small_model(), image_from_array(pixels), tmp_path / "result.ome.zarr", PredictSettings())
        job.report(BlockWritten(index=0, origin=(0, 0, 0), status="done", voxels=1, step="segmentation"))
        qtbot.waitUntil(lambda: volume.layer is not None, timeout=10_000)


def test_single_objects_are_shown_in_colors_of_their_own(
    step: ApplyStep, image: Any, begun: Callable[..., Run], qtbot: Any, stack: np.ndarray, tmp_path: Path
) -> None:
    settings = PredictSettings(instances=True, instance_classes=("2nd myelin",))
    predict_volume(small_model(), image_from_array(stack), tmp_path / "result.ome.zarr", settings)
    viewer = step.session.viewer
    image.rotate, image.units = [[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]], ("nm", "nm", "nm")
    result = show_finished(step, begun(), qtbot)
    qtbot.waitUntil(lambda: "stack objects" in viewer.layers, timeout=10_000)
    for layer in (viewer.layers["stack objects"], result):
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
    step: ApplyStep, image: Any, begun: Callable[..., Run], qtbot: Any, stack: np.ndarray, tmp_path: Path, ending: str
) -> None:
    if "nii" in ending:
        pytest.importorskip("nibabel", reason="the extra formats is not installed")
    volume, job = step.volume, begun(f"result.{ending}")
    predict_volume(small_model(), image_from_array(stack), tmp_path / f"result.{ending}", PredictSettings())
    with job.locked():
        attach_running(step, job, qtbot)
        assert volume.layer is None, "only what is finished can be read by everybody"
        job.report(Finished(step="predict"))
    qtbot.waitUntil(lambda: volume.layer is not None, timeout=10_000)
    layer = volume.layer
    assert layer is not None and role(layer) == "result" and not layer.editable
    assert np.array_equal(np.asarray(layer.data[1]), expected(stack, 1))
    assert tuple(layer.scale) == tuple(image.scale) and tuple(layer.translate) == tuple(image.translate)
    assert [each.name for each in kept_classes(layer)] == [each.name for each in small_model().classes]
    assert step.corrections.pixels == 0 and step.session.layers.labels() == []


def test_probabilities_of_an_older_model_name_no_place(
    step: ApplyStep,
    run: Run,
    image: Any,
    begun: Callable[..., Run],
    qtbot: Any,
    stack: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_run(step, run, qtbot)
    out = tmp_path / "result.ome.zarr"
    predict_volume(small_model(), image_from_array(stack), out, PredictSettings(probabilities=True))
    show_finished(step, begun(), qtbot)
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
    assert "not a result of this program" in step.panel.note.text()


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
    for name, text in (("time_point", "1"), ("channels", "0"), ("axes", "tczyx")):
        dialog.reading.findChild(QLineEdit, name).setText(text)
    with qtbot.waitSignal(step.volume.done, timeout=120_000):
        step.volume.start(run.model_folder, dialog.read())
    # The image is shown beneath its result.
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=10_000)
    image, result = viewer.layers
    assert np.array_equal(image.data, stack)
    for section in range(3):
        assert np.mean(np.asarray(result.data[section]) == expected(stack, section)) > 0.999
