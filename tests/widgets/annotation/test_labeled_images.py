from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from small_layers import gray, painted


def test_problems_are_told_in_words(make_session: Any, settled: Callable[[Any], None]) -> None:
    session = make_session()
    viewer = session.viewer
    assert "Open an image" in session.labeled_images.problem
    image = viewer.add_image(gray(8, 48, 48))
    session.annotation.follow_layers()
    assert "annotation layer" in session.labeled_images.problem
    turned = viewer.add_labels(painted(8, 48, 40), name="turned")
    session.annotation.follow_layers()
    assert "'turned' has 8 x 48 x 40 pixels and 'Image' 8 x 48 x 48" in session.labeled_images.problem
    viewer.layers.remove(turned)
    labels = session.annotation.new_labels(image)
    settled(session)
    assert "'class 1' or 'class 2'" in session.labeled_images.problem
    data = np.zeros((8, 48, 48), np.uint8)
    data[0, :4, :4], data[1, :4] = 1, 2
    labels.data = data
    settled(session)
    assert session.labeled_images.problem == (
        "Class 1 (class 1) has no pixel in the validation part; all of it lies within 4 x 4 pixels of section 0 of "
        "Image; paint it in a second place, in another section or 16 pixels away."
    )
    labels.data = painted(8, 48, 48)
    settled(session)
    assert session.labeled_images.problem is None
    labels.data = np.arange(8 * 48 * 48).reshape(8, 48, 48) % 100
    settled(session)
    assert "numbered objects" in session.labeled_images.problem
    viewer.add_image(gray(8, 48, 48, 3), rgb=True)
    other = viewer.add_labels(painted(8, 48, 48))
    session.annotation.follow_layers()
    session.annotation.use(labels, True)
    settled(session)
    assert other in [pair.labels for pair in session.annotation.pairs()]
    assert "colored and some gray" in session.labeled_images.problem


def test_a_stroke_of_each_class_in_a_large_stack_is_enough(make_session: Any, settled: Callable[[Any], None]) -> None:
    session = make_session()
    labels = session.annotation.new_labels(session.viewer.add_image(np.zeros((3, 2048, 2048), np.uint8)))
    for value, place in ((1, (1, 1000, slice(1000, 1060))), (2, (1, slice(980, 1040), 1090))):
        labels.data_setitem(np.nonzero(_only(labels.data.shape, place)), value)
    settled(session)
    session.annotation.follow_layers()
    settled(session)
    assert session.labeled_images.problem is None


def _only(shape: tuple[int, ...], place: Any) -> np.ndarray:
    found = np.zeros(shape, bool)
    found[place] = True
    return found


def test_an_image_with_too_many_axes_is_named_with_the_way_out(make_session: Any) -> None:
    session = make_session()
    session.viewer.add_image(gray(1, 1, 2, 3, 32, 32), name="movie")
    session.annotation.follow_layers()
    assert "'movie' has 6 axes" in session.labeled_images.problem and "Split Stack" in session.labeled_images.problem


def test_transparency_is_no_color(make_session: Any, settled: Callable[[Any], None]) -> None:
    session = make_session()
    for size, channels in ((64, 3), (48, 4)):
        session.viewer.add_image(gray(size, size, channels), rgb=True)
        session.viewer.add_labels(painted(size, size))
    session.annotation.follow_layers()
    settled(session)
    assert session.labeled_images.problem is None
