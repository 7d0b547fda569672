"""Masks that napari opened as images, as annotation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

import tifffile
from napari.layers import Image, Labels
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel

from napari_autosegnet.errors import UserError
from napari_autosegnet.widgets.annotate.annotate_step import AnnotateStep
from napari_autosegnet.widgets.annotate.axes_question import AxesQuestion
from napari_autosegnet.widgets.annotate.mask_conversion import MaskDialog
from napari_autosegnet.widgets.annotate.mask_layer import MaskValues, find_values, read_mask, suggested_meaning
from napari_autosegnet.widgets.layers.class_colors import LabelClass
from napari_autosegnet.widgets.session import Session
from small_layers import gray

OPEN = threading.Event()


def mask(*shape: int, values: tuple[int, ...] = (0, 255)) -> np.ndarray:
    return np.random.default_rng(1).choice(np.array(values), shape)


@pytest.fixture
def dropped(make_napari_viewer: Callable[..., Any], qtbot: Any, tmp_path: Path) -> Any:
    """A step in a viewer onto which an image and its mask, both TIFFs, were dropped."""
    viewer = make_napari_viewer()
    pixels = mask(4, 48, 40).astype(np.uint8)
    tifffile.imwrite(tmp_path / "cells.tif", gray(4, 48, 40), imagej=True, metadata={"axes": "ZYX"})
    tifffile.imwrite(tmp_path / "cells_mask.tif", pixels, imagej=True, metadata={"axes": "ZYX"})
    for name in ("cells.tif", "cells_mask.tif"):
        viewer.open(str(tmp_path / name), plugin="napari")
    session = Session(viewer)
    step, question = AnnotateStep(session), AxesQuestion(session)
    for widget in (step, question):
        qtbot.addWidget(widget)
    step.show()
    qtbot.waitUntil(lambda: len(session.layers.images()) == 2, timeout=10_000)  # their files say what they are
    yield step, viewer, pixels
    step.release()
    session.close()


def asked(step: AnnotateStep, qtbot: Any) -> MaskDialog:
    qtbot.mouseClick(step.mask_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: step.findChild(MaskDialog) is not None, timeout=20_000)
    dialog = step.findChild(MaskDialog)
    assert isinstance(dialog, MaskDialog)
    return dialog


def test_a_dropped_mask_becomes_annotation(dropped: Any, qtbot: Any, settled: Any) -> None:
    step, viewer, pixels = dropped
    session = step.session
    viewer.layers["cells"].scale = viewer.layers["cells_mask"].scale = (30, 4, 4)
    viewer.layers["cells"].units = viewer.layers["cells_mask"].units = ("nm", "nm", "nm")
    viewer.layers["cells"].translate = viewer.layers["cells_mask"].translate = (60, 8, 8)
    settled(session)
    assert "Is 'cells_mask' a mask? Select it and press Use as annotation" in step.status.text()
    assert all(type(layer) is Image for layer in viewer.layers)
    viewer.layers.selection.active = viewer.layers["cells_mask"]
    dialog = asked(step, qtbot)
    assert {value: box.currentText() for value, box in dialog.boxes.items()} == {0: "class 0", 255: "class 255"}
    dialog.boxes[0].setCurrentText("membrane")
    dialog.boxes[255].setCurrentText(" cell")
    qtbot.mouseClick(dialog.use_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "is annotation now: 0 is membrane, 255 is cell" in step.message.text(), timeout=20_000)
    settled(session)
    assert [(type(layer), layer.name) for layer in viewer.layers] == [(Image, "cells"), (Labels, "cells_mask")]
    labels = viewer.layers["cells_mask"]
    painted = {each.name: each.value for each in session.annotation.label_classes}
    assert set(painted) == {"membrane", "cell"} and 0 not in painted.values(), "0 goes on meaning not annotated"
    assert np.array_equal(labels.data == painted["membrane"], pixels == 0)
    assert np.array_equal(labels.data == painted["cell"], pixels == 255)
    assert tuple(labels.scale) == (30, 4, 4) and tuple(labels.translate) == (60, 8, 8)
    assert [str(unit) for unit in labels.units] == ["nanometer"] * 3
    assert (
        session.annotation.pixels_of(painted["cell"]) == np.count_nonzero(pixels)
        and session.labeled_images.problem is None
    )
    assert [pair.image.name for pair in session.annotation.pairs()] == ["cells"]


def test_its_classes_are_matched_with_those_that_are_painted(dropped: Any, qtbot: Any, settled: Any) -> None:
    step, viewer, pixels = dropped
    session = step.session
    image = viewer.layers["cells"]
    own = viewer.add_labels(np.ones((4, 48, 40), np.uint8), name="own")
    session.annotation.choose_image(own, image)
    session.annotation.class_list.put([LabelClass(1, "cell", "#009e73"), LabelClass(2, "fat", "#e69f00")])
    settled(session)
    viewer.layers.selection.active = viewer.layers["cells_mask"]
    dialog = asked(step, qtbot)
    assert dialog.boxes[255].findText("fat") >= 0
    dialog.boxes[0].setCurrentText("not annotated")
    dialog.boxes[255].setCurrentText("cell")
    dialog.accept()
    qtbot.waitUntil(lambda: "is annotation now" in step.message.text(), timeout=20_000)
    settled(session)
    assert [(each.value, each.name) for each in session.annotation.label_classes] == [(1, "cell"), (2, "fat")]
    assert np.array_equal(viewer.layers["cells_mask"].data, pixels // 255)
    assert len(session.annotation.pairs()) == 2
    assert session.annotation.matching.refusal(viewer.layers["cells_mask"]) is None


def test_a_mask_without_a_place_of_its_own_lies_on_its_image(dropped: Any, qtbot: Any, settled: Any) -> None:
    step, viewer, _ = dropped
    viewer.layers["cells"].scale, viewer.layers["cells"].translate = (30, 4, 4), (60, 8, 8)
    viewer.layers.selection.active = viewer.layers["cells_mask"]
    settled(step.session)
    asked(step, qtbot).accept()
    qtbot.waitUntil(lambda: "is annotation now" in step.message.text(), timeout=20_000)
    labels = viewer.layers["cells_mask"]
    assert tuple(labels.scale) == (30, 4, 4) and tuple(labels.translate) == (60, 8, 8)


def test_what_is_no_mask_stays_what_it_is_and_is_told(dropped: Any, qtbot: Any, settled: Any) -> None:
    step, viewer, _ = dropped
    viewer.layers.selection.active = viewer.layers["cells"]
    settled(step.session)
    qtbot.mouseClick(step.mask_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "look like gray values" in step.message.text(), timeout=20_000)
    assert step.message.kind == "error" and "\n" not in step.message.text() and step.mask_button.isEnabled()
    alone = viewer.add_image(mask(2, 16, 16).astype(np.uint8), name="alone")
    viewer.layers.selection.active = alone
    qtbot.mouseClick(step.mask_button, Qt.MouseButton.LeftButton)
    assert "No other image is 2 x 16 x 16 as 'alone' is" in step.message.text()
    viewer.layers.selection.active = viewer.layers["cells_mask"]
    dialog = asked(step, qtbot)
    for box in dialog.boxes.values():
        box.setCurrentText("not annotated")
    dialog.accept()
    assert "No value is a class" in step.message.text()
    before = step.session.annotation.label_classes
    step.masks.use_mask(viewer.layers["cells_mask"], MaskValues({0: 1, 255: 1}), {0: None, 255: "a:b"})
    assert "holds a comma or colon" in step.message.text() and step.session.annotation.label_classes == before
    assert all(type(layer) is Image for layer in viewer.layers)


@pytest.mark.parametrize(
    ("pixels", "values"),
    [
        (mask(3, 8, 8).astype(bool), [0, 1]),
        (mask(3, 8, 8, values=(0, 1, 2)).astype(np.float32), [0, 1, 2]),
        (mask(8, 8, values=(0, 1000, 65535)).astype(np.uint16), [0, 1000, 65535]),
        (mask(2, 8, 8, values=(-1, 1)).astype(np.int16), [-1, 1]),
        (np.repeat(mask(8, 8, values=(0, 7)).astype(np.uint8)[..., np.newaxis], 3, axis=-1), [0, 7]),
    ],
)
def test_masks_of_every_kind_of_number(pixels: np.ndarray, values: list[int]) -> None:
    layer = Image(pixels, rgb=pixels.shape[-1] == 3)
    assert list(find_values(layer, OPEN).pixels) == values
    read = read_mask(layer, {values[-1]: 3}, OPEN)
    plain = pixels[..., 0] if layer.rgb else pixels
    assert read is not None and read.dtype == np.uint8
    assert np.array_equal(read, np.where(plain == values[-1], 3, 0))
    assert sum(find_values(layer, OPEN).pixels.values()) == plain.size


def test_a_mask_painted_in_colors(make_session: Any) -> None:
    """Red on black, and a section where nothing is painted."""
    pixels = np.zeros((2, 8, 8, 4), np.uint8)
    pixels[..., 3] = 255
    pixels[0, :2, :, 0] = 255
    layer = Image(pixels, rgb=True, name="painted")
    values = find_values(layer, OPEN)
    assert values.are_colors and values.pixels == {0: 112, 0xFF0000: 16}
    assert suggested_meaning(values, make_session().annotation.class_list) == {0: "#000000", 0xFF0000: "#ff0000"}
    read = read_mask(layer, {0: 1, 0xFF0000: 2}, OPEN, colors=True)
    assert read is not None and np.array_equal(read, 1 + (pixels[..., 0] > 0))


def test_strokes_that_were_erased_to_transparent_are_no_mask() -> None:
    """Their colors counted as painted, without a word."""
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4, :, 0], pixels[..., 3] = 200, 255
    layer = Image(pixels, rgb=True, name="drawn")
    assert find_values(layer, OPEN).pixels == {0: 32, 0xC80000: 32}
    pixels[2:4, :, 3] = 0
    with pytest.raises(UserError, match="'drawn' has transparent pixels of the color #c80000"):
        find_values(layer, OPEN)


@pytest.mark.parametrize(("steps", "rgb"), [(7, False), (7, True), (60, False)])
def test_values_along_soft_edges_are_the_nearest_class(make_session: Any, qtbot: Any, steps: int, rgb: bool) -> None:
    """Each became a class of its own, and more than 32 were refused."""
    ramp = np.clip(np.arange(400) - 200, 0, steps) * 255 // steps
    pixels = np.repeat(ramp[np.newaxis], 40, axis=0).astype(np.uint8)
    layer = Image(np.dstack([pixels] * 3) if rgb else pixels, rgb=rgb, name="soft")
    values = find_values(layer, OPEN)
    assert values.edges is not None and values.pixels == {0: int((pixels < 128).sum()), 255: int((pixels > 127).sum())}
    meaning = suggested_meaning(values, make_session().annotation.class_list)
    assert meaning == {0: "class 0", 255: "class 255"}
    dialog = MaskDialog("soft", values, meaning, [])
    qtbot.addWidget(dialog)
    assert any("edges are soft" in label.text() for label in dialog.findChildren(QLabel))
    read = read_mask(layer, {0: 1, 255: 2}, OPEN, edges=values.edges)
    assert read is not None and np.array_equal(read, 1 + (pixels > 127))


@pytest.mark.parametrize("steps", [7, 12])
def test_colors_along_soft_edges_are_the_nearest_class(steps: int) -> None:
    ramp = np.clip(np.arange(400) - 200, 0, steps) * 255 // steps
    pixels = np.zeros((40, 400, 3), np.uint8)
    pixels[..., 0], pixels[..., 2] = 255 - ramp, ramp
    layer = Image(pixels, rgb=True, name="soft")
    values = find_values(layer, OPEN)
    blue = pixels[..., 2] > 127
    assert values.are_colors and values.pixels == {0x0000FF: int(blue.sum()), 0xFF0000: int((~blue).sum())}
    read = read_mask(layer, {0xFF0000: 1, 0x0000FF: 2}, OPEN, colors=True, edges=values.edges)
    assert read is not None and np.array_equal(read, 1 + blue)


def test_a_lazy_pyramid_is_read_at_full_resolution(tmp_path: Path) -> None:
    import dask.array

    full = mask(2, 64, 64).astype(np.uint8)
    levels = [dask.array.from_array(full[:, ::step, ::step], chunks=(1, 16, 16)) for step in (1, 2)]
    layer = Image(levels, multiscale=True)
    assert find_values(layer, OPEN).pixels == {0: int((full == 0).sum()), 255: int((full == 255).sum())}
    assert np.array_equal(read_mask(layer, {255: 2}, OPEN), full // 255 * 2)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.full((8, 8), 0.5), "hold fractions"),
        (np.full((8, 8), np.nan), "holds no numbers"),
        (np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8), "more than 32 different colors"),
    ],
)
def test_images_are_refused_in_one_line(pixels: np.ndarray, words: str) -> None:
    with pytest.raises(UserError, match=words):
        find_values(Image(pixels, rgb=pixels.ndim == 3), OPEN)


def test_what_values_probably_mean(make_session: Any) -> None:
    classes = make_session().annotation.class_list
    assert suggested_meaning(MaskValues({0: 5, 255: 5}), classes) == {0: "class 0", 255: "class 255"}
    assert suggested_meaning(MaskValues({0: 5, 1: 5, 2: 5}), classes) == {0: None, 1: "class 1", 2: "class 2"}
    classes.put([LabelClass(1, "cell", "#009e73"), LabelClass(2, "fat", "#e69f00")])
    assert suggested_meaning(MaskValues({0: 5, 1: 5, 3: 5}), classes) == {0: None, 1: "cell", 3: "class 3"}
    assert suggested_meaning(MaskValues({-1: 5, 2: 5}), classes) == {-1: None, 2: "fat"}
