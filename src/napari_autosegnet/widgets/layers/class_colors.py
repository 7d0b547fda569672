"""Classes of Labels layers: the value each is painted with, its name and its color on the layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.annotations import ClassInfo
from napari_autosegnet.widgets.layers.notes import METADATA, Role, note, notes

if TYPE_CHECKING:
    from napari.layers import Labels

#: Of painted values that are no class (yet).
_UNNAMED = "#9a9a9a"


@dataclass(frozen=True)
class LabelClass:
    """A class and the label value that it is painted with."""

    value: int
    name: str
    color: str


def numbered(classes: Iterable[ClassInfo]) -> tuple[LabelClass, ...]:
    """Classes that are painted with their numbers."""
    return tuple(LabelClass(number, each.name, each.color) for number, each in enumerate(classes, start=1))


def class_colormap(classes: Iterable[LabelClass]) -> Any:
    """Napari's colormap for Labels layers of these classes."""
    from napari.utils import DirectLabelColormap

    colors: dict[int | None, str] = {None: _UNNAMED, 0: "transparent"}
    colors |= {each.value: each.color for each in classes}
    return DirectLabelColormap(color_dict=colors)


def class_metadata(classes: Iterable[LabelClass], **more: Any) -> dict[str, Any]:
    """Layer metadata that `kept_classes` reads."""
    content = {"classes": [{"value": each.value, "name": each.name, "color": each.color} for each in classes]}
    return {METADATA: {**content, **more}}


def class_features(classes: Iterable[LabelClass]) -> dict[str, list[Any]]:
    """Layer features by which napari's status bar names the class under the pointer."""
    named = [each for each in classes if each.value != 0]
    zero = next((each.name for each in classes if each.value == 0), "not annotated")
    return {"index": [0, *(each.value for each in named)], "class": [zero, *(each.name for each in named)]}


def kept_classes(layer: Labels) -> tuple[LabelClass, ...]:
    """Classes that were kept in a layer's metadata; empty if there are none."""
    kept = notes(layer).get("classes", ())
    return tuple(LabelClass(int(each["value"]), each["name"], each["color"]) for each in kept)


def prepare_colors(dtype: npt.DTypeLike) -> None:
    """Let napari compile what it colors labels of a type with, once per process. Call it in a thread.

    With numba this takes most of a second, which would otherwise pass when the first layer is colored.
    """
    class_colormap([]).map(np.zeros((2, 2), dtype))


def show_classes(layer: Labels, classes: tuple[LabelClass, ...]) -> None:
    """Give a Labels layer the colors and names of classes."""
    if kept_classes(layer) == classes and layer.colormap.__class__.__name__ == "DirectLabelColormap":
        return
    layer.colormap = class_colormap(classes)
    layer.features = class_features(classes)
    note(layer, **class_metadata(classes)[METADATA])


def annotation_layer(classes: Iterable[LabelClass], **about: Any) -> dict[str, Any]:
    """Attributes of a Labels layer that the user paints in."""
    kept = tuple(classes)
    return {
        "colormap": class_colormap(kept),
        "features": class_features(kept),
        "metadata": class_metadata(kept),
        "opacity": 0.6,
        **about,
    }


def result_layer(classes: Iterable[LabelClass], role: Role = "result", **about: Any) -> dict[str, Any]:
    """Attributes of a Labels layer that a model filled; it is not taken for annotation."""
    kept = tuple(classes)
    return annotation_layer(kept, **about) | {"metadata": class_metadata(kept, role=role)}
