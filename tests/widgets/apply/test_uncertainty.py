"""Where a network is least certain, and the way there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from napari_autosegnet.widgets.apply import uncertainty
from napari_autosegnet.widgets.layers.section_layers import show_uncertainty


@pytest.fixture
def session(make_session: Any) -> Any:
    session = make_session()
    session.viewer.add_image(np.zeros((4, 64, 64), np.uint8), name="stack", scale=(10, 2, 2), translate=(5, 6, 7))
    session.annotation.follow_layers()
    return session


def test_uncertainty_lies_over_its_section(session: Any) -> None:
    image = session.viewer.layers["stack"]
    values = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    layer = show_uncertainty(session.viewer, image, 1, values)
    assert np.array_equal(layer.data[0], values) and tuple(layer.translate) == (15, 6, 7)
    assert tuple(layer.contrast_limits) == (0, 1)
    assert [found.name for found in session.layers.images()] == ["stack"]


def hot(*spots: tuple[int, int, float]) -> np.ndarray:
    field = np.zeros((200, 300), np.float32)
    for y, x, value in spots:
        field[y - 20 : y + 20, x - 20 : x + 20] = value
    return field


def test_the_least_certain_place_is_new_every_time() -> None:
    field = hot((60, 70, 0.9), (140, 200, 0.6))
    first = uncertainty.least_certain(field, 5)
    assert first is not None and first.section == 5
    assert abs(first.y - 60) <= 4 and abs(first.x - 70) <= 4
    second = uncertainty.least_certain(field, 5, visited=[(5, first.y, first.x), (4, 140, 200)])
    assert second is not None and abs(second.y - 140) <= 4 and abs(second.x - 200) <= 4
    annotated = field > 0
    assert uncertainty.least_certain(field, 5, annotated) is None


def test_single_pixels_are_no_place() -> None:
    field = hot((100, 100, 0.3))
    field[30, 250] = 1.0
    found = uncertainty.least_certain(field, 0)
    assert found is not None and abs(found.y - 100) <= 4


def test_the_least_certain_place_of_a_volume() -> None:
    fields = {0: hot((60, 70, 0.2)), 1: hot((60, 70, 0.8)), 2: hot((100, 100, 0.5))}
    found = uncertainty.least_certain_of_volume(fields.__getitem__, lambda _: None, 3)
    assert found is not None and found.section == 1
    found = uncertainty.least_certain_of_volume(fields.__getitem__, lambda section: fields[section] > 0.7, 3)
    assert found is not None and found.section == 2
    assert uncertainty.least_certain_of_volume(fields.__getitem__, lambda _: None, 3, should_stop=lambda: True) is None


def test_going_to_a_place_moves_slider_and_camera(session: Any) -> None:
    viewer, image = session.viewer, session.viewer.layers["stack"]
    for number in (2, 3):
        uncertainty.go_to(viewer, image, uncertainty.Place(number, 10, 50, 0.5))
    assert viewer.dims.point[0] == 35
    assert viewer.scene.camera.center[-2:] == (26.0, 107.0)
    frames = [layer for layer in viewer.layers if layer.name == uncertainty.MARKER]
    assert len(frames) == 1 and frames[0].data[0][:, 0].tolist() == [3, 3, 3, 3]
