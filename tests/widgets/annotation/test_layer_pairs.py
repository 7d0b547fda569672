from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from napari_autosegnet.errors import UserError
from napari_autosegnet.widgets.layers.axes import set_axes
from napari_autosegnet.widgets.layers.notes import METADATA
from napari_autosegnet.widgets.layers.section_layers import show_labels, show_slice
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


MOVED = {
    "moved": {"translate": (0, 9, 0)},
    "scaled": {"scale": (2, 0.5, 0.5)},
    "turned": {"rotate": 30},
    "in another unit": {"units": ("um", "um", "um")},
    "by an affine": {"affine": np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])},
    "a section off": {"translate": (1, 0, 0)},
}


@pytest.mark.parametrize("place", MOVED.values(), ids=MOVED)
def test_annotation_that_is_shown_elsewhere_than_on_its_image_is_not_learned_from(
    place: dict[str, Any], make_session: Any, settled: Any
) -> None:
    """Strokes were taken by their number, wherever they were seen, without a word."""
    session = make_session()
    viewer = session.viewer
    image = viewer.add_image(gray(3, 32, 32), name="stack", units=("nm", "nm", "nm"))
    labels = viewer.add_labels(painted(3, 32, 32), name="drawn", **{"units": ("nm", "nm", "nm")} | place)
    session.annotation.follow_layers()
    settled(session)
    assert "'drawn' is shown up to " in session.labeled_images.problem
    displaced = session.layers.displacement()
    assert (displaced.pair.image, displaced.pair.labels) == (image, labels)
    with pytest.raises(UserError, match="put it there in step 1"):
        session.annotation.take_brush(image)
    session.annotation.put_on_image(displaced.pair)
    settled(session)
    assert session.labeled_images.problem is None and session.layers.displacement() is None
    np.testing.assert_allclose(labels.data_to_world((2, 5, 7)), image.data_to_world((2, 5, 7)))


def test_half_a_pixel_is_a_matter_of_taste_and_half_a_section_is_not(make_session: Any) -> None:
    """Programs give the middle of a pixel, or its corner."""
    session = make_session()
    session.viewer.add_image(gray(3, 32, 32), scale=(5, 2, 2))
    labels = session.viewer.add_labels(painted(3, 32, 32), scale=(5, 2, 2), translate=(0, 1, -1))
    assert session.layers.displacement() is None
    labels.translate = (2.5, 1, -1)
    assert session.layers.displacement() is not None


def test_images_with_channels_and_pyramids_are_compared_by_their_pixels(make_session: Any) -> None:
    session = make_session()
    viewer = session.viewer
    channels = viewer.add_image(gray(2, 3, 32, 32), scale=(1, 4, 2, 2), translate=(0, 0, 6, 6))
    set_axes(channels, "czyx")
    drawn = session.annotation.new_labels(channels)
    pyramid = viewer.add_image([gray(64, 64), gray(32, 32)], scale=(3, 3), rotate=20)
    session.annotation.new_labels(pyramid)
    assert session.layers.displacement() is None
    channels.translate = (0, 0, 6, 12)
    displaced = session.layers.displacement()
    assert displaced.pair.labels is drawn and displaced.pixels == pytest.approx(3)


def test_of_images_of_one_shape_annotation_belongs_to_the_one_that_it_lies_on(make_session: Any) -> None:
    """Tiles of one microscope."""
    session = make_session()
    left = session.viewer.add_image(gray(32, 32), name="left")
    session.viewer.add_image(gray(32, 32), name="right", translate=(0, 32))
    labels = session.viewer.add_labels(painted(32, 32))
    session.annotation.follow_layers()
    assert session.layers.image_of(labels) is left and session.layers.displacement() is None


def test_an_image_that_is_moved_takes_what_was_computed_from_it_along(
    make_session: Any, settled: Any, qtbot: Any
) -> None:
    session = make_session()
    viewer = session.viewer
    image = viewer.add_image(gray(3, 32, 32), name="stack")
    drawn = viewer.add_labels(painted(3, 32, 32), name="drawn")
    session.annotation.follow_layers()
    classes = session.annotation.classes
    whole = show_slice(viewer, image, 1, np.ones((32, 32), np.uint8), classes)
    part = show_labels(viewer, image, 2, np.ones((8, 8), np.uint8), classes, "part", (4, 6))
    image.scale, image.translate = (4, 2, 2), (0, 10, 20)
    np.testing.assert_allclose(whole.data_to_world((1, 0, 0)), image.data_to_world((1, 0, 0)))
    np.testing.assert_allclose(part.data_to_world((0, 0, 0)), image.data_to_world((2, 4, 6)))
    # Strokes are the user's: they stay, and this is said at once.
    assert not drawn.translate.any()
    qtbot.waitUntil(lambda: "'drawn' is shown up to " in (session.labeled_images.problem or ""))
    drawn.scale, drawn.translate = image.scale, image.translate
    settled(session)
    assert session.labeled_images.problem is None


def test_labels_with_channels_lie_on_no_image(make_session: Any) -> None:
    session = make_session()
    session.viewer.add_image(gray(32, 32))
    labels = session.viewer.add_labels(painted(3, 32, 32), axis_labels=("channel", "y", "x"))
    assert session.layers.image_of(labels) is None and session.layers.strays() == [labels]
