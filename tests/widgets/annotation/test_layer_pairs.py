from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from napari_autosegnet.widgets.layers.notes import METADATA
from napari_autosegnet.widgets.layers.view import section_in_view
from small_layers import gray, painted


def test_pairs_follow_the_viewer(make_session: Any, qtbot: Any) -> None:
    session = make_session()
    viewer = session.viewer
    first, second = viewer.add_image(gray(32, 32), name="a"), viewer.add_image(gray(32, 32), name="b")
    labels = viewer.add_labels(painted(32, 32), name="drawn")
    with qtbot.waitSignal(session.annotation.pairs_changed):
        pass
    assert [pair.name for pair in session.annotation.pairs()] == ["b / drawn"]
    with qtbot.waitSignal(session.annotation.pairs_changed):
        labels.name = "by hand"
    assert [pair.name for pair in session.annotation.pairs()] == ["b / by hand"]
    with qtbot.waitSignal(session.annotation.pairs_changed):
        viewer.layers.move(2, 1)  # between the two images: only the order of drawing changes
    assert session.annotation.pairs()[0].image is second
    session.annotation.choose_image(labels, first)
    assert session.annotation.pairs()[0].image is first
    session.annotation.choose_image(labels, second)
    with qtbot.waitSignal(session.annotation.pairs_changed):
        viewer.layers.remove(second)
    assert session.annotation.pairs()[0].image is first
    session.annotation.use(labels, False)
    assert session.annotation.pairs() == []
    session.annotation.use(labels, True)
    with qtbot.waitSignal(session.annotation.pairs_changed):
        viewer.layers.remove(first)
    assert session.annotation.pairs() == [] and session.layers.labels() == []


def test_layers_whose_names_belong_together_are_a_pair(make_session: Any) -> None:
    """Files dropped into napari: all images first, then all masks."""
    session = make_session()
    viewer = session.viewer
    for name in ("c1", "c1_2"):
        viewer.add_image(gray(32, 32), name=name)
    for name in ("c1_2_masks", "c1_masks"):
        viewer.add_labels(painted(32, 32), name=name)
    viewer.add_labels(painted(32, 32))
    session.annotation.follow_layers()
    assert [pair.name for pair in session.annotation.pairs()] == ["c1_2 / c1_2_masks", "c1 / c1_masks", "c1_2 / Labels"]


def test_layers_of_other_shapes_and_results_are_no_annotation(make_session: Any) -> None:
    session = make_session()
    viewer = session.viewer
    viewer.add_image(gray(32, 32))
    viewer.add_image(gray(2, 3, 4, 32, 32), name="five axes")
    viewer.add_labels(painted(16, 32))
    viewer.add_labels(painted(32, 32), metadata={METADATA: {"role": "result"}})
    session.annotation.follow_layers()
    assert session.annotation.pairs() == []
    assert [image.name for image in session.layers.images()] == ["Image"]


def test_pairs_do_not_change_with_the_order_of_the_layers(make_session: Any, qtbot: Any) -> None:
    session = make_session()
    viewer = session.viewer
    for name in ("A", "B"):
        viewer.add_image(gray(32, 32), name=name)
        viewer.add_labels(painted(32, 32), name=f"{name} drawn")
    session.annotation.follow_layers()
    viewer.layers.move(1, 4)  # as "Go to the least certain place" does
    session.annotation.follow_layers()
    assert {pair.name for pair in session.annotation.pairs()} == {"A / A drawn", "B / B drawn"}


def test_the_section_in_view_heeds_scale_and_translation(make_session: Any) -> None:
    session = make_session()
    viewer = session.viewer
    near = viewer.add_image(gray(4, 32, 32), scale=(50, 4, 4))
    far = viewer.add_image(gray(4, 32, 32), scale=(50, 4, 4), translate=(100, 0, 0))
    flat = viewer.add_image(gray(32, 32))
    viewer.dims.set_point(0, 150)
    assert [section_in_view(viewer, layer) for layer in (near, far, flat)] == [3, 1, 0]
    viewer.dims.set_point(0, 0)
    assert [section_in_view(viewer, layer) for layer in (near, far)] == [0, None]
