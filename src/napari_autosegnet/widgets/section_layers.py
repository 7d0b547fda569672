"""Layers that show what a model makes of one section: its labels and its uncertainty, at the section's place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.annotations import ClassInfo
from napari_autosegnet.widgets.class_colors import LabelClass, result_layer, show_classes
from napari_autosegnet.widgets.layer_arrays import METADATA, Role, place_on, role, spatial_shape

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer


def show_labels(
    viewer: ViewerModel,
    image: Image,
    section: int,
    labels: npt.NDArray[np.uint8],
    classes: Sequence[ClassInfo],
    name: str = "segmentation of the slice",
    origin: tuple[int, int] = (0, 0),
    passing: bool = False,
) -> Labels:
    """Show class numbers (y, x) over a section of an image; one layer of that name per image is used again.

    ``origin`` is the row and column of the section at which the first pixel lies; ``passing`` says that the next
    result will soon take the place of this one.
    """
    named = tuple(LabelClass(number, each.name, each.color) for number, each in enumerate(classes, start=1))
    data, place = _placed(image, section, labels, origin)
    where = {"section": section, "origin": origin, "passing": passing}
    layer = _known(viewer, image, "preview", name)
    if layer is not None:
        _replace(layer, data, place, where)
        show_classes(layer, named)  # another model may have others
        return layer
    about = result_layer(named, role="preview", name=name, **place)
    about["metadata"][METADATA] |= where
    layer = viewer.add_labels(data, **about)
    _remember(layer, image)
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
    layer = _known(viewer, image, "uncertainty", name)
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
        metadata={METADATA: {"role": "uncertainty", **where}},
        **place,
    )
    _remember(layer, image)
    return layer


def shown_section(layer: Layer) -> int:
    """Section of the image at which a layer of one section lies."""
    about = layer.metadata.get(METADATA, {})
    return int(about.get("section", 0))


def image_behind(viewer: ViewerModel, layer: Layer) -> Image | None:
    """Image that a layer of this program was computed from, or else an image of its shape."""
    from napari.layers import Image

    images = [other for other in viewer.layers if type(other) is Image and not role(other)]
    known = layer.metadata.get(METADATA, {}).get("image")
    found = next((image for image in images if id(image) == known), None)
    if found is not None or role(layer) != "result":
        return found
    return next((image for image in images if spatial_shape(image) == spatial_shape(layer)), None)


def _unsure() -> Any:
    """From nothing to a colour that no class has by default, so that what lies below stays visible."""
    from napari.utils import Colormap

    return Colormap([[1.0, 0.1, 0.6, 0.0], [1.0, 0.1, 0.6, 0.45], [1.0, 0.1, 0.6, 1.0]], name="unsure")


def _remember(layer: Layer, image: Image) -> None:
    layer.metadata[METADATA]["image"] = id(image)


def _placed(
    image: Image, section: int, pixels: npt.NDArray[Any], origin: tuple[int, int]
) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    flat = len(spatial_shape(image)) == 2
    return (pixels if flat else pixels[np.newaxis]), place_on(image, section, origin)


def _known(viewer: ViewerModel, image: Image, kind: Role, name: str) -> Any:
    return next(
        (
            layer
            for layer in viewer.layers
            if role(layer) == kind and layer.metadata[METADATA].get("image") == id(image) and layer.name == name
        ),
        None,
    )


def _replace(layer: Any, data: npt.NDArray[Any], place: dict[str, Any], where: dict[str, Any]) -> None:
    # First where it lies, so that whoever is told of the new data finds it there.
    layer.metadata[METADATA] |= where
    for name, value in place.items():
        known = getattr(layer, name)
        known = known.affine_matrix if name == "affine" else known
        # Setting one draws the layer anew, so only what the user changed of the image meanwhile is set.
        if not np.array_equal(known, value):
            setattr(layer, name, value)
    layer.data = data
