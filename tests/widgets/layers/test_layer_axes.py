"""Layers with time points and channels, all the way from the strokes to the result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

import tifffile
from qtpy.QtCore import Qt

from napari_autosegnet.data.images import image_from_array, open_image
from napari_autosegnet.data.selection import Selection
from napari_autosegnet.events import Finished, Started
from napari_autosegnet.inference.compute.sections import make_predictor, predict_section
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.jobs.job_file import write_job
from napari_autosegnet.jobs.predict import PredictJob
from napari_autosegnet.run import Run
from napari_autosegnet.settings import PredictSettings
from napari_autosegnet.widgets.annotate.axes_question import AxesQuestion
from napari_autosegnet.widgets.apply.apply_dialog import ApplyDialog
from napari_autosegnet.widgets.apply.apply_step import ApplyStep
from napari_autosegnet.widgets.files.run_layers import run_layers
from napari_autosegnet.widgets.layers.axes import axes_of
from napari_autosegnet.widgets.layers.layer_arrays import layer_stack, spatial_shape
from napari_autosegnet.widgets.layers.layer_files import file_of
from napari_autosegnet.widgets.layers.view import section_in_view
from small_models import small_model

GRAY = np.random.default_rng(0).integers(0, 255, (2, 3, 64, 64), np.uint8)


@pytest.fixture
def session(make_session: Any) -> Any:
    from napari.plugins import _initialize_plugins

    _initialize_plugins()  # napari's own readers, as in a window
    return make_session()


@pytest.fixture
def question(session: Any, qtbot: Any) -> AxesQuestion:
    question = AxesQuestion(session)
    qtbot.addWidget(question)
    return question


@pytest.fixture
def step(session: Any, qtbot: Any) -> Iterator[ApplyStep]:
    step = ApplyStep(session)
    qtbot.addWidget(step)
    yield step
    step.release()


def segmented(step: ApplyStep, model: Any, qtbot: Any) -> None:
    run = Run.create(step.session.runs_folder / "model")
    model.save(run.model_folder)
    step.session.run = run
    qtbot.waitUntil(lambda: step.model is not None, timeout=10_000)
    step.slices.segment()
    qtbot.waitUntil(lambda: not step.slices.progress.is_under_way, timeout=60_000)
    assert step.message.kind != "error", step.message.text()


def expected(model: Any, stack: Any, section: int) -> np.ndarray:
    found = predict_section(make_predictor(model, "cpu", PredictSettings()), stack, section)
    assert found is not None
    return found[0]


def test_a_time_series_follows_the_slider(
    session: Any, question: AxesQuestion, step: ApplyStep, settled: Any, qtbot: Any, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "series.tif", GRAY, imagej=True, metadata={"axes": "TZYX"})
    (image,) = session.viewer.open(tmp_path / "series.tif", plugin="napari")
    image.scale = (1, 5, 2, 2)
    qtbot.waitUntil(lambda: session.layers.images() == [image], timeout=5000)
    assert axes_of(image) == "tzyx" and image.axis_labels[0] == "time"
    assert file_of(image, 1) == tmp_path / "series.tif"
    session.viewer.dims.point = (1, 10, 0, 0)
    assert section_in_view(session.viewer, image) == 5

    segmented(step, small_model(), qtbot)
    layer = session.viewer.layers["segmentation of the slice"]
    assert layer.data.shape == GRAY.shape and np.array_equal(
        layer.data[1, 2], expected(small_model(), image_from_array(GRAY[1]), 2)
    )
    assert np.count_nonzero(layer.data.any((2, 3))) == 1
    assert session.viewer.layers["uncertainty"].data_to_world((0, 0, 0, 0)) == (1, 10, 0, 0)

    # Strokes on the result stay, and can be undone, as in a stack.
    said = layer.data[1, 2].copy()
    layer.data_setitem((np.ones(4, int), np.full(4, 2), np.arange(4), np.arange(4)), 1 + said[0, 0] % 3)
    step.slices.segment()
    qtbot.waitUntil(lambda: not step.slices.progress.is_under_way, timeout=60_000)
    changed = layer.data[1, 2] != said
    assert 0 < changed.sum() <= 4
    layer.undo()
    assert np.array_equal(layer.data[1, 2], said)

    # What is annotated is learned from at each time point.
    labels = session.annotation.new_labels(image)
    rows, columns = np.divmod(np.arange(400), 20)
    for time, section in ((0, 1), (1, 0), (1, 2)):
        place = np.full(400, time), np.full(400, section)
        labels.data_setitem((*place, rows + 10, columns + 5), 1)
        labels.data_setitem((*place, rows + 40, columns + 5), 2)
    settled(session)
    qtbot.waitUntil(lambda: session.labeled_images.problem is None, timeout=5000)
    run = Run.create(session.runs_folder / "learned")
    exported = session.labeled_images.export(run)
    assert [open_image(path).section(1)[0].tolist() for path in exported.images] == GRAY[:, 1].tolist()
    assert [open_image(path).scale for path in exported.images] == [(5, 2, 2)] * 2
    assert [np.count_nonzero(layer[0]) for layer in run_layers(run.path)[1::2]] == [800, 1600]

    # The dialog says which time point; its result lies there, and what is painted beside it is not lost.
    dialog = ApplyDialog(session)
    qtbot.addWidget(dialog)
    chosen = dialog.read()
    assert chosen.read == Selection(time_point=1) and "Time point 1 (from 0) of 2" in dialog.time_label.text()
    out, selection = session.runs_folder / "result.ome.zarr", Selection(time_point=1)
    predict_volume(small_model(), layer_stack(image, 1), out, PredictSettings())
    job = Run.create(session.runs_folder / "segmentation")
    write_job(job, PredictJob(model=job.path, image=tmp_path / "series.tif", out=out, selection=selection))
    job.report(Started(step="predict"))
    job.report(Finished(step="predict"))
    step.volume.attach(job)
    qtbot.waitUntil(lambda: step.volume.layer is not None, timeout=10_000)
    result = step.volume.layer
    assert result.name == "series segmentation time 1" and spatial_shape(result) == GRAY.shape
    assert np.array_equal(np.asarray(result.data[1, 2]), expected(small_model(), layer_stack(image, 1), 2))
    assert not np.asarray(result.data[0]).any()
    for time in (0, 1):
        session.viewer.dims.set_point(0, time)
        result.paint((time, 2, 30, 30), 3)
        assert result.data[time, 2, 30, 30] == 3
    result.undo()
    assert result.data[1, 2, 30, 30] != 3 or expected(small_model(), layer_stack(image, 1), 2)[30, 30] == 3

    # Found again later, it lies there, too.
    job = Run.create(session.runs_folder / "again")
    given = PredictJob(
        model=tmp_path / "model", image=tmp_path / "series.tif", out=out, selection=Selection(time_point=1)
    )
    write_job(job, given)
    job.report(Started(step="predict"))
    job.report(Finished(step="predict"))
    step.volume.attach(job)
    qtbot.waitUntil(lambda: step.volume.layer is not None, timeout=10_000)
    again = step.volume.layer
    assert again is not result and again.name.startswith("series segmentation time 1")
    assert not np.asarray(again.data[0]).any()
    assert np.array_equal(np.asarray(again.data[1, 2]), expected(small_model(), layer_stack(image, 1), 2))


@pytest.mark.parametrize(
    ("axes", "known"), [("ZYX", "zyx"), ("CYX", "cyx"), ("ZCYX", "czyx"), ("TCYX", "ctyx"), (None, None)]
)
def test_planes_are_asked_for_only_where_the_file_does_not_say(
    axes: str | None, known: str | None, session: Any, question: AxesQuestion, qtbot: Any, tmp_path: Path
) -> None:
    path = tmp_path / "planes.tif"
    pixels = np.moveaxis(GRAY, 0, 1) if axes in ("ZCYX", "TCYX") else GRAY[:, 0]
    about: dict[str, Any] = {"metadata": None} if axes is None else {"imagej": True, "metadata": {"axes": axes}}
    tifffile.imwrite(path, pixels, photometric="minisblack", **about)
    (image,) = session.viewer.open(path, plugin="napari")
    qtbot.waitUntil(lambda: not question.isHidden() or session.layers.images() == [image], timeout=5000)
    assert question.isHidden() == (known is not None)
    if known is not None:
        qtbot.waitUntil(lambda: axes_of(image) == known, timeout=5000)
        if "c" in known:
            assert image.data.shape[0] == 2 and image.axis_labels[0] == "channel"
            assert spatial_shape(session.annotation.new_labels(image)) == image.data.shape[1:]


@pytest.mark.parametrize("answer", ["cyx", "zyx"])
def test_two_planes_are_what_one_says(
    answer: str, session: Any, question: AxesQuestion, step: ApplyStep, settled: Any, qtbot: Any, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "two.tif", GRAY[:, 0], photometric="minisblack", metadata=None)
    (image,) = session.viewer.open(tmp_path / "two.tif", plugin="napari")
    qtbot.waitUntil(lambda: bool(question.buttons), timeout=5000)
    assert "'two' has 2 planes" in question.text.text() and "Say at the top" in str(session.labeled_images.problem)
    assert [button.text() for button in question.buttons.values()] == ["2 channels", "2 sections"]
    qtbot.mouseClick(question.buttons[answer], Qt.MouseButton.LeftButton)
    assert question.isHidden() and session.layers.images() == [image]
    session.annotation.follow_layers()
    assert question.isHidden(), "asked once"

    model = small_model(image_channels=2 if answer == "cyx" else 1)
    stack = image_from_array(GRAY[:, 0], channel_axis=0 if answer == "cyx" else None)
    segmented(step, model, qtbot)
    result = session.viewer.layers["segmentation of the slice"].data
    assert np.array_equal(result if answer == "cyx" else result[0], expected(model, stack, 0))

    labels = session.annotation.new_labels(image)
    where = (slice(5, 25), slice(5, 60)) if answer == "cyx" else (0, slice(5, 25), slice(5, 60))
    labels.data[where] = 1
    labels.data[where][10:] = 2
    labels.data = labels.data
    settled(session)
    qtbot.waitUntil(lambda: session.labeled_images.problem is None, timeout=5000)
    run = Run.create(session.runs_folder / "learned")
    exported = session.labeled_images.export(run)
    assert open_image(exported.images[0]).channels == model.description.image_channels
    (data, about, _), (target, shown, _) = run_layers(run.path)
    assert len(about["scale"]) == 3 and len(shown["scale"]) == target.ndim
    assert np.array_equal(np.asarray(data), GRAY[:, 0]) and target.shape == spatial_shape(image)
    assert (about["metadata"]["napari-autosegnet"]["axes"] if answer == "cyx" else "zyx") == answer
