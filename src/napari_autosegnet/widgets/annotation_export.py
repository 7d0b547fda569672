"""Annotation between layers and run folders, and what a search would find wrong with it.

``RUN/annotation/`` holds the annotation of every image as class numbers (0: not annotated), the image itself where
no file holds it, and ``annotation.json`` which says what belongs together. All of this reads and writes pixels:
call it in a thread.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.config import SplitSettings
from napari_autosegnet.data.annotations import LabelledStack, LabelMapping
from napari_autosegnet.quality import Checked
from napari_autosegnet.run import Run, write_atomically
from napari_autosegnet.widgets.layer_arrays import (
    file_of,
    full_resolution,
    is_rgb,
    layer_placement,
    layer_stack,
    spatial_shape,
)
from napari_autosegnet.widgets.ome_store import write_stack

if TYPE_CHECKING:
    from napari.layers import Image, Labels

FOLDER = "annotation"
DESCRIPTION = "annotation.json"


@dataclass(frozen=True)
class ExportedData:
    """Paths for `api.search` and `api.train`; ``classes`` reads the labels."""

    images: list[Path]
    labels: list[Path]
    classes: str


@dataclass(frozen=True)
class ImageAnnotation:
    """An image layer and the Labels layers on it, the topmost last; where it is painted it counts."""

    image: Image
    labels: tuple[Labels, ...]


class _Overlaid:
    """Several label arrays of one shape as one, indexed like an array."""

    def __init__(self, arrays: Sequence[Any]) -> None:
        self._arrays = arrays
        self.shape = arrays[0].shape
        self.dtype = np.result_type(*(array.dtype for array in arrays))

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        found = np.asarray(self._arrays[0][key]).astype(self.dtype)
        for array in self._arrays[1:]:
            above = np.asarray(array[key])
            found = np.where(above != 0, above, found)
        return found


def labelled_stack(
    annotation: ImageAnnotation, mapping: LabelMapping, pixels: npt.NDArray[np.int64] | None = None
) -> LabelledStack:
    """The layers as a labelled stack; ``pixels`` (sections, K) are its counts, where they are known."""
    from napari_autosegnet.data.images import image_from_array

    labels = image_from_array(
        _Overlaid([full_resolution(layer) for layer in annotation.labels]), name=annotation.labels[-1].name
    )
    return LabelledStack(layer_stack(annotation.image), labels, mapping, pixels)


def divide(stacks: Sequence[LabelledStack], split: SplitSettings) -> Checked:
    """Divide the annotation into a part to learn from and a part to check with; what there is of the second.

    Raises
    ------
    UserError
        When it cannot be divided.
    """
    from napari_autosegnet.data.split import region_pixels, split_stacks

    regions = split_stacks(stacks, split).validation
    pixels = region_pixels(stacks, regions)
    names = [each.name for each in stacks[0].mapping.classes]
    sections = {(region.stack, region.section) for region, found in zip(regions, pixels, strict=True) if found.any()}
    return Checked(pixels=dict(zip(names, pixels.sum(0).tolist(), strict=True)), sections=len(sections))


def export_annotation(
    run: Run,
    annotations: Sequence[ImageAnnotation],
    mapping: LabelMapping,
    image_files: dict[int, tuple[Any, Path]] | None = None,
) -> ExportedData:
    """Write annotation into a run folder; earlier annotation there is kept for whoever still reads it.

    Parameters
    ----------
    image_files : dict, optional
        Remembers the file of each image layer's array between calls.

    Raises
    ------
    UserError
        When the folder cannot be written.
    """
    folder = run.file(FOLDER)
    number = 1 + max((int(path.name) for path in folder.glob("[0-9]*") if path.name.isdigit()), default=0)
    known = {} if image_files is None else image_files
    images: list[Path] = []
    labels: list[Path] = []
    for index, annotation in enumerate(annotations, start=1):
        name = f"{index}-{file_name(annotation.image.name)}"
        array = full_resolution(annotation.image)
        held, path = known.get(id(annotation.image), (None, None))
        if held is not array or path is None or not path.exists():
            path = file_of(annotation.image)
            if path is None:
                # Numbered, too: a search or training may still read the image of an export before this one.
                path = (folder / "images" / f"{number}-{name}.ome.zarr").absolute()
                write_image_layer(annotation.image, path)
            known[id(annotation.image)] = (array, path)
        target = (folder / str(number) / f"{name}.ome.zarr").absolute()
        write_labels(annotation, mapping, target)
        images.append(path)
        labels.append(target)
    classes = ",".join(f"{value}:{info.name}:{info.color}" for value, info in enumerate(mapping.classes, start=1))
    entries = [
        {
            "name": annotation.image.name,
            "image": relative(image, folder),
            "labels": relative(label, folder),
            **_place(annotation.image),
            **({"rgb": True} if is_rgb(annotation.image) else {}),
        }
        for annotation, image, label in zip(annotations, images, labels, strict=True)
    ]
    content = {"version": 1, "classes": classes, "images": entries}
    write_atomically(folder / DESCRIPTION, json.dumps(content, indent=1) + "\n")
    return ExportedData(images, labels, classes)


def _place(image: Image) -> dict[str, list[float]]:
    placed = layer_placement(image.scale, image.translate, image.units)
    depth = len(spatial_shape(image))
    return {"scale": list(placed.scale[-depth:]), "translate": list(placed.translation[-depth:])}


def write_image_layer(layer: Image, path: Path) -> None:
    """Write an image layer's full resolution as OME-Zarr."""
    stack = layer_stack(layer)
    rgb = is_rgb(layer)
    placed = layer_placement(layer.scale, layer.translate, layer.units)
    depth = len(spatial_shape(layer))
    write_stack(
        path,
        spatial_shape(layer),
        stack.dtype,
        lambda index: stack.section(index) if rgb else stack.section(index)[0],
        scale=placed.scale[-depth:],
        translation=placed.translation[-depth:],
        unit=placed.unit,
        channels=stack.channels if rgb else None,
    )


def write_labels(annotation: ImageAnnotation, mapping: LabelMapping, path: Path) -> None:
    """Write the Labels layers of an image as class numbers."""
    stack = labelled_stack(annotation, mapping)
    image = annotation.image
    placed = layer_placement(image.scale, image.translate, image.units)
    depth = len(spatial_shape(image))
    write_stack(
        path,
        spatial_shape(annotation.image),
        np.uint8,
        stack.target,
        scale=placed.scale[-depth:],
        translation=placed.translation[-depth:],
        unit=placed.unit,
        classes=list(enumerate(mapping.classes, start=1)),
    )


def file_name(name: str) -> str:
    """A layer's name as part of a file name."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:40] or "image"


def relative(path: Path, folder: Path) -> str:
    """A path inside the run folder as seen from ``folder``, so that the folder can be moved; others as they are."""
    inside = path.is_relative_to(folder.absolute())
    return Path(os.path.relpath(path, folder.absolute())).as_posix() if inside else str(path)
