"""Numbered objects of other programs: asked about, not taken for classes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from napari.layers import Labels

from napari_autosegnet.widgets.annotate.annotate_step import AnnotateStep
from napari_autosegnet.widgets.annotate.mask_layer import read_one_class


@pytest.fixture
def step(qtbot: Any, make_session: Callable[..., Any]) -> Any:
    session = make_session()
    gray = np.random.default_rng(0).integers(0, 255, (3, 96, 96), np.uint8)
    session.viewer.add_image(gray, name="cells", scale=(2.0, 1.0, 1.0))
    step = AnnotateStep(session)
    qtbot.addWidget(step)
    yield step
    step.release()


def objects(number: int, apart: int = 4) -> npt.NDArray[np.uint16]:
    """Squares with numbers in the first two of three sections; side by side in the first where none is between them."""
    found = np.zeros((3, 96, 96), np.uint16)
    size, across = 8, 96 // (8 + apart)
    for index in range(number):
        y, x = (size + apart) * (index // across), (size + apart) * (index % across)
        found[index % 2 if apart else 0, y : y + size, x : x + size] = index + 1
    return found


@pytest.mark.parametrize(
    ("number", "apart", "as_image"),
    [(12, 4, False), (12, 4, True), (12, 0, False), (12, 0, True), (40, 4, False), (300, 0, False)],
)
def test_objects_become_one_class(number: int, apart: int, as_image: bool, step: Any, settled: Any, qtbot: Any) -> None:
    session = step.session
    pixels = (
        objects(number, apart) if number < 100 else np.arange(3 * 96 * 96).reshape(3, 96, 96).astype(np.int32) % number
    )
    pixels[2] = 0
    add = session.viewer.add_image if as_image else session.viewer.add_labels
    masks = add(pixels, name="masks", scale=(2.0, 1.0, 1.0))
    settled(session)
    if as_image:
        session.viewer.layers.selection.active = masks
        step.mask_button.click()
        settled(session)
        qtbot.waitUntil(lambda: not step.objects_button.isHidden(), timeout=20_000)
        masks = session.viewer.layers["masks"]
    assert step.status.text().startswith("'masks' has ") and "objects" in step.status.text()
    assert not step.objects_button.isHidden() and not step.next_button.isEnabled()
    assert step.table.isHidden() and step.add_button.isHidden(), "the question, and no class for each object"
    assert step.classes_button.isHidden() == (number > 32)
    step.objects_button.click()
    settled(session)
    settled(session)
    (pair,) = session.annotation.pairs()
    names = {each.value: each.name for each in session.annotation.label_classes}
    assert list(names.values()) == ["background", "object"] and not session.annotation.class_list.zero_is_class
    found = np.vectorize(lambda value: names.get(value, ""))(pair.labels.data)
    assert np.array_equal(found == "object", pixels > 0)
    seen = pixels.any((1, 2))
    assert (found[seen][pixels[seen] == 0] == "background").all() and (found[~seen] == "").all(), "nobody saw the rest"
    assert pair.labels.name == "masks as one class" and tuple(pair.labels.scale) == (2.0, 1.0, 1.0)
    assert not step.table.isHidden() and not step.add_button.isHidden()
    assert (
        session.labeled_images.problem is None
        and step.objects_button.isHidden()
        and "one class now" in step.message.text()
    )
    assert not masks.visible and masks in session.viewer.layers and np.array_equal(masks.data, pixels)


def test_objects_of_a_time_series_stay_in_their_sections() -> None:
    pixels = np.zeros((2, 3, 16, 16), np.uint16)
    pixels[0, 1, 2:5, 2:5], pixels[1, 2, 8:12, 8:12] = 1, 2
    wanted = np.where(pixels > 0, 2, 1) * pixels.any((2, 3), keepdims=True)
    assert np.array_equal(read_one_class(Labels(pixels), {0: 1, 1: 2}, threading.Event()), wanted)


def test_classes_stay_classes(step: Any, settled: Any) -> None:
    session = step.session
    # Said to be classes.
    masks = session.viewer.add_labels(objects(12), name="masks")
    settled(session)
    assert step.classes_button.text() == "12 classes"
    step.classes_button.click()
    settled(session)
    assert step.objects_button.isHidden() and len(session.annotation.label_classes) == 12
    assert "numbered objects" not in (session.labeled_images.problem or "")
    session.viewer.layers.remove(masks)
    settled(session)
    # Values that touch and are in pieces, a few values, and values that somebody made classes of are not asked about.
    in_pieces = objects(12, apart=0)
    in_pieces[0, 60:64, 60:64] = 5
    for pixels in (in_pieces, objects(6)):
        layer = session.viewer.add_labels(pixels)
        settled(session)
        assert session.labeled_images.numbered_objects() is None
        assert len(session.annotation.label_classes) == pixels.max()
        session.viewer.layers.remove(layer)
        settled(session)
    drawn = session.annotation.new_labels(session.viewer.layers["cells"])
    for _ in range(10):
        session.annotation.class_list.add()
    drawn.data = objects(12).astype(np.uint8)
    settled(session)
    assert session.labeled_images.numbered_objects() is None


def test_what_touches_across_the_strips_that_are_counted(
    step: Any, settled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_autosegnet.widgets.annotation.pixel_counter._STRIP", 8 * 96)
    session = step.session
    pixels = np.zeros((3, 96, 96), np.uint8)
    for index in range(12):
        pixels[0, 8 * index : 8 * index + 8, :40] = pixels[0, 8 * index : 8 * index + 8, 56:] = index + 1
    session.viewer.add_labels(pixels)
    settled(session)
    assert session.labeled_images.numbered_objects() is None and len(session.annotation.label_classes) == 12
