"""Layers that show what a model makes of single sections: its labels and its uncertainty, at the section's place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.annotations import ClassInfo
from napari_autosegnet.widgets.layers.class_colors import LabelClass, kept_classes, numbered, result_layer, show_classes
from napari_autosegnet.widgets.layers.layer_arrays import empty_labels, place_on, read_section, spatial_shape
from napari_autosegnet.widgets.layers.notes import METADATA, Role, note, notes, role
from napari_autosegnet.widgets.layers.paint_history import lay_beneath

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer

#: Attributes of a layer that say where it lies.
PLACE = ("scale", "translate", "rotate", "shear", "affine", "units")
#: Name of the layer of slices that were segmented on demand.
SLICES = "segmentation of the slice"


def show_slice(
    viewer: ViewerModel,
    image: Image,
    section: int,
    labels: npt.NDArray[np.uint8],
    classes: Sequence[ClassInfo],
    model: object = None,
) -> Labels:
    """Show class numbers (y, x) of a section in the layer that holds those of all sections of its image.

    What is painted there stays on top of later results and can be undone, in this section and in all others. When the
    result is that of another ``model``, other sections lose what the one before said, and keep what is painted.
    A model with other classes gets a layer of its own.
    """
    named = numbered(classes)
    fitting = (each for each in _known(viewer, image, "preview", SLICES) if _mean_the_same(kept_classes(each), named))
    layer = next(fitting, None)
    if layer is None:
        about = result_layer(named, role="preview", name=SLICES, **place_on(image))
        about["metadata"][METADATA] |= {"shows": SLICES, "said": {}, **source_notes(image)}
        layer = viewer.add_labels(empty_labels(spatial_shape(image)), **about)
    else:
        move_layer(layer, place_on(image))
        show_classes(layer, named)
    said, nothing = what_was_said(layer), np.zeros_like(labels)
    if notes(layer).get("model") != model:
        for other in said.keys() - {section}:
            lay_beneath(layer, other, said.pop(other), nothing)
            if read_section(layer, other).any():
                said[other] = nothing
        note(layer, model=model)
    lay_beneath(layer, section, said.get(section, nothing), labels)
    said[section] = labels
    layer.refresh(extent=False)
    return layer


def what_was_said(layer: Layer) -> dict[int, npt.NDArray[Any]]:
    """Section of a result layer, and what the model said there (y, x); what differs from it was painted.

    Of whole results only those sections are kept that were painted. It lies in the layer, so that it is there as
    long as the layer is, whichever dock is open.
    """
    said: dict[int, npt.NDArray[Any]] = notes(layer).setdefault("said", {})
    return said


def show_labels(
    viewer: ViewerModel,
    image: Image,
    section: int,
    labels: npt.NDArray[np.uint8],
    classes: Sequence[ClassInfo],
    name: str,
    origin: tuple[int, int] = (0, 0),
) -> Labels:
    """Show class numbers (y, x) of which the next ones soon take the place, over a section of an image.

    ``origin`` is the row and column of the section at which the first pixel lies. Nobody can paint there: it would be
    lost with the next result.
    """
    named = numbered(classes)
    data, place = _placed(image, section, labels, origin)
    where = {"section": section, "origin": origin, "passing": True}
    layer = next(iter(_known(viewer, image, "preview", name)), None)
    if layer is not None:
        _replace(layer, data, place, where)
        show_classes(layer, named)  # another model may have others
    else:
        about = result_layer(named, role="preview", name=name, **place)
        about["metadata"][METADATA] |= {"shows": name, **where, **source_notes(image)}
        layer = viewer.add_labels(data, **about)
    layer.editable = False
    return layer


def show_uncertainty(
    viewer: ViewerModel,
    image: Image,
    section: int,
    uncertainty: npt.NDArray[np.float32],
    name: str = "uncertainty",
    origin: tuple[int, int] = (0, 0),
    visible: bool = True,
) -> Image:
    """Show uncertainty (y, x) from 0 to 1 over a section of an image; ``visible`` is for a new layer."""
    data, place = _placed(image, section, uncertainty, origin)
    where = {"section": section, "origin": origin}
    layer = next(iter(_known(viewer, image, "uncertainty", name)), None)
    if layer is not None:
        _replace(layer, data, place, where)
        return layer
    layer = viewer.add_image(
        data,
        name=name,
        colormap=_unsure(),
        contrast_limits=(0.0, 1.0),
        blending="translucent",
        opacity=0.9,
        visible=visible,
        metadata={METADATA: {"role": "uncertainty", "shows": name, **where, **source_notes(image)}},
        **place,
    )
    return layer


def image_behind(viewer: ViewerModel, layer: Layer) -> Image | None:
    """Image that a layer of this program was computed from, also when it was closed and opened again.

    Of a result that was read from a file nobody knows: an image of its shape.
    """
    from napari.layers import Image

    images = [other for other in viewer.layers if type(other) is Image and not role(other)]
    about = notes(layer)
    source = next((image for image in images if id(image) == about.get("image")), None)
    if source is not None or about.get("passing") or role(layer) not in ("result", "preview", "objects"):
        return source
    alike = [image for image in images if spatial_shape(image) == spatial_shape(layer)]
    named = about.get("image_name")
    return next((image for image in alike if named is None or image.name == named), None)


def _unsure() -> Any:
    """A veil, from nothing to a color that no class has by default: what lies below is to be looked at."""
    from napari.utils import Colormap

    return Colormap([[1.0, 0.1, 0.6, 0.0], [1.0, 0.1, 0.6, 0.4]], name="unsure")


def source_notes(image: Image) -> dict[str, Any]:
    """What is noted of a layer that was computed from an image, for `image_behind`."""
    return {"image": id(image), "image_name": image.name}


@contextmanager
def kept_active(viewer: ViewerModel) -> Iterator[None]:
    """Whoever paints keeps painting: the layer that is active stays so, although napari selects what is added."""
    active = viewer.layers.selection.active
    yield
    if active is not None:
        viewer.layers.selection.active = active


def _mean_the_same(old: Sequence[LabelClass], new: Sequence[LabelClass]) -> bool:
    """Whether every number of the old classes has its name in the new ones."""
    names = {each.value: each.name for each in new}
    return all(names.get(each.value) == each.name for each in old)


def _placed(
    image: Image, section: int, pixels: npt.NDArray[Any], origin: tuple[int, int]
) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    leading = (1,) * (len(spatial_shape(image)) - 2)
    return pixels.reshape(*leading, *pixels.shape), place_on(image, section, origin)


def _known(viewer: ViewerModel, image: Image, kind: Role, shows: str) -> list[Any]:
    """Layers of an image, whatever they are called now."""
    return [
        layer
        for layer in viewer.layers
        if role(layer) == kind and notes(layer).get("shows") == shows and image_behind(viewer, layer) is image
    ]


def _replace(layer: Any, data: npt.NDArray[Any], place: dict[str, Any], where: dict[str, Any]) -> None:
    # First where it lies, so that whoever is told of the new data finds it there.
    note(layer, **where)
    move_layer(layer, place)
    layer.data = data


def follow_image(viewer: ViewerModel, image: Layer) -> None:
    """Put what was computed from an image, which was moved, turned or rescaled, on it again."""
    for layer in viewer.layers:
        about = notes(layer)
        if role(layer) in ("result", "preview", "uncertainty", "objects") and about.get("image") == id(image):
            move_layer(layer, place_on(image, about.get("section"), about.get("origin", (0, 0))))


def move_layer(layer: Any, place: dict[str, Any]) -> None:
    """Put a layer elsewhere (`place_on`)."""
    for name, value in place.items():
        known = getattr(layer, name)
        known = known.affine_matrix if name == "affine" else known
        # Setting one draws the layer anew, so only what the user changed of the image meanwhile is set.
        if not np.array_equal(known, value):
            setattr(layer, name, value)
