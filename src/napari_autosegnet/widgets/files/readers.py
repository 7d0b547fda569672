"""Layers of images and OME-Zarr stores, with colors and class names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_autosegnet.data.annotations import class_color, name_from_file
from napari_autosegnet.data.selection import ALL, Selection
from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.proofreading.opened import shown_levels, store_of
from napari_autosegnet.ome_zarr.metadata import OmeGroup, OmeImage, image_group
from napari_autosegnet.ome_zarr.nodes import open_array
from napari_autosegnet.ome_zarr.paths import INSTANCES, LABELS, PROBABILITIES
from napari_autosegnet.widgets.files.object_features import small_table
from napari_autosegnet.widgets.files.stack_array import StackArray
from napari_autosegnet.widgets.layers.class_colors import LabelClass, annotation_layer, result_layer
from napari_autosegnet.widgets.layers.notes import METADATA

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_autosegnet.data.images import ImageStack

LayerData = tuple[Any, ...]

#: Stacks up to this size (bytes) are read whole; larger ones section by section as they are looked at.
IN_MEMORY = 2**30
#: Longest side (pixels) of a section that is shown at full resolution, so that it can be painted.
MAX_PAINTED = 8192
#: The same of objects, so that they are drawn anew at once.
MAX_DRAWN = 1024


def placement_of(stack: ImageStack) -> dict[str, Any]:
    """Scale, translation and unit of a stack, for napari: of y and x alone where it is one section."""
    flat = 1 if stack.is_2d else 0
    about: dict[str, Any] = {"scale": stack.scale[flat:], "translate": stack.translation[flat:]}
    if stack.unit is not None:
        about["units"] = (stack.unit,) * (3 - flat)
    return about


def add_layers(viewer: ViewerModel, layers: Iterable[LayerData]) -> None:
    """Add layers to a viewer."""
    from napari.layers import Layer

    for data, about, kind in layers:
        if kind == "image":
            viewer.add_image(data, **about)  # channels become one layer each
        else:
            viewer.add_layer(Layer.create(data, about, kind))


def image_layer(path: Path, read: Selection = ALL, files: Sequence[Path] | None = None) -> tuple[Any, dict[str, Any]]:
    """Data and attributes of an Image layer for anything that `open_image` opens; ``files`` of a folder.

    Of an OME-Zarr every level and channel, at one time point.

    Raises
    ------
    UserError
        When it cannot be opened.
    """
    from napari_autosegnet.data.images import open_selected

    group = image_group(path)
    if group is not None:
        return _ome_image(group, time=read.time_point or 0)
    stack = open_selected(path, read, files)
    about: dict[str, Any] = {"name": stack.name, **placement_of(stack)}
    if stack.channels in (3, 4) and stack.dtype == np.uint8:
        about["rgb"] = True

    array = StackArray(stack, ("yx" if stack.is_2d else "zyx") + "c" * ("rgb" in about))
    is_small = array.size * array.dtype.itemsize <= IN_MEMORY
    return (np.asarray(array) if stack.is_2d or is_small else array), about


# ---------------------------------------------------------------- OME-Zarr


def read_ome_zarr(path: Path) -> list[LayerData]:
    """Image levels, label images and probabilities of an OME-Zarr store."""
    group = OmeGroup.read(path)
    if "image-label" in group.attributes:
        return [labels_layer(path)]
    layers: list[LayerData] = []
    if not group.image(strict=False).levels[0].startswith("labels/"):  # our results name their labels as their image
        data, about = _ome_image(group)
        layers.append((data, about, "image"))
    scores = image_group(path / PROBABILITIES)
    if scores is not None:
        data, about = _ome_image(scores)
        about |= {"visible": False, "blending": "additive", "contrast_limits": (0, 255)}
        about["name"] = [f"probability of {name}" for name in scores.channel_names] or "probability"
        layers.append((data, about, "image"))
    folders = (path / "labels" / name for name in OmeGroup.read(path / "labels").label_names)
    layers.extend(labels_layer(folder) for folder in folders if image_group(folder) is not None)
    return layers


def notes_of(path: Path) -> tuple[str, ...]:
    """What is doubtful about an OME-Zarr, such as a voxel of no size, in words; it is shown nevertheless."""
    from napari_autosegnet.data.images import open_image

    group = image_group(path)
    if group is None:
        return ()
    notes = notes_of_edits(path)
    try:
        return (*open_image(path, time=0 if "t" in group.image(strict=False).axes else None).notes, *notes)
    except UserError:
        return notes  # a store of labels alone, or what `read_ome_zarr` refuses with words of its own


def notes_of_edits(path: Path) -> tuple[str, ...]:
    """What keeps edits of numbered objects from being shown, in words."""
    folder = store_of(path) / INSTANCES
    group = image_group(folder)
    if group is None or not _is_prediction(folder, group.image(strict=False)):
        return ()
    return shown_levels(folder)[2]


def labels_layer(path: Path) -> LayerData:
    """Labels layer on the store itself, so that what is painted reaches it; multiscale where it is large.

    A result of a prediction can be corrected, anything else is annotation. Numbered objects are shown as their log of
    edits makes them, and are not painted.
    """
    group = image_group(path)
    if group is None:
        raise UserError(f"{path} is not a label image of an OME-Zarr; choose another")
    image = group.image(strict=False)
    is_prediction = _is_prediction(path, image)
    are_objects = is_prediction and path.name == "instances"
    arrays = (open_array(path / level, "r+") for level in image.levels)
    levels: list[Any] = list(shown_levels(path)[0] if are_objects else arrays)
    classes = stored_classes(group)
    make = result_layer if is_prediction else annotation_layer
    about = make(classes, name=_store_name(path), **_place(image))
    about.pop("channel_axis", None)
    if are_objects:
        about["metadata"][METADATA]["role"] = "objects"  # numbers, not classes: nothing there is a correction
    if not classes:
        # Numbered objects, or values that nobody named: napari's own colors tell them apart.
        del about["colormap"], about["features"]
    if are_objects and (features := small_table(path)) is not None:
        about["features"] = features
    # Beyond what a texture holds only a multiscale layer shows it; it cannot be painted. Nor are objects: of them, no
    # more than what the window shows is drawn anew after an edit.
    too_wide = max(levels[0].shape[-2:]) > (MAX_DRAWN if are_objects else MAX_PAINTED) and len(levels) > 1
    return (levels if too_wide else levels[0]), about, "labels"


def stored_classes(group: OmeGroup) -> tuple[LabelClass, ...]:
    """Values, names and colors that a label image names; empty if it names none."""
    names = {value: named for value, name in group.class_names.items() if (named := name_from_file(name))}
    colors = group.class_colors
    values = sorted(names) if names else sorted(colors.keys() - {0})
    return tuple(
        LabelClass(value, names.get(value, f"class {value}"), colors.get(value, class_color(position)))
        for position, value in enumerate(values)
    )


def _is_prediction(path: Path, image: OmeImage) -> bool:
    """Whether a label image was written by a prediction; any other is somebody's annotation."""
    return "/".join(path.parts[-2:]) in (LABELS, INSTANCES) and image.type == "nearest"


def _ome_image(group: OmeGroup, time: int | None = None) -> tuple[Any, dict[str, Any]]:
    """Levels of an image and its place; at one time point, or with the time axis that it has."""
    image = group.image(strict=False)
    levels: list[Any] = [open_array(group.folder / level) for level in image.levels]
    about: dict[str, Any] = {"name": _store_name(group.folder), **_place(image)}
    axes = image.axes
    if time is not None and "t" in axes:
        import dask.array

        at = axes.index("t")
        levels = [dask.array.take(dask.array.from_zarr(level), time, axis=at) for level in levels]
        # Neither the scale nor the translation has an entry for the channels.
        kept = len([axis for axis in axes[:at] if axis != "c"])
        for name in about.keys() & {"scale", "translate", "units"}:
            about[name] = about[name][:kept] + about[name][kept + 1 :]
        if "channel_axis" in about:
            about["channel_axis"] -= at < about["channel_axis"]
    return (levels if len(levels) > 1 else levels[0]), about


def _place(image: OmeImage) -> dict[str, Any]:
    """Scale, translation and unit of level 0 and the channel axis, for napari."""
    placed = image.placement(image.levels[0])
    scale, translation = (dict(zip("zyx", each, strict=True)) for each in (placed.scale, placed.translation))
    kept = [axis for axis in image.axes if axis != "c"]
    about: dict[str, Any] = {
        "scale": tuple(scale.get(axis, 1.0) for axis in kept),
        "translate": tuple(translation.get(axis, 0.0) for axis in kept),
    }
    if placed.unit is not None:
        about["units"] = tuple(placed.unit if axis in scale else "pixel" for axis in kept)
    if "c" in image.axes:
        about["channel_axis"] = image.axes.index("c")
    return about


def _store_name(path: Path) -> str:
    return path.name.removesuffix(".zarr").removesuffix(".ome")
