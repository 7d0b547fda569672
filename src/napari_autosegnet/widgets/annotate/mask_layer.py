"""A mask that napari opened as an image, or numbered objects, made annotation: what the values mean, and a layer."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.annotations import MAX_UNNAMED_CLASSES, class_color, value_text
from napari_autosegnet.data.label_values import LabelValues, gray_color, label_values, without_erased
from napari_autosegnet.data.numbered_objects import are_objects
from napari_autosegnet.data.soft_edges import MIN_VALUES, SoftColors, SoftEdges, soft_colors, soft_edges
from napari_autosegnet.errors import UserError
from napari_autosegnet.widgets.annotation.class_list import ClassList, check_names
from napari_autosegnet.widgets.layers.axes import is_rgb
from napari_autosegnet.widgets.layers.class_colors import LabelClass, annotation_layer
from napari_autosegnet.widgets.layers.layer_arrays import (
    empty_labels,
    place_on,
    read_section,
    section_index,
    sections,
    spatial_shape,
)
from napari_autosegnet.widgets.session import Session

if TYPE_CHECKING:
    from napari.layers import Image, Labels


#: The class that a value of a mask is read as; None: not annotated.
Meaning = Mapping[int, str | None]
#: What numbered objects become: 0 stands for all that is no object, 1 for all that is one.
_OBJECTS: dict[int, str | None] = {0: "background", 1: "object"}


@dataclass(frozen=True)
class MaskValues:
    """Pixels of each value of a mask; of one with soft edges, of the values that are classes."""

    pixels: dict[int, int]
    #: The values are colors, ``0xrrggbb``.
    are_colors: bool = False
    edges: SoftEdges | SoftColors | None = None

    def text(self, value: int) -> str:
        """How a value is written for the user."""
        return value_text(value, colors=self.are_colors)


def images_of_mask(session: Session, layer: Image) -> list[Image]:
    """The other images of a layer's shape, which it may be a mask of."""
    shape = spatial_shape(layer)
    return [image for image in session.layers.images() if image is not layer and spatial_shape(image) == shape]


def find_values(layer: Image, closing: threading.Event) -> MaskValues:
    """Read which values a mask has. Reads all of it: call it in a thread; ``closing`` ends it early.

    Raises
    ------
    UserError
        When the layer is no mask: fractions, no number at all, or more values than there can be classes.
    """
    counts: Counter[int] = Counter()
    for read in _read_sections(layer, closing, colors=layer.rgb):
        counts.update(read.counts())
        if len(counts) > MAX_UNNAMED_CLASSES:
            break
    if not counts and not closing.is_set():
        raise UserError(f"'{layer.name}' holds no numbers; a mask has one whole number per class")
    are_colors = layer.rgb and any(value != gray_color(value & 255) for value in counts)
    if len(counts) >= MIN_VALUES:
        find = soft_colors if are_colors else soft_edges
        edges = find(read.values for read in _read_sections(layer, closing, colors=are_colors))
        if edges is not None:
            reads = _read_sections(layer, closing, colors=are_colors)
            hard = (LabelValues(edges.hardened(read.values), are_colors) for read in reads)
            return MaskValues(_added(hard), are_colors, edges=edges)
    if len(counts) > MAX_UNNAMED_CLASSES:
        kind = "colors, which look like an image" if layer.rgb else "values, which look like gray values"
        raise UserError(
            f"'{layer.name}' holds more than {MAX_UNNAMED_CLASSES} different {kind} or single objects; a mask has "
            "one value per class. If they are objects, right-click the layer and choose Convert to Labels"
        )
    gray_picture = layer.rgb and not are_colors
    return MaskValues(
        {value & 255 if gray_picture else value: pixels for value, pixels in sorted(counts.items())}, are_colors
    )


def _added(sections: Iterable[LabelValues]) -> dict[int, int]:
    """Pixels of each value in all sections."""
    counts: Counter[int] = Counter()
    for section in sections:
        counts.update(section.counts())
    return dict(sorted(counts.items()))


def suggested_meaning(values: MaskValues, classes: ClassList) -> dict[int, str | None]:
    """What the values of a mask probably mean: the class with that value, or a new one.

    Of two values the one that is 0 is a class, too: such a mask says something of every pixel. Of more, or where the
    classes were named before, 0 is what nobody annotated.
    """
    known = {} if classes.are_defaults else {each.value: each.name for each in classes.label_classes}
    unpainted = 0 in values.pixels and 0 not in known and len(values.pixels) != 2
    return {
        value: None if value == 0 and unpainted else known.get(value, _new_name(value, values) if value >= 0 else None)
        for value in values.pixels
    }


def _new_name(value: int, values: MaskValues) -> str:
    return values.text(value) if values.are_colors else f"class {value}"


def read_objects(layer: Image, closing: threading.Event) -> npt.NDArray[Any] | None:
    """A mask as the labels of objects; None when its values look like classes, or when it was ended early.

    Reads all of it: call it in a thread.
    """
    planes = []
    for section in range(sections(layer)):
        pixels = _values(layer, section).values
        if closing.is_set() or not are_objects(pixels):
            return None
        planes.append(pixels)
    return np.stack(planes) if len(spatial_shape(layer)) == 3 else planes[0]


def use_as_objects(session: Session, layer: Image, objects: npt.NDArray[Any]) -> Labels:
    """Put a Labels layer with the same values in the place of a mask."""
    viewer = session.viewer
    labels = viewer.add_labels(objects, **_place(session, layer))
    viewer.layers.remove(layer)
    labels.name = layer.name  # only now it is free
    return labels


def use_as_annotation(session: Session, layer: Image, meaning: Meaning, pixels: npt.NDArray[np.uint8]) -> Labels:
    """Put a Labels layer in the place of a mask, and its classes among those of the session.

    Parameters
    ----------
    pixels
        From `read_mask`, with the values of `class_values`.
    """
    names = {name for name in meaning.values() if name is not None}
    classes = [each for each in session.annotation.class_list.label_classes if each.name in names]
    viewer = session.viewer
    labels = viewer.add_labels(pixels, **annotation_layer(classes, **_place(session, layer)))
    viewer.layers.remove(layer)
    labels.name = layer.name  # only now it is free
    viewer.layers.selection.active = labels
    return labels


def class_values(session: Session, meaning: Meaning) -> dict[int, int]:
    """Value that each value of a mask is painted with in the session, which gets the classes that it lacks.

    Raises
    ------
    UserError
        When no value is a class, or a name cannot be one.
    """
    names = list(dict.fromkeys(name for name in meaning.values() if name is not None))
    if not names:
        raise UserError("no value is a class; choose a class for one at least")
    check_names(names)
    given: list[LabelClass] = []
    for number, name in enumerate(names):
        value = next(value for value, its_name in meaning.items() if its_name == name)
        taken = {each.value for each in given} | set(meaning)
        if not 0 < value < 256:  # 0 means not annotated, and values are painted as bytes
            value = next(free for free in range(1, 256) if free not in taken)
        given.append(LabelClass(value, name, class_color(number)))
    values = session.annotation.values_of(tuple(given))
    by_name = {each.name: values[each.value] for each in given}
    return {value: by_name[name] for value, name in meaning.items() if name is not None}


def read_mask(
    layer: Image,
    values: Mapping[int, int],
    closing: threading.Event,
    *,
    colors: bool = False,
    edges: SoftEdges | SoftColors | None = None,
) -> npt.NDArray[np.uint8] | None:
    """The mask with other values, 0 for all that are not named; None when it was ended early.

    Reads all of it: call it in a thread. What ``edges`` calls soft is the class that is nearest.
    """

    def read(section: int) -> npt.NDArray[np.uint8]:
        pixels = _values(layer, section, colors=colors).values
        if edges is not None:
            pixels = edges.hardened(pixels)
        target = np.zeros(pixels.shape, np.uint8)
        for old, new in values.items():
            target[pixels == old] = new
        return target

    return by_section(layer, read, closing)


def by_section(
    layer: Image | Labels, read: Callable[[int], npt.NDArray[Any]], closing: threading.Event
) -> npt.NDArray[np.uint8] | None:
    """Labels in the shape of a layer, whose sections (y, x) ``read`` gives; None when it was ended early."""
    labels = empty_labels(spatial_shape(layer))
    for section in range(sections(layer)):
        if closing.is_set():
            return None
        labels[section_index(layer, section) or ...] = read(section)
    return labels  # type: ignore[no-any-return]


def _read_sections(layer: Image, closing: threading.Event, *, colors: bool = False) -> Iterator[LabelValues]:
    """Values of each section, up to when ``closing`` is set."""
    for section in range(sections(layer)):
        if closing.is_set():
            return
        yield _values(layer, section, colors=colors)


def _values(layer: Image, section: int, *, colors: bool = False) -> LabelValues:
    """Values (y, x) of a section, as colors or, of a gray picture saved with colors, as gray values."""
    pixels = read_section(layer, section)
    channels = np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels[np.newaxis]
    if is_rgb(layer) and len(channels) == 4:
        channels = without_erased(channels, f"'{layer.name}'")
    read = label_values(channels, f"'{layer.name}'")
    return LabelValues(read.as_colors(), are_colors=True) if colors else read


def _place(session: Session, layer: Image) -> dict[str, Any]:
    """Where the mask lies: where it says; where it says nothing, on the image."""
    images = images_of_mask(session, layer)
    says_something = (
        not np.allclose(layer.scale, 1)
        or np.any(layer.translate)
        or not np.allclose(layer.affine.affine_matrix, np.eye(layer.ndim + 1))
    )
    return place_on(layer if says_something or not images else images[-1])


def object_values(session: Session, layer: Labels) -> dict[int, int]:
    """Values that background (0) and objects (1) are painted with in the session, which gets these classes.

    The layer of the objects is not used any more, or else each of them would stay a class.
    """
    session.annotation.use(layer, False)
    return class_values(session, _OBJECTS)


def read_one_class(layer: Labels, values: dict[int, int], closing: threading.Event) -> npt.NDArray[np.uint8] | None:
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
    names = set(_OBJECTS.values())
    classes = [each for each in session.annotation.class_list.label_classes if each.name in names]
    about: dict[str, Any] = annotation_layer(classes, name=f"{layer.name} as one class", **place_on(layer))
    labels = session.viewer.add_labels(pixels, **about)
    if image is not None:
        session.annotation.choose_image(labels, image)
    layer.visible = False
    return labels
