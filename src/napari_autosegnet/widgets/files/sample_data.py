"""Sample images under File > Open Sample > AutoSegNet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.annotations import infer_mapping, parse_classes
from napari_autosegnet.data.sample import SAMPLE_CLASSES, sample_folder
from napari_autosegnet.errors import UserError
from napari_autosegnet.widgets.layers.class_colors import annotation_layer, numbered
from napari_autosegnet.widgets.preferences import read_preferences

if TYPE_CHECKING:
    from napari_autosegnet.data.images import ImageStack

LayerData = tuple[Any, dict[str, Any], str]


def axons() -> list[LayerData]:
    """Electron micrograph of a nerve, to paint on."""
    return [(_pixels("axon-sem-a.png"), {"name": "axons"}, "image")]


def more_axons() -> list[LayerData]:
    """Another place of the same nerve, to apply a model to."""
    return [(_pixels("axon-sem-b.png"), {"name": "more axons"}, "image")]


def axons_labeled() -> list[LayerData]:
    """The first micrograph, fully labeled: background, myelin, axon."""
    from napari_autosegnet.data.images import open_labels

    mapping = parse_classes(SAMPLE_CLASSES)
    labels = mapping.target(open_labels(sample_folder() / "axon-sem-a-labels.png").section(0)[0])
    return [
        *axons(),
        (labels, annotation_layer(numbered(mapping.classes), name="axons annotation"), "labels"),
    ]


def own_stack() -> list[LayerData]:
    """The first labeled stack of the folder that the preferences name.

    Raises
    ------
    UserError
        When no folder is set, or it holds no labeled stack.
    """
    folder = read_preferences().samples_folder
    if folder is None:
        raise UserError(
            "no folder is set; name one that holds NAME-volume.tif and NAME-labels.tif "
            "under Preferences > AutoSegNet > Folder of a labeled stack"
        )
    return labeled_stack(folder)


def labeled_stack(folder: Path) -> list[LayerData]:
    """Image and annotation of the first ``NAME-volume.tif`` with a ``NAME-labels.tif`` beside it."""
    from napari_autosegnet.data.images import open_image, open_labels

    for volume in sorted(folder.glob("*volume*")):
        labels = volume.with_name(volume.name.replace("volume", "labels"))
        if not labels.exists():
            continue
        image, painted = open_image(volume), open_labels(labels)
        values = _whole(painted)
        values_present, numbers = np.unique(values, return_counts=True)
        mapping = infer_mapping(dict(zip(values_present.tolist(), numbers.tolist(), strict=True)))
        place: dict[str, Any] = {"scale": image.scale, "translate": image.translation}
        about = annotation_layer(numbered(mapping.classes), name=f"{image.name} annotation", **place)
        return [
            (_whole(image), {"name": image.name, **place}, "image"),
            (mapping.target(values), about, "labels"),
        ]
    raise UserError(f"{folder} holds no NAME-volume.tif with a NAME-labels.tif beside it; choose another folder")


def _pixels(file: str) -> npt.NDArray[Any]:
    from napari_autosegnet.data.images import open_image

    return open_image(sample_folder() / file).section(0)[0]


def _whole(stack: ImageStack) -> npt.NDArray[Any]:
    return stack.read(slice(None), slice(None), slice(None))[0]
