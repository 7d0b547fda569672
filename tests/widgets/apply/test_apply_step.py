from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDockWidget, QLineEdit, QMainWindow

from apply_steps import expected, idle, use_run
from napari_autosegnet.data.gray_match import GrayValues
from napari_autosegnet.data.gray_values import section_gray
from napari_autosegnet.model import Model
from napari_autosegnet.run import Run
from napari_autosegnet.settings import PredictSettings
from napari_autosegnet.widgets.apply import section_model, uncertainty
from napari_autosegnet.widgets.apply.apply_step import ApplyStep
from napari_autosegnet.widgets.layers import layer_arrays
from napari_autosegnet.widgets.layers.notes import role
from napari_autosegnet.widgets.layers.section_layers import what_was_said
from small_models import small_model
from windows import activate


def test_gray_values_unlike_the_model_s_are_refused_until_somebody_insists(
    step: ApplyStep, run: Run, stack: np.ndarray, qtbot: Any
) -> None:
    model = small_model()
    seen = GrayValues.of([section_gray(section[np.newaxis]) for section in stack], np.uint8)
    normalization = model.normalization.model_copy(update={"seen": seen})
    Model(model.description.model_copy(update={"normalization": normalization}), model.weights).save(run.model_folder)
    viewer = step.session.viewer
    use_run(step, run, qtbot)

    def segmented(name: str, data: np.ndarray) -> str:
        viewer.layers.clear()
        layer = viewer.add_image(data, name=name)
        viewer.dims.set_point(0, 1)
        step.session.annotation.follow_layers()
        viewer.layers.selection.active = layer
        step.slices.segment()
        idle(step, qtbot)
        text = step.message.text()
        shown = [each.name for each in viewer.layers if each is not layer and role(each) is not None]
        return f"{text}|{len(shown)}"

    assert segmented("as it was", stack) == "|2" and not step.slices.as_is_box.isVisible()
    told = segmented("16 bits", stack.astype(np.uint16) * 257)
    assert told == (
        "The gray values (uint16) are those of the model's images (uint8) times 257; they are scaled back|2"
    )
    strange = (stack.astype(np.float32) - 128) / 70
    told = segmented("strange", strange)
    assert told.endswith("(--gray-values as-is)|0") and "The gray values of strange are unlike those" in told
    assert step.slices.as_is_box.isVisible()
    step.slices.as_is_box.setChecked(True)
    # All of it lies within a small part of the model's range.
    assert segmented("strange", strange) == "This section shows next to nothing, so the labels mean little|2"
    told = segmented("empty", np.full_like(stack, 9))
    assert "this section has one gray value throughout" in told.lower()
    step.set_model(run.path)
    assert not step.slices.as_is_box.isVisible() and not step.slices.as_is_box.isChecked()


def test_without_a_model_the_step_says_so(step: ApplyStep, run: Run, qtbot: Any) -> None:
    assert "no model yet" in step.model_label.text()
    for button in (
        step.slices.slice_button,
        step.slices.place_button,
        step.stack_button,
        step.take_button,
        step.next_button,
    ):
        assert not button.isEnabled()
    use_run(step, run, qtbot)
    assert "first" in step.model_label.text()
    assert "Quality 0.81, checked on 1,240 pixels of 3 sections." in step.model_label.text()
    for button in (step.slices.slice_button, step.slices.place_button, step.stack_button, step.next_button):
        assert button.isEnabled()
    step.session.run = None
    assert "no model yet" in step.model_label.text()


def test_a_quality_of_a_few_pixels_is_not_known(step: ApplyStep, run: Run, qtbot: Any) -> None:
    checked = {"mean_iou": 0.72, "iou": {"a": 1.0, "b": 0.0}, "pixels": {"a": 3000, "b": 37}, "sections": 1}
    small_model().with_(metrics={"validation": checked}).save(run.model_folder)
    use_run(step, run, qtbot)
    text = step.model_label.text()
    assert "0.72" not in text and "Quality not known yet: checked on 3,037 pixels of 1 section: 37 of" in text
    assert "<b>Warning:</b> it finds nothing of &#x27;b&#x27;" in text


def test_a_model_that_cannot_be_read_is_one_line(step: ApplyStep, run: Run, qtbot: Any, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.json").write_text("{")
    step.set_model(tmp_path / "broken")
    qtbot.waitUntil(lambda: "no model that can be read" in step.message.text(), timeout=10_000)
    assert "\n" not in step.message.text() and step.model is None
    use_run(step, run, qtbot)
    (run.model_folder / "weights.safetensors").write_bytes(b"x" * 100)
    step.slices.segment()
    idle(step, qtbot)
    assert step.message.kind == "error" and "damaged" in step.message.text() and "\n" not in step.message.text()


def test_the_slice_in_view_is_segmented(step: ApplyStep, run: Run, qtbot: Any, stack: np.ndarray) -> None:
    viewer = step.session.viewer
    use_run(step, run, qtbot)
    viewer.dims.set_point(0, 150)
    step.slices.segment()
    assert not step.slices.slice_button.isEnabled()
    idle(step, qtbot)
    labels, unsure = viewer.layers["segmentation of the slice"], viewer.layers["uncertainty"]
    assert np.array_equal(labels.data[1], expected(stack, 1)) and not labels.data[[0, 2]].any()
    assert tuple(labels.translate) == (100, 8, 8) and tuple(labels.scale) == (50, 4, 4)
    assert unsure.data.shape == (1, 96, 96) and 0 < unsure.data.max() <= 1
    viewer.dims.set_point(0, 200)
    step.slices.unsure_box.setChecked(False)
    step.slices.segment()
    idle(step, qtbot)
    for section in (1, 2):
        assert np.array_equal(labels.data[section], expected(stack, section)), "the slice before is kept"
    assert tuple(unsure.translate) == (150, 8, 8)
    viewer.add_points(np.zeros((1, 3)))  # now the slider reaches beyond the stack
    viewer.layers.selection.active = viewer.layers["stack"]
    viewer.dims.set_point(0, 0)
    step.slices.segment()
    assert "outside of 'stack'" in step.message.text()


def test_corrections_outlive_every_press_of_the_button(step: ApplyStep, run: Run, qtbot: Any) -> None:
    viewer = step.session.viewer
    use_run(step, run, qtbot)

    def press(section: int) -> None:
        viewer.dims.set_point(0, 100 + 50 * section)
        qtbot.mouseClick(step.slices.slice_button, Qt.MouseButton.LeftButton)
        idle(step, qtbot)

    press(1)
    layer = viewer.layers["segmentation of the slice"]
    said = layer.data[1].copy()
    layer.brush_size = 5
    wrong = 1 + said[40, 40] % 3
    viewer.layers.selection.active = layer
    layer.mode = "paint"
    layer.paint((1, 40, 40), wrong)
    painted = layer.data[1] != said
    assert painted.any()
    for section in (1, 2, 1):
        press(section)
        assert np.array_equal(layer.data[1], np.where(painted, wrong, said))
    qtbot.waitUntil(lambda: f"{painted.sum()} pixels are corrected" in step.corrected_label.text(), timeout=5000)
    viewer.layers.remove(layer)
    qtbot.waitUntil(lambda: "come back with the next one" in step.corrected_label.text(), timeout=5000)
    press(1)
    layer = viewer.layers["segmentation of the slice"]
    assert np.array_equal(layer.data[1], np.where(painted, wrong, said))
    qtbot.waitUntil(lambda: "come back" not in step.corrected_label.text(), timeout=5000)

    # A network that was trained on says something else around them.
    small_model("unet").save(run.model_folder)
    press(1)
    assert (layer.data[1][painted] == wrong).all() and not np.array_equal(layer.data[1][~painted], said[~painted])
    wanted = painted & (what_was_said(layer)[1] != wrong)  # the rest it says itself now
    qtbot.waitUntil(step.take_button.isEnabled, timeout=5000)
    qtbot.mouseClick(step.take_button, Qt.MouseButton.LeftButton)
    annotation = step.session.annotation.pairs()[0].labels
    assert wanted.any() and np.array_equal(annotation.data[1] != 0, wanted) and step.corrections.pixels == 0


@pytest.mark.parametrize("way", ["rolled", "3D"])
def test_a_view_from_the_side_is_not_segmented(way: str, step: ApplyStep, run: Run, qtbot: Any) -> None:
    viewer = step.session.viewer
    use_run(step, run, qtbot)
    if way == "rolled":
        viewer.dims.order = (1, 0, 2)
    else:
        viewer.dims.ndisplay = 3
    for ask in (step.slices.segment, step.slices.go_to_least_certain):
        step.message.clear()
        ask()
        assert not step.slices.progress.is_under_way and "y and x are shown" in step.message.text()
    assert len(viewer.layers) == 1


def test_the_model_of_another_run_is_not_used(step: ApplyStep, run: Run, qtbot: Any, runs_folder: Path) -> None:
    use_run(step, run, qtbot)
    second = Run.create(runs_folder / "second")
    small_model().save(second.model_folder)
    busy = threading.Event()
    step.session.background.call(lambda: busy.wait(20), lambda _: None)
    step.session.run = second
    assert step.model is None and not step.slices.slice_button.isEnabled() and "Reading" in step.model_label.text()
    qtbot.waitUntil(lambda: step.model is not None, timeout=10_000)
    assert step.session.background.is_busy and step.model.path == second.model_folder
    busy.set()


def test_an_unforeseen_error_leaves_the_buttons_alive(
    step: ApplyStep, run: Run, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_run(step, run, qtbot)

    def fail(*_: Any) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(step.slices.section_model, "predict", fail)
    with qtbot.captureExceptions() as raised:
        step.slices.segment()
        qtbot.waitUntil(lambda: bool(raised), timeout=10_000)
    assert step.slices.slice_button.isEnabled() and step.slices.place_button.isEnabled()
    assert step.message.kind == "error" and "too little memory was free" in step.message.text().lower()


def test_an_image_that_does_not_fit_the_model_is_one_line(step: ApplyStep, run: Run, qtbot: Any) -> None:
    use_run(step, run, qtbot)
    step.session.viewer.layers.clear()
    step.session.viewer.add_image(np.zeros((64, 64, 3), np.uint8), rgb=True, name="photo")
    step.session.annotation.follow_layers()
    step.slices.segment()
    idle(step, qtbot)
    assert (
        step.message.kind == "error"
        and "trained on images with 1" in step.message.text()
        and "\n" not in step.message.text()
    )


def test_the_least_certain_places_by_keys_and_buttons(step: ApplyStep, run: Run, qtbot: Any) -> None:
    viewer, camera = step.session.viewer, step.session.viewer.scene.camera
    use_run(step, run, qtbot)
    viewer.dims.set_point(0, 150)
    activate(step, qtbot)

    def press(key: Any, modifier: Any = Qt.KeyboardModifier.NoModifier) -> tuple[float, ...]:
        qtbot.keyClick(step, key, modifier)
        idle(step, qtbot)
        return camera.center

    assert not step.slices.back_button.isEnabled()
    first = press(Qt.Key.Key_F3)
    first_frame = viewer.layers[uncertainty.MARKER]
    second = press(Qt.Key.Key_F3)
    assert first != second and step.slices.place_button.text() == "Next uncertain place"
    active, image = viewer.layers.selection.active, viewer.layers["stack"]
    assert active.name == "stack annotation" and active.mode == "paint", "where the tutorial says that one paints"
    assert "in 'stack annotation'" in step.message.text() and "F3: next" in step.message.text()

    viewer.dims.set_point(0, 100)
    assert press(Qt.Key.Key_F3, Qt.KeyboardModifier.ShiftModifier) == first and viewer.dims.point[0] == 150
    assert not step.slices.back_button.isEnabled()
    qtbot.mouseClick(step.slices.place_button, Qt.MouseButton.LeftButton)
    assert camera.center == second and len(step.slices.places[image]) == 2, "what was shown comes again after Previous"
    qtbot.mouseClick(step.slices.back_button, Qt.MouseButton.LeftButton)
    assert camera.center == first

    # What is to be looked at is not covered, and the frame is seen on dark and on bright images.
    (frame,) = (layer for layer in viewer.layers if layer.name == uncertainty.MARKER)
    assert frame is viewer.layers[-1] and not frame.face_color[:, 3].any()
    assert frame is first_frame, "it is moved: a new layer of shapes would stop the window for a third of a second"
    assert np.allclose(frame.data_to_world(np.mean(frame.data[1], axis=0))[-2:], camera.center[-2:])
    assert [color[:3].mean() > 0.5 for color in frame.edge_color] == [False, True]
    results = [viewer.layers["segmentation of the slice"], viewer.layers["uncertainty"]]
    assert [layer.opacity for layer in results] == [0.2, 0.2]
    step.slices.segment()
    idle(step, qtbot)
    assert [layer.opacity for layer in results] == [0.6, 0.9]


def test_the_keys_work_while_the_dock_floats(session: Any, run: Run, qtbot: Any) -> None:
    window, canvas = QMainWindow(), QLineEdit()
    window.setCentralWidget(canvas)
    qtbot.addWidget(window)
    step = ApplyStep(session)
    frame = QDockWidget(window)
    frame.setWidget(step)
    window.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, frame)
    window.show()
    use_run(step, run, qtbot)
    pressed: list[str] = []
    step.slices.place_button.clicked.connect(lambda: pressed.append("F3"))
    for floating in (False, True):
        frame.setFloating(floating)
        for focused in (canvas, step.slices.slice_button):
            activate(focused.window(), qtbot)
            focused.setFocus()
            qtbot.keyClick(focused, Qt.Key.Key_F3)
            idle(step, qtbot)
    assert len(pressed) == 4
    frame.hide()
    qtbot.keyClick(canvas, Qt.Key.Key_F3)
    step.release()
    assert len(pressed) == 4, "not of a step that is out of sight"


def test_a_slice_that_is_cancelled_leaves_the_layers_as_they_were(
    step: ApplyStep, run: Run, qtbot: Any, stack: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = PredictSettings(engine="channels_last", tile=64, halo=16, batch_size=1)
    monkeypatch.setattr(section_model, "SECTION_SETTINGS", settings)
    use_run(step, run, qtbot)
    viewer, progress = step.session.viewer, step.slices.progress
    viewer.dims.set_point(0, 150)
    step.slices.segment()
    idle(step, qtbot)
    assert progress.bar.maximum() == 4 and not progress.isVisible(), "tile by tile"
    shown = {layer.name: np.array(layer.data) for layer in viewer.layers}

    # Also while the model is loaded, or the gray values of the image are read, which nothing interrupts.
    gates = {each: threading.Event() for each in ("load", "read")}
    load = Model.load
    reads: list[int] = []

    def slow_load(path: Path) -> Model:
        gates["load"].wait(20)
        return load(path)

    class SlowArray:
        shape, dtype, ndim = stack.shape, stack.dtype, 3

        def __getitem__(self, key: Any) -> np.ndarray:
            reads.append(len(reads))
            gates["read"].wait(20)
            return stack[key]

    model = small_model()
    seen = GrayValues.of([section_gray(section[np.newaxis]) for section in stack], np.uint8)
    normalization = model.normalization.model_copy(update={"seen": seen})
    Model(model.description.model_copy(update={"normalization": normalization}), model.weights).save(run.model_folder)
    monkeypatch.setattr(Model, "load", slow_load)
    monkeypatch.setattr(
        layer_arrays, "full_resolution", lambda layer: SlowArray() if layer.name == "stack" else layer.data
    )
    for ask, gate in ((step.slices.segment, gates["load"]), (step.slices.go_to_least_certain, gates["read"])):
        viewer.dims.set_point(0, 200)
        ask()
        qtbot.waitUntil(progress.isVisible, timeout=5000)
        qtbot.waitUntil(lambda gate=gate: bool(reads) or gate is gates["load"], timeout=5000)
        qtbot.mouseClick(progress.cancel_button, Qt.MouseButton.LeftButton)
        assert "Cancelled" in step.message.text() and not progress.isVisible() and step.slices.slice_button.isEnabled()
        gate.set()
        assert [layer.name for layer in viewer.layers] == [*shown]
        assert all(np.array_equal(viewer.layers[name].data, data) for name, data in shown.items())
    viewer.dims.set_point(0, 100)
    step.slices.segment()
    idle(step, qtbot)
    labels = viewer.layers["segmentation of the slice"].data
    assert labels[0].all() and not labels[2].any(), "what was cancelled comes to nothing"
