"""Layers of one section: at the image's place however that is turned, with the classes of whatever model made them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from napari_autosegnet.data.annotations import default_classes
from napari_autosegnet.widgets.apply.uncertainty import Place, go_to
from napari_autosegnet.widgets.layers.class_colors import kept_classes
from napari_autosegnet.widgets.layers.layer_arrays import place_on
from napari_autosegnet.widgets.layers.notes import METADATA
from napari_autosegnet.widgets.layers.section_layers import show_labels, show_uncertainty
from napari_autosegnet.widgets.layers.view import data_in_view, section_in_view
from napari_autosegnet.widgets.session import Session

CLASSES = default_classes(["cell", "wall"])
TURNED = np.array([[1, 0, 0], [0, np.cos(0.5), -np.sin(0.5)], [0, np.sin(0.5), np.cos(0.5)]])
PLACES: dict[str, dict[str, Any]] = {
    "scaled": {"scale": (50, 4, 2), "translate": (100, 8, 8)},
    "turned": {"scale": (50, 4, 2), "translate": (100, 8, 8), "rotate": TURNED},
    "sheared": {"scale": (5, 4, 2), "shear": (0.0, 0.2, 0.3)},
    "affine": {"affine": np.array([[2, 0, 0, 5], [0, 1, 0.5, 6], [0, -0.5, 1, 7], [0, 0, 0, 1]], float)},
    "micrometers": {"scale": (0.5, 0.1, 0.1), "units": ("um", "um", "um"), "axis_labels": ("z", "y", "x")},
}


def test_what_is_added_lies_on_the_image(make_napari_viewer: Callable[..., Any]) -> None:
    viewer = make_napari_viewer()
    session = Session(viewer)
    for place in PLACES.values():
        viewer.layers.clear()
        check_that_what_is_added_lies_on_the_image(viewer, session, place)
    session.close()


def check_that_what_is_added_lies_on_the_image(viewer: Any, session: Session, place: dict[str, Any]) -> None:
    image = viewer.add_image(np.zeros((4, 64, 64), np.uint8), **place)
    session.annotation.follow_layers()
    annotation = session.annotation.new_labels(image)
    labels = show_labels(viewer, image, 2, np.ones((32, 32), np.uint8), CLASSES, "preview", (20, 10))
    unsure = show_uncertainty(viewer, image, 2, np.ones((32, 32), np.float32), origin=(20, 10))
    go_to(viewer, image, Place(2, 30, 25, 0.5))
    frame = viewer.layers[-1]
    world = image.data_to_world((2, 30, 25))
    assert np.allclose(annotation.data_to_world((2, 30, 25)), world)
    assert np.allclose(labels.data_to_world((0, 10, 15)), world)
    assert np.allclose(unsure.data_to_world((0, 10, 15)), world)
    assert np.allclose(frame.data_to_world(frame.data[0].mean(axis=0)), world)
    assert {layer.units for layer in viewer.layers} == {image.units} and viewer.layers.extent.units == image.units
    assert labels.axis_labels == image.axis_labels
    assert labels.metadata[METADATA]["origin"] == (20, 10) and labels.metadata[METADATA]["section"] == 2


def test_a_layer_that_is_used_again_follows_its_image_and_its_model(make_session: Callable[..., Any]) -> None:
    viewer = make_session().viewer
    image = viewer.add_image(np.zeros((4, 64, 64), np.uint8))
    first = show_labels(viewer, image, 1, np.ones((64, 64), np.uint8), CLASSES, "preview")
    image.scale, image.units = (5, 2, 2), ("um", "um", "um")
    image.rotate = TURNED
    others = default_classes(["nucleus", "cytoplasm", "background"])
    second = show_labels(viewer, image, 3, np.full((32, 32), 3, np.uint8), others, "preview", (32, 16))
    assert second is first
    assert np.allclose(second.data_to_world((0, 1, 2)), image.data_to_world((3, 33, 18)))
    assert second.units == image.units
    assert [each.name for each in kept_classes(second)] == ["nucleus", "cytoplasm", "background"]
    assert list(second.features["class"])[1:] == ["nucleus", "cytoplasm", "background"]
    assert second.get_color(3)[3] == 1 and not np.allclose(second.get_color(3), second.get_color(4))
    about = second.metadata[METADATA]
    assert (about["role"], about["section"], about["origin"], about["passing"]) == ("preview", 3, (32, 16), True)
    assert not second.editable, "what is painted there would be lost"


def test_layers_in_different_units_lie_in_one_view(make_napari_viewer: Callable[..., Any]) -> None:
    viewer = make_napari_viewer()
    data = np.zeros((10, 64, 64), np.uint8)
    coarse = viewer.add_image(data, scale=(0.5, 0.1, 0.1), units=("um", "um", "um"))
    fine = viewer.add_image(data, scale=(500, 100, 100), units=("nm", "nm", "nm"))
    viewer.dims.set_point(0, 2000)
    assert [section_in_view(viewer, layer) for layer in (coarse, fine)] == [4, 4]
    assert np.allclose(data_in_view(viewer, coarse, (2000, 1000, 500)), (4, 10, 5))
    go_to(viewer, coarse, Place(6, 20, 40, 0.5))
    assert np.allclose(viewer.dims.point[0], 3000)
    assert np.allclose(viewer.scene.camera.center[1:], (2000, 4000))
    zoom = viewer.scene.camera.zoom
    go_to(viewer, fine, Place(6, 20, 40, 0.5))
    assert viewer.scene.camera.zoom == pytest.approx(zoom)


def test_an_image_without_an_offset_is_met_exactly(make_session: Callable[..., Any]) -> None:
    viewer = make_session().viewer
    image = viewer.add_image(np.zeros((4, 8, 8), np.uint8), scale=(0.1, 0.3, 0.7), translate=(0.1, 1 / 3, 0.7))
    place = place_on(image)
    assert place["translate"].tolist() == image.translate.tolist() and place["scale"].tolist() == image.scale.tolist()
