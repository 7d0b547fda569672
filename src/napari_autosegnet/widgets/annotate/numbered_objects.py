"""Numbered objects, as other programs make them, turned into annotation: one class for all, against background."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.widgets.annotate.mask_layer import by_section, class_values
from napari_autosegnet.widgets.layers.class_colors import annotation_layer
from napari_autosegnet.widgets.layers.layer_arrays import place_on, read_section
from napari_autosegnet.widgets.session import Session

if TYPE_CHECKING:
    from napari.layers import Labels

#: What the values mean then: 0 and 1 stand for all that is no object, and for all that is one.
_MEANING = {0: "background", 1: "object"}


def object_values(session: Session, layer: Labels) -> dict[int, int]:
    """Values that background (0) and objects (1) are painted with in the session, which gets these classes.

    The layer of the objects is not used any more, or else each of them would stay a class.
    """
    session.annotation.use(layer, False)
    return class_values(session, _MEANING)


def read_objects(layer: Labels, values: dict[int, int], closing: threading.Event) -> npt.NDArray[np.uint8] | None:
    """Classes of the pixels of a layer of objects, in its shape; None when it was ended early.

    A section without an object is not annotated. Reads all of it: call it in a thread.
    """

    def read(section: int) -> npt.NDArray[Any]:
        is_object = read_section(layer, section) > 0
        return np.where(is_object, values[1], values[0] if is_object.any() else 0)

    return by_section(layer, read, closing)


def use_one_class(session: Session, layer: Labels, pixels: npt.NDArray[np.uint8]) -> Labels:
    """Add annotation in place of a layer of objects, which stays in the viewer, hidden and not used."""
    image = session.layers.image_of(layer)
    names = set(_MEANING.values())
    classes = [each for each in session.annotation.class_list.label_classes if each.name in names]
    about: dict[str, Any] = annotation_layer(classes, name=f"{layer.name} as one class", **place_on(layer))
    labels = session.viewer.add_labels(pixels, **about)
    if image is not None:
        session.annotation.choose_image(labels, image)
    layer.visible = False
    return labels
