from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QCheckBox, QColorDialog, QComboBox, QFileDialog, QLabel

from napari_autosegnet.widgets.annotate.annotate_step import AnnotateStep
from napari_autosegnet.widgets.annotate.class_table import short_number


@pytest.fixture
def session(make_session: Any) -> Any:
    return make_session()


@pytest.fixture
def step(session: Any, qtbot: Any) -> Any:
    step = AnnotateStep(session)
    qtbot.addWidget(step)
    step.show()
    yield step
    step.release()


def stripes(*shape: int) -> np.ndarray:
    labels = np.ones(shape, np.uint8)
    labels[..., ::2] = 2
    return labels


def add_stack(session: Any, settled: Any, sections: int = 6) -> Any:
    session.viewer.add_image(np.zeros((sections, 48, 48), np.uint8), name="stack")
    labels = session.viewer.add_labels(stripes(sections, 48, 48), name="drawn")
    session.annotation.follow_layers()
    settled(session)
    return labels


def click(qtbot: Any, button: Any) -> None:
    assert button.isEnabled()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton, pos=button.rect().center())


def cell(step: AnnotateStep, row: int, column: int) -> str:
    item = step.table.item(row, column)
    assert item is not None
    return item.text()


def test_an_empty_viewer_says_what_to_do(step: AnnotateStep) -> None:
    assert "Open an image" in step.status.text() and step.status.isVisible()
    assert not step.next_button.isEnabled() and not step.new_button.isEnabled()


def test_from_an_image_to_the_next_step(step: AnnotateStep, session: Any, settled: Any, qtbot: Any) -> None:
    session.viewer.add_image(np.zeros((6, 48, 48), np.uint8), name="stack")
    session.annotation.follow_layers()
    click(qtbot, step.new_button)
    settled(session)
    labels = session.viewer.layers["stack annotation"]
    assert "Nothing is painted" in step.status.text()
    labels.data = stripes(6, 48, 48)
    settled(session)
    assert step.next_button.isEnabled() and step.status.kind == "good"
    with qtbot.waitSignal(session.step_finished) as finished:
        click(qtbot, step.next_button)
    assert finished.args == ["annotate"]


def test_counts_of_the_section_in_view_follow_the_slider(
    step: AnnotateStep, session: Any, settled: Any, qtbot: Any
) -> None:
    labels = add_stack(session, settled)
    data = labels.data.copy()
    data[3] = 0
    data[3, 0, :7] = 2
    labels.data = data
    settled(session)
    session.viewer.dims.set_point(0, 3)
    qtbot.waitUntil(lambda: cell(step, 1, 2) == "7")
    assert cell(step, 0, 2) == "0" and cell(step, 0, 4) == "5" and cell(step, 1, 4) == "6"
    counts = [each.text() for each in step.findChildren(QLabel) if each.text().endswith(" sections")]
    assert counts == ["6 of 6 sections"]


def test_a_click_on_a_class_takes_its_brush(step: AnnotateStep, session: Any, settled: Any, qtbot: Any) -> None:
    labels = add_stack(session, settled)
    session.viewer.layers.selection.active = session.viewer.layers["stack"]
    rectangle = step.table.visualItemRect(step.table.item(1, 1))
    qtbot.mouseClick(step.table.viewport(), Qt.MouseButton.LeftButton, pos=rectangle.center())
    assert session.viewer.layers.selection.active is labels
    assert labels.selected_label == 2 and labels.mode == "paint"


def test_classes_are_renamed_colored_added_and_removed(
    step: AnnotateStep, session: Any, settled: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = add_stack(session, settled)
    step.table.item(0, 1).setText("membrane")
    assert session.annotation.classes[0].name == "membrane"
    step.table.item(1, 1).setText("membrane")
    assert "two classes are called 'membrane'" in step.message.text() and step.message.kind == "error"
    assert cell(step, 1, 1) == "class 2"
    monkeypatch.setattr(QColorDialog, "getColor", lambda *_: QColor("#123456"))
    rectangle = step.table.visualItemRect(step.table.item(0, 0))
    qtbot.mouseClick(step.table.viewport(), Qt.MouseButton.LeftButton, pos=rectangle.center())
    assert session.annotation.classes[0].color == "#123456"
    assert labels.get_color(1) == pytest.approx([0x12 / 255, 0x34 / 255, 0x56 / 255, 1])
    assert not step.remove_button.isEnabled(), "two classes are the least"
    click(qtbot, step.add_button)
    assert [each.value for each in session.annotation.label_classes] == [1, 2, 3] and labels.selected_label == 3
    assert "Nothing is painted as 'class 3'" in step.status.text()
    click(qtbot, step.remove_button)
    assert [each.value for each in session.annotation.label_classes] == [1, 2]
    step.table.clearSelection()
    click(qtbot, step.add_button)
    step.table.clearSelection()
    click(qtbot, step.remove_button)
    assert "Choose the class to remove" in step.message.text()


def test_unpainted_can_be_a_class(step: AnnotateStep, session: Any, settled: Any, qtbot: Any) -> None:
    labels = add_stack(session, settled)
    labels.data = labels.data - 1  # 0 and 1 now
    settled(session)
    assert "'class 2'" in step.status.text()
    session.annotation.class_list.remove(2)
    step.zero_box.click()
    settled(session)
    assert [(each.value, each.name) for each in session.annotation.label_classes] == [(0, "background"), (1, "class 1")]
    assert step.next_button.isEnabled()
    step.zero_box.click()
    assert not session.annotation.class_list.zero_is_class


def test_layers_can_be_left_out_and_given_another_image(
    step: AnnotateStep, session: Any, settled: Any, qtbot: Any
) -> None:
    labels = add_stack(session, settled)
    other = session.viewer.add_image(np.ones((6, 48, 48), np.uint8), name="same size")
    session.annotation.follow_layers()
    qtbot.wait(20)
    (box,) = [found for found in step.findChildren(QComboBox) if found.isVisible()]
    assert box.currentText() == "on stack"
    box.activated.emit(1)
    assert session.layers.image_of(labels) is other
    qtbot.wait(20)  # the old row goes later
    (use,) = [found for found in step.findChildren(QCheckBox) if found.text() == "drawn"]
    use.click()
    assert session.annotation.pairs() == [] and "annotation layer" in step.status.text()
    qtbot.wait(20)
    labels.name = "a name that is much longer than a narrow dock can show"
    qtbot.waitUntil(lambda: any(found.text().startswith("a name that") for found in step.findChildren(QCheckBox)))
    (use,) = [found for found in step.findChildren(QCheckBox) if found.text().startswith("a name that")]
    assert len(use.text()) < 40 and labels.name in use.toolTip()


def test_annotation_is_saved_and_loaded(
    step: AnnotateStep, session: Any, settled: Any, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_stack(session, settled)
    step.table.item(0, 1).setText("membrane")
    folder = tmp_path / "kept"
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    click(qtbot, step.save_button)
    qtbot.waitUntil(lambda: step.message.kind == "good", timeout=10_000)
    session.viewer.layers.clear()
    settled(session)
    click(qtbot, step.load_button)
    qtbot.waitUntil(lambda: len(session.viewer.layers) == 2, timeout=10_000)
    settled(session)
    assert session.labeled_images.problem is None and session.annotation.classes[0].name == "membrane"
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    click(qtbot, step.load_button)
    qtbot.waitUntil(lambda: "holds no annotation" in step.message.text(), timeout=10_000)
    (folder / "annotation" / "annotation.json").write_text("{")
    step.load(folder)
    qtbot.waitUntil(lambda: "cannot be read" in step.message.text(), timeout=10_000)
    (tmp_path / "file").write_text("")
    step.save(tmp_path / "file")
    qtbot.waitUntil(lambda: "is not a folder" in step.message.text(), timeout=10_000)
    assert step.message.kind == "error" and "\n" not in step.message.text()


@pytest.mark.parametrize(
    ("dtype", "shape"), [("uint8", (64, 64, 3)), ("uint8", (2, 64, 64, 4)), ("float32", (64, 64, 3))]
)
def test_color_images_are_saved_and_loaded(
    dtype: str, shape: tuple[int, ...], step: AnnotateStep, session: Any, settled: Any, qtbot: Any, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).random(shape).astype(np.float32)
    pixels = (255 * pixels).astype(np.uint8) if dtype == "uint8" else pixels
    session.viewer.add_image(pixels, rgb=True, name="photo")
    session.viewer.add_labels(stripes(*shape[:-1]))
    session.annotation.follow_layers()
    settled(session)
    step.save(tmp_path / "run")
    qtbot.waitUntil(lambda: step.message.kind != "info", timeout=10_000)
    assert step.message.kind == "good", step.message.text()
    session.viewer.layers.clear()
    settled(session)
    step.load(tmp_path / "run")
    qtbot.waitUntil(lambda: step.message.kind != "info", timeout=10_000)
    assert step.message.kind == "good", step.message.text()
    image, _ = session.viewer.layers
    assert image.rgb and np.array_equal(np.asarray(image.data), pixels[..., :3])
    settled(session)
    assert session.labeled_images.problem is None


def test_whatever_goes_wrong_is_told(
    step: AnnotateStep, session: Any, settled: Any, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_autosegnet.widgets.files import run_layers as readers

    def fail(*_: Any) -> None:
        raise ValueError("the disk\nis made of cheese")

    add_stack(session, settled)
    monkeypatch.setattr(type(session.labeled_images), "export", fail)
    step.save(tmp_path / "run")
    qtbot.waitUntil(lambda: "cannot be saved" in step.message.text(), timeout=10_000)
    monkeypatch.setattr(readers, "run_layers", fail)
    step.load(tmp_path / "run")
    qtbot.waitUntil(lambda: "cannot be loaded (ValueError: the disk)" in step.message.text(), timeout=10_000)
    monkeypatch.setattr(readers, "run_layers", lambda _: [(None, {"no": "such"}, "image")])
    step.load(tmp_path / "run")
    qtbot.waitUntil(lambda: "cannot be shown" in step.message.text(), timeout=10_000)
    assert step.message.kind == "error"


def test_a_class_is_chosen_with_the_keyboard(step: AnnotateStep, session: Any, settled: Any, qtbot: Any) -> None:
    labels = add_stack(session, settled)
    step.table.setCurrentCell(0, 0)
    qtbot.keyClick(step.table, Qt.Key.Key_Down)
    assert session.viewer.layers.selection.active is labels
    assert labels.selected_label == 2 and labels.mode == "paint" and step.table.chosen_value() == 2
    qtbot.keyClick(step.table, Qt.Key.Key_Up)
    assert labels.selected_label == 1
    for key in (Qt.Key.Key_Space, Qt.Key.Key_Return):
        labels.mode, labels.selected_label = "pan_zoom", 9
        qtbot.keyClick(step.table, key)
        assert labels.selected_label == 1 and labels.mode == "paint"
        assert cell(step, 0, 1) == "class 1" and step.table.state() == step.table.State.NoState


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (9999, "9999"),
        (10_000, "10k"),
        (83_312, "83.3k"),
        (999_600, "1M"),
        (4_123_456, "4.12M"),
        (10**12, "1T"),
    ],
)
def test_numbers_are_short(number: int, text: str) -> None:
    assert short_number(number) == text
