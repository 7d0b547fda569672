"""Neither a stroke nor a new result is hidden by what the program shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from napari_autosegnet.data.annotations import default_classes
from napari_autosegnet.widgets.apply.uncertainty import Place, go_to
from napari_autosegnet.widgets.layers.section_layers import show_labels, show_slice, show_uncertainty

CLASSES = default_classes(["wall", "cell"])
ONES = np.ones((32, 32), np.uint8)


@pytest.fixture
def session(make_session: Any) -> Any:
    session = make_session()
    session.viewer.add_image(np.zeros((2, 32, 32), np.uint8), name="stack")
    session.annotation.follow_layers()
    return session


def names(session: Any) -> list[str]:
    return [layer.name for layer in session.viewer.layers]


def segment(session: Any, image: str = "stack") -> Any:
    """What the button does: the result, its uncertainty, and who painted paints on."""
    viewer = session.viewer
    active = viewer.layers.selection.active
    shown = show_slice(viewer, viewer.layers[image], 0, ONES, CLASSES)
    unsure = show_uncertainty(viewer, viewer.layers[image], 0, ONES.astype(np.float32))
    viewer.layers.selection.active = active
    return session.annotation.order.put(shown, unsure)


@pytest.mark.parametrize("brush", [True, False])
def test_strokes_lie_above_the_result(session: Any, settled: Any, brush: bool) -> None:
    labels = session.annotation.new_labels(session.viewer.layers["stack"])
    labels.paint((0, 5, 5), 1)
    labels.mode = "paint" if brush else "pan_zoom"
    settled(session)
    for _ in range(2):
        assert segment(session) is None
        assert names(session) == ["stack", "segmentation of the slice", "uncertainty", "stack annotation"]
        assert session.viewer.layers.selection.active is labels
    passing = show_labels(session.viewer, session.viewer.layers["stack"], 0, ONES, CLASSES, "training preview")
    session.annotation.order.put(passing)
    assert names(session)[-2:] == ["training preview", "stack annotation"]


def test_full_annotation_does_not_hide_the_result_until_the_brush_is_taken(
    session: Any, settled: Any, qtbot: Any
) -> None:
    full = session.viewer.add_labels(np.ones((2, 32, 32), np.uint8), name="full")
    settled(session)
    assert segment(session) is None
    assert names(session) == ["stack", "full", "segmentation of the slice", "uncertainty"]
    full.mode = "paint"
    qtbot.waitUntil(lambda: names(session)[-1] == "full", timeout=2000)
    assert segment(session) is full, "and then it is said what hides the result"
    assert names(session)[-1] == "full"


def test_whatever_the_brush_is_taken_for_comes_to_the_top(session: Any, settled: Any, qtbot: Any) -> None:
    viewer = session.viewer
    labels = session.annotation.new_labels(viewer.layers["stack"])
    settled(session)
    segment(session)
    go_to(viewer, viewer.layers["stack"], Place(0, 10, 10, 0.5))
    result = viewer.layers["segmentation of the slice"]
    result.mode = "fill"
    viewer.layers.selection.active = result
    qtbot.waitUntil(lambda: names(session)[-2] == "segmentation of the slice", timeout=2000)
    assert names(session)[-1] == "least certain place", "the frame stays above all"
    viewer.layers.selection.active = labels
    qtbot.waitUntil(lambda: names(session)[-2] == "stack annotation", timeout=2000)
    before = names(session)
    labels.mode = "pan_zoom"
    viewer.layers.selection.active = result
    result.mode = "pan_zoom"
    qtbot.wait(20)
    assert names(session) == before, "a layer that is only looked at stays where it is"


def test_annotation_of_other_images_stays_where_it_is(session: Any, settled: Any) -> None:
    viewer = session.viewer
    session.annotation.new_labels(viewer.layers["stack"]).mode = "pan_zoom"
    viewer.add_image(np.zeros((32, 32), np.uint8), name="flat")
    settled(session)
    segment(session, "flat")
    assert names(session) == ["stack", "stack annotation", "flat", "segmentation of the slice", "uncertainty"]


def test_the_brush_is_taken_for_the_annotation_of_an_image(session: Any, settled: Any) -> None:
    from napari_autosegnet.errors import UserError

    image = session.viewer.layers["stack"]
    labels = session.annotation.take_brush(image)
    labels.visible, labels.mode = False, "pan_zoom"
    session.viewer.layers.selection.active = image
    assert session.annotation.take_brush(image) is labels and labels.visible and labels.mode == "paint"
    assert session.viewer.layers.selection.active is labels
    settled(session)
    session.annotation.class_list.set_zero_is_class(True)
    other = session.viewer.add_image(np.zeros((16, 16), np.uint8), name="other")
    settled(session)
    with pytest.raises(UserError, match="'other' has no annotation yet"):
        session.annotation.take_brush(other)
