"""Zarr arrays and OME-Zarr images, versions 0.4 and 0.5; chunks are read only where a read falls on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_autosegnet.data.array_stack import stack_of_array, stack_of_file
from napari_autosegnet.data.readers.formats import Format, ReadRequest
from napari_autosegnet.data.readers.pixel_values import not_applied
from napari_autosegnet.data.stack import ImageStack
from napari_autosegnet.errors import UserError
from napari_autosegnet.ome_zarr.metadata import OmeGroup, OmeImage, images_of_plate
from napari_autosegnet.ome_zarr.nodes import open_node
from napari_autosegnet.ome_zarr.paths import is_elsewhere, looks_like_zarr
from napari_autosegnet.plain_text import natural_key

if TYPE_CHECKING:
    import zarr


def open_zarr(request: ReadRequest) -> ImageStack:
    import zarr

    path, time = request.path, request.time
    try:
        node = open_node(path)
    except FileNotFoundError:
        if not is_elsewhere(path):
            raise
        raise UserError(f"there is no Zarr store {path}; check the address, or the path within it") from None
    if isinstance(node, zarr.Array):
        around = _image_around(path)
        return _open_plain(node, path, time, request.axes) if around is None else _open_level(node, *around, path, time)
    group = _group(path)
    if "multiscales" in group.attributes:
        return _open_image(node, group, time)
    if "plate" in group.attributes or "well" in group.attributes:
        example = next(images_of_plate(group), None)
        such_as = "" if example is None else f", for example {example}"
        kind = "an OME-Zarr plate" if "plate" in group.attributes else "a well of an OME-Zarr plate"
        raise UserError(f"{path} is {kind}; give one image of it{such_as}")
    names = sorted((name for name, _ in node.members()), key=natural_key)
    if "bioformats2raw.layout" in group.attributes:
        names = [name for name in names if name != "OME"]
    if len(names) == 1:
        return open_zarr(replace(request, path=path / names[0]))
    if not names:
        raise UserError(f"the Zarr group {path} is empty; give a store that holds an image")
    raise UserError(f"{path} is a Zarr group, not an image; give one of {', '.join(names[:8])} in it")


def _open_image(node: zarr.Group, group: OmeGroup, time: int | None) -> ImageStack:
    import zarr

    path = group.folder
    image = group.image()
    first = image.levels[0]
    try:
        array = open_node(path / first)
    except FileNotFoundError:
        raise UserError(f"{path} lacks its full-resolution array '{first}'; the store is incomplete") from None
    if not isinstance(array, zarr.Array):
        raise UserError(f"'{first}' in {path} is not an array; the store is damaged")
    stack = _open_level(array, image, first, path, time, group=node)
    if len(group.channel_names) == stack.channels:
        stack.channel_names = tuple(group.channel_names)
    if len(group.images) > 1:
        names = [str(each.get("name") or number) for number, each in enumerate(group.images)]
        other = group.image(1, strict=False).levels[0]
        stack.notes = (
            *stack.notes,
            f"{path} holds {len(names)} images ({', '.join(names[:6])}), of which the first is read; "
            f"for another one give its array, for example {path / other}",
        )
    return stack


def _group(folder: Path) -> OmeGroup:
    """The OME metadata of a folder; empty where there are none."""
    if not is_elsewhere(folder):
        return OmeGroup.read(folder)
    try:
        node = open_node(folder)
    except (FileNotFoundError, UserError):
        return OmeGroup(folder, {}, None)
    return OmeGroup.of(folder, node.attrs.asdict(), node.metadata.zarr_format)


def _image_around(path: Path) -> tuple[OmeImage, str] | None:
    """The image that an array is a level of, and its path in there, if a folder above says so."""
    place = path if is_elsewhere(path) else path.resolve()
    for folder in list(place.parents)[:3]:
        group, level = _group(folder), place.relative_to(folder).as_posix()
        if not group.is_known_version:
            return None
        for number, entry in enumerate(group.images):
            if any(each.get("path") == level for each in entry.get("datasets", [])):
                return group.image(number), level
    return None


def _open_level(
    array: zarr.Array[Any],
    image: OmeImage,
    level: str,
    path: Path,
    time: int | None,
    *,
    group: zarr.Group | None = None,
) -> ImageStack:
    """One level of an image; with the image's group its lower levels are known, too."""
    axes = image.axes
    if len(set(axes)) != len(axes) or set(axes) - set("tczyx") or len(axes) != len(array.shape):
        raise UserError(f"{path} has the axes {', '.join(axes)}; an image has y, x and at most t, c and z")
    return stack_of_array(
        array,
        axes,
        name=path.name,
        path=path,
        time=time,
        chunks=array.chunks,
        placement=image.placement(level),
        notes=[f"{path}: {note}" for note in not_applied(array.attrs)],
        pyramid_levels=1 if group is None else len(image.levels),
        level_shapes=[] if group is None else _level_shapes(group, image),
    )


def _level_shapes(group: zarr.Group, image: OmeImage) -> list[tuple[int, int, int]]:
    """Shapes (z, y, x) of an image's levels, as far as they are there: only the first is needed."""
    import zarr

    shapes = []
    for level in image.levels:
        try:
            array = group[level]
        except Exception:  # missing or damaged, which zarr has many words for
            break
        if not isinstance(array, zarr.Array) or len(array.shape) != len(image.axes) or 0 in array.shape:
            break
        sizes = dict(zip(image.axes, array.shape, strict=True))
        shapes.append((sizes.get("z", 1), sizes["y"], sizes["x"]))
    return shapes


def _open_plain(array: zarr.Array[Any], path: Path, time: int | None, axes: str | None) -> ImageStack:
    return stack_of_file(
        array,
        path,
        time=time,
        wanted=axes,
        stated=_named_axes(array),
        chunks=array.chunks,
        notes=[f"{path}: {note}" for note in not_applied(array.attrs)],
    )


def _named_axes(array: zarr.Array[Any]) -> list[str] | None:
    """Names of an array's axes (t, c, z, y, x), as Zarr 3 or xarray keeps them; None where it has no such names."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if not isinstance(names, Sequence) or isinstance(names, str) or len(names) != len(array.shape):
        return None
    short = {"time": "t", "channel": "c", "channels": "c"}
    axes = [short.get(name, name) for name in (str(name).lower() for name in names)]
    return axes if {"y", "x"} <= set(axes) <= set("tczyx") else None


FORMAT = Format("Zarr, OME-Zarr", open_zarr, suffixes=(".zarr",), takes_folder=looks_like_zarr)
