"""Layers of the images and annotation that a run folder holds or names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_autosegnet.data.annotations import LabelMapping, parse_classes
from napari_autosegnet.data.selection import ALL, Selection
from napari_autosegnet.errors import UserError
from napari_autosegnet.jobs.configuration import RunConfiguration
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.annotation import annotation_export
from napari_autosegnet.widgets.files.readers import IN_MEMORY, LayerData, image_layer, placement_of
from napari_autosegnet.widgets.layers.class_colors import annotation_layer, numbered
from napari_autosegnet.widgets.layers.notes import METADATA

if TYPE_CHECKING:
    from napari_autosegnet.data.images import ImageStack


@dataclass(frozen=True)
class AnnotatedImage:
    """An image that a run learned from; ``place`` is what else its layer was given."""

    name: str
    image: Path
    labels: Path
    mapping: LabelMapping
    place: dict[str, Any]
    #: What of the files was read.
    selection: Selection = ALL


def run_layers(path: Path) -> list[LayerData]:
    """Images and annotation that a run folder holds or names.

    Raises
    ------
    UserError
        When a file is damaged or was moved.
    """
    return [layer for each in annotated_images(path) for layer in annotated_layers(each)]


def annotated_layers(annotated: AnnotatedImage) -> list[LayerData]:
    """An image that a run learned from, and its annotation.

    Raises
    ------
    UserError
        When a file is damaged or was moved.
    """
    from napari_autosegnet.data.pairs import open_pair, paired_files

    files, _ = paired_files(annotated.image, annotated.labels)
    data, about = image_layer(annotated.image, annotated.selection, files)
    about |= {"name": annotated.name, **annotated.place}
    if about.get("rgb") and "channel_axis" in about:
        data, about = _colors_last(data, about)
    placed: dict[str, Any] = {key: about[key] for key in ("scale", "translate", "units") if key in about}
    if about.pop("channels", False) and about.get("channel_axis") == 0:
        data, about = _channels_first(data, about)
    labels = _annotation(annotated, open_pair(annotated.image, annotated.labels, annotated.selection)[1], placed)
    return [(data, about, "image"), labels]


def annotation_alone(annotated: AnnotatedImage) -> LayerData:
    """The annotation of an image that is gone, as its own file says where it lies.

    Raises
    ------
    UserError
        When it is damaged or gone, too.
    """
    from napari_autosegnet.data.images import open_labels

    stack = open_labels(annotated.labels)
    return _annotation(annotated, stack, placement_of(stack))


def _annotation(annotated: AnnotatedImage, stack: ImageStack, placed: dict[str, Any]) -> LayerData:
    mapping = annotated.mapping
    target = np.stack([mapping.target(stack.section(index)[0]) for index in range(stack.sections)])
    about = annotation_layer(numbered(mapping.classes), name=f"{annotated.name} annotation", **placed)
    return (target[0] if len(placed["scale"]) == 2 else target), about, "labels"


def _channels_first(data: Any, about: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """An image whose channels were one layer when it was annotated, as one layer again."""
    space = len(about["scale"])
    kept = {key: value for key, value in about.items() if key != "channel_axis"}
    kept |= {"scale": (1, *about["scale"]), "translate": (0, *about.get("translate", (0,) * space))}
    if "units" in about:
        kept["units"] = ("pixel", *about["units"])
    kept["metadata"] = {METADATA: {"axes": "c" + "zyx"[-space:]}}
    return data, kept


def _colors_last(data: Any, about: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """An image whose channels are colors, as napari shows it: one layer, the colors on the last axis."""
    axis = about["channel_axis"]
    levels = []
    for level in data if isinstance(data, list) else [data]:
        if int(np.prod(level.shape)) * level.dtype.itemsize <= IN_MEMORY:
            levels.append(np.moveaxis(np.asarray(level), axis, -1))
        else:
            import dask.array

            levels.append(dask.array.moveaxis(dask.array.from_zarr(level), axis, -1))
    kept = {key: value for key, value in about.items() if key != "channel_axis"}
    return (levels if isinstance(data, list) else levels[0]), kept


def annotated_images(path: Path) -> list[AnnotatedImage]:
    """The images that a run folder holds or names.

    Raises
    ------
    UserError
        When what says so is damaged.
    """
    refusal = Run(path).refusal
    if refusal is not None:
        raise UserError(refusal)
    folder = path / annotation_export.FOLDER
    description = folder / annotation_export.DESCRIPTION
    try:
        if description.is_file():
            content = json.loads(description.read_text(encoding="utf-8"))
            mapping = parse_classes(content["classes"])
            return [
                AnnotatedImage(
                    entry["name"],
                    folder / entry["image"],
                    folder / entry["labels"],
                    mapping,
                    {key: entry[key] for key in ("scale", "translate", "rgb", "channels") if key in entry},
                )
                for entry in content["images"]
            ]
        data = RunConfiguration.load(Run(path)).data
        if data is None or data.mapping is None:
            return []
        pairs = zip(data.images, data.labels, strict=True)
        return [AnnotatedImage(image.stem, image, labels, data.mapping, {}, data.selection) for image, labels in pairs]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the annotation in {path} cannot be read ({type(error).__name__}: {error})") from error
