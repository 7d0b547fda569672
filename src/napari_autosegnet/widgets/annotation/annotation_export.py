"""Annotation between layers and run folders, and what a search would find wrong with it.

``RUN/annotation/`` holds the annotation of every image as class numbers (0: not annotated), the image itself where
no file holds it, and ``annotation.json`` which says what belongs together. All of this reads and writes pixels:
call it in a thread.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.annotations import LabelMapping
from napari_autosegnet.data.labeled_stacks import LabeledStack
from napari_autosegnet.files import relative, write_atomically
from napari_autosegnet.ome_zarr.write import write_image
from napari_autosegnet.quality import Checked
from napari_autosegnet.run import Run
from napari_autosegnet.settings import SplitSettings
from napari_autosegnet.units import Placement
from napari_autosegnet.widgets.layers.axes import axes_of, full_resolution, is_rgb
from napari_autosegnet.widgets.layers.layer_arrays import layer_placement, layer_stack, spatial_shape, time_points
from napari_autosegnet.widgets.layers.layer_files import file_of

if TYPE_CHECKING:
    from napari.layers import Image, Labels

FOLDER = "annotation"
DESCRIPTION = "annotation.json"


@dataclass(frozen=True)
class ExportedData:
    """Paths for `api.search` and `api.train`; ``classes`` reads the labels, ``names`` are those of the images."""

    names: list[str]
    images: list[Path]
    labels: list[Path]
    classes: str


@dataclass(frozen=True)
class ImageAnnotation:
    """An image layer and the Labels layers on it, at one time point; the topmost is last, and counts where painted."""

    image: Image
    labels: tuple[Labels, ...]
    time: int = 0

    @property
    def name(self) -> str:
        return f"{self.image.name} time {self.time}" if time_points(self.image) > 1 else self.image.name


@dataclass(frozen=True, eq=False)
class _ImageState:
    """What the file of an image layer depends on."""

    array: Any
    about: tuple[Any, ...]

    @classmethod
    def of(cls, image: Image) -> _ImageState:
        placed = layer_placement(image.scale, image.translate, image.units)
        return cls(full_resolution(image), (axes_of(image), is_rgb(image), placed))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ImageState) and self.array is other.array and self.about == other.about

    __hash__ = None  # type: ignore[assignment]


#: By layer and time point: what the file was written of, where it is, and where its voxels lie. Whichever dock is open:
#: a run that began in another one knows the image by this file.
_FILES: weakref.WeakKeyDictionary[Image, dict[int, tuple[_ImageState, Path, Placement]]] = weakref.WeakKeyDictionary()


class _Overlaid:
    """Several label arrays of one shape as one, indexed like an array."""

    def __init__(self, arrays: Sequence[Any]) -> None:
        self._arrays = arrays
        self.shape = arrays[0].shape
        self.dtype = np.result_type(*(array.dtype for array in arrays))

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        values = np.asarray(self._arrays[0][key]).astype(self.dtype)
        for array in self._arrays[1:]:
            above = np.asarray(array[key])
            values = np.where(above != 0, above, values)
        return values


def labeled_stack(
    annotation: ImageAnnotation, mapping: LabelMapping, pixels: npt.NDArray[np.int64] | None = None
) -> LabeledStack:
    """The layers as a labeled stack; ``pixels`` (sections, K) are its counts, where they are known."""
    from napari_autosegnet.data.array_stack import stack_of_array

    topmost = annotation.labels[-1]
    axes = axes_of(annotation.image).removeprefix("c")
    labels = stack_of_array(
        _Overlaid([full_resolution(layer) for layer in annotation.labels]),
        axes,
        name=topmost.name,
        time=annotation.time if "t" in axes else None,
    )
    return LabeledStack(layer_stack(annotation.image, annotation.time), labels, mapping, pixels)


def divide(stacks: Sequence[LabeledStack], split: SplitSettings) -> Checked:
    """Divide the annotation into a part to learn from and a part to check with; what there is of the second.

    Raises
    ------
    UserError
        When it cannot be divided.
    """
    from napari_autosegnet.data.regions import region_pixels
    from napari_autosegnet.data.split import split_stacks

    regions = split_stacks(stacks, split).validation
    pixels = region_pixels(stacks, regions)
    names = [each.name for each in stacks[0].mapping.classes]
    sections = {(region.stack, region.section) for region, counts in zip(regions, pixels, strict=True) if counts.any()}
    return Checked(pixels=dict(zip(names, pixels.sum(0).tolist(), strict=True)), sections=len(sections))


def export_annotation(run: Run, annotations: Sequence[ImageAnnotation], mapping: LabelMapping) -> ExportedData:
    """Write annotation into a run folder; earlier annotation there is kept for whoever still reads it.

    An image layer that is unchanged is not written again.

    Raises
    ------
    UserError
        When the folder cannot be written.
    """
    from napari_autosegnet.data.images import open_image

    folder = run.file(FOLDER)
    number = 1 + max((int(path.name) for path in folder.glob("[0-9]*") if path.name.isdigit()), default=0)
    images: list[Path] = []
    labels: list[Path] = []
    for index, annotation in enumerate(annotations, start=1):
        name = f"{index}-{file_name(annotation.name)}"
        known, now = _FILES.setdefault(annotation.image, {}), _ImageState.of(annotation.image)
        # Of a file with a time axis a search would read another time point, and of one with channels napari shows one.
        is_part = axes_of(annotation.image) not in ("yx", "zyx")
        before, path, placed = known.get(annotation.time, (None, None, None))
        if before != now or path is None or placed is None or not path.exists():
            path = None if is_part else file_of(annotation.image)
            if path is None:
                # Numbered, too: a search or training may still read the image of an export before this one.
                path = (folder / "images" / f"{number}-{name}.ome.zarr").absolute()
                write_image_layer(annotation.image, path, annotation.time)
            stack = open_image(path)
            placed = Placement(stack.scale, stack.translation, stack.unit)
            known[annotation.time] = (now, path, placed)
        target = (folder / str(number) / f"{name}.ome.zarr").absolute()
        # On the file, wherever its layer was moved to in the viewer.
        write_labels(annotation, mapping, target, placed)
        images.append(path)
        labels.append(target)
    classes = ",".join(f"{value}:{info.name}:{info.color}" for value, info in enumerate(mapping.classes, start=1))
    entries = [
        {
            "name": annotation.name,
            "image": relative(image, folder),
            "labels": relative(label, folder),
            **_place(annotation.image),
            **({"rgb": True} if is_rgb(annotation.image) else {}),
            **({"channels": True} if axes_of(annotation.image).startswith("c") else {}),
        }
        for annotation, image, label in zip(annotations, images, labels, strict=True)
    ]
    content = {"version": 1, "classes": classes, "images": entries}
    write_atomically(folder / DESCRIPTION, json.dumps(content, indent=1) + "\n")
    return ExportedData([each.name for each in annotations], images, labels, classes)


def _place(image: Image) -> dict[str, list[float]]:
    placed = layer_placement(image.scale, image.translate, image.units)
    depth = len(_shape_in_space(image))
    return {"scale": list(placed.scale[-depth:]), "translate": list(placed.translation[-depth:])}


def _shape_in_space(image: Image) -> tuple[int, ...]:
    """Shape of one time point, without colors and channels."""
    return spatial_shape(image)[1:] if "t" in axes_of(image) else spatial_shape(image)


def write_image_layer(layer: Image, path: Path, time: int = 0) -> None:
    """Write an image layer's full resolution, at one time point, as OME-Zarr."""
    stack = layer_stack(layer, time)
    colors = is_rgb(layer) or axes_of(layer).startswith("c")
    placed = layer_placement(layer.scale, layer.translate, layer.units)
    write_image(
        path,
        _shape_in_space(layer),
        stack.dtype,
        lambda index: stack.section(index) if colors else stack.section(index)[0],
        placement=placed,
        channels=stack.channels if colors else None,
    )


def write_labels(annotation: ImageAnnotation, mapping: LabelMapping, path: Path, placed: Placement) -> None:
    """Write the Labels layers of an image as class numbers."""
    stack = labeled_stack(annotation, mapping)
    write_image(
        path,
        _shape_in_space(annotation.image),
        np.uint8,
        stack.target,
        placement=placed,
        classes=list(enumerate(mapping.classes, start=1)),
    )


def file_name(name: str) -> str:
    """A layer's name as part of a file name."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:40] or "image"
