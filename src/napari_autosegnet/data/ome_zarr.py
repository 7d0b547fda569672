"""Zarr arrays and OME-Zarr images, versions 0.4 and 0.5; chunks are read only where a read falls on them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_autosegnet.data.stack import (
    ImageStack,
    natural_key,
    stack_of_array,
    stack_of_unnamed,
    stem,
)
from napari_autosegnet.data.units import Placement, in_one_unit
from napari_autosegnet.data.zarr_nodes import is_node, open_node
from napari_autosegnet.errors import UserError, first_problem

if TYPE_CHECKING:
    import zarr


#: Of OME-Zarr.
_VERSIONS = ("0.4", "0.5")


def open_zarr(path: Path, time: int | None, axes: str | None = None) -> ImageStack:
    import zarr

    node = open_node(path)
    if isinstance(node, zarr.Array):
        parent = _parent_multiscales(path)
        if parent is not None:
            return _open_level(node, *parent, path, time)
        return _open_plain_zarr(node, path, time, axes)
    attributes = _attributes(node)
    if "multiscales" in attributes:
        multiscales = attributes["multiscales"]
        if not isinstance(multiscales, list) or not multiscales or not isinstance(multiscales[0], dict):
            raise UserError(f"the OME-Zarr metadata of {path} is damaged: 'multiscales' is no list of images")
        image = multiscales[0]
        check_version(attributes, path)
        first = _multiscale(image, path).datasets[0].path
        if not is_node(path / first):
            raise UserError(f"{path} lacks its full-resolution array '{first}'; the store is incomplete")
        level = open_node(path / first)
        if not isinstance(level, zarr.Array):
            raise UserError(f"'{first}' in {path} is no array; the store is damaged")
        stack = _open_level(level, image, first, path, time, group=node)
        stack.channel_names = _channel_names(attributes, stack.channels)
        if len(multiscales) > 1:
            stack.notes = (*stack.notes, _first_of(multiscales, path))
        return stack
    if "plate" in attributes or "well" in attributes:
        example = next(_images_of(path, attributes), None)
        such_as = "" if example is None else f", for example {example}"
        kind = "an OME-Zarr plate" if "plate" in attributes else "a well of an OME-Zarr plate"
        raise UserError(f"{path} is {kind}; give one image of it{such_as}")
    names = sorted((name for name, _ in node.members()), key=natural_key)
    if "bioformats2raw.layout" in attributes:
        names = [name for name in names if name != "OME"]
    if len(names) == 1:
        return open_zarr(path / names[0], time, axes)
    if not names:
        raise UserError(f"the Zarr group {path} is empty; give a store that holds an image")
    raise UserError(f"{path} is a Zarr group, not an image; give one of {', '.join(names[:8])} in it")


def _images_of(path: Path, attributes: Mapping[str, Any]) -> Iterator[Path]:
    """Images of a plate or well that are there."""
    import zarr

    for image in _paths(attributes.get("well"), "images"):
        if (path / image).is_dir():
            yield path / image
    for well in _paths(attributes.get("plate"), "wells"):
        try:
            node = zarr.open_group(path / well, mode="r")
        except Exception:  # plates may lack wells that they list
            continue
        yield from _images_of(path / well, {"well": _attributes(node).get("well")})


def _paths(about: Any, name: str) -> list[str]:
    """Paths in a list of a plate's or well's metadata."""
    entries = about.get(name) if isinstance(about, Mapping) else None
    return [str(entry["path"]) for entry in entries or () if isinstance(entry, Mapping) and "path" in entry]


def _attributes(group: zarr.Group) -> dict[str, Any]:
    """OME metadata of a group: beside the others in 0.4, under ``ome`` in 0.5."""
    attributes = dict(group.attrs)
    inner = attributes.get("ome")
    return dict(inner) if isinstance(inner, Mapping) else attributes


def ome_attributes(folder: Path) -> dict[str, Any]:
    """OME metadata of a Zarr group, read without opening it; empty where there are none that can be read."""
    for name in ("zarr.json", ".zattrs"):
        try:
            content = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        attributes = content.get("attributes") if isinstance(content, dict) and name == "zarr.json" else content
        if isinstance(attributes, dict):
            inner = attributes.get("ome")
            return inner if isinstance(inner, dict) else attributes
    return {}


def check_version(attributes: Mapping[str, Any], path: Path) -> None:
    """Refuse an OME-Zarr of a version that is read otherwise.

    Raises
    ------
    UserError
        Names the version and what can be done.
    """
    version = _version(attributes)
    if version is None or version.startswith(_VERSIONS):
        return
    raise UserError(
        f"{path} is OME-Zarr {version}, of which {' and '.join(_VERSIONS)} are read; convert it, for example with "
        f"ome-zarr-py or bioformats2raw, or give the array in it, {path / '0'}, with --axes tczyx"
    )


def _version(attributes: Mapping[str, Any]) -> str | None:
    """The version that OME metadata name: of an image in 0.4 and before, of the group since 0.5."""
    images = attributes.get("multiscales")
    image = images[0] if isinstance(images, list) and images and isinstance(images[0], Mapping) else {}
    found = image.get("version", attributes.get("version"))
    return found if isinstance(found, str) else None


def _first_of(images: Sequence[Any], path: Path) -> str:
    """The note for a store of several images."""
    names = [
        str(image.get("name") or number) if isinstance(image, Mapping) else "?" for number, image in enumerate(images)
    ]
    datasets = images[1].get("datasets") if isinstance(images[1], Mapping) else None
    first = (
        datasets[0].get("path") if isinstance(datasets, list) and datasets and isinstance(datasets[0], Mapping) else "1"
    )
    return (
        f"{path} holds {len(images)} images ({', '.join(names[:6])}), of which the first is read; "
        f"for another one give its array, for example {path / str(first)}"
    )


def _parent_multiscales(path: Path) -> tuple[dict[str, Any], str] | None:
    """The image that an array is a level of, and its path in there, if a folder above says so."""
    place = path.resolve()
    for folder in list(place.parents)[:3]:
        attributes = ome_attributes(folder)
        version, level = _version(attributes), place.relative_to(folder).as_posix()
        if version is not None and not version.startswith(_VERSIONS):
            return None
        images = attributes.get("multiscales")
        for image in images if isinstance(images, list) else []:
            if any(each.get("path") == level for each in image.get("datasets", [])):
                return dict(image), level
    return None


def _multiscale(image: Mapping[str, Any], path: Path) -> Any:
    """One entry of ``multiscales`` as a model; 0.4 and 0.5 have the same."""
    from pydantic import ValidationError
    from yaozarrs import v04, v05

    version: Any = v04 if image.get("version", "0.5") == "0.4" else v05
    content = {key: value for key, value in image.items() if key != "version"} if version is v05 else dict(image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the standard only recommends
        try:
            return version.Multiscale.model_validate_json(json.dumps(content))
        except ValidationError as error:
            raise UserError(
                f"the OME-Zarr metadata of {path} cannot be read {first_problem(error)}; write the image anew"
            ) from error


def _open_level(
    array: zarr.Array[Any],
    image: Mapping[str, Any],
    level: str,
    path: Path,
    time: int | None,
    *,
    group: zarr.Group | None = None,
) -> ImageStack:
    """One level of an image; with the image's group its lower levels are known, too."""
    model = _multiscale(image, path)
    axes = [axis.name.lower() for axis in model.axes]
    kinds = [getattr(axis, "type", None) for axis in model.axes]
    names = [{"time": "t", "channel": "c"}.get(str(kind), axis) for axis, kind in zip(axes, kinds, strict=True)]
    if len(set(names)) != len(names) or set(names) - set("tczyx") or len(names) != len(array.shape):
        raise UserError(f"{path} has the axes {', '.join(axes)}; an image has y, x and at most t, c and z")
    placed = level_placement(image, names, level)
    return stack_of_array(
        array,
        names,
        name=stem(path),
        path=path,
        time=time,
        chunks=array.chunks,
        scale=placed.scale,
        translation=placed.translation,
        unit=placed.unit,
        notes=[f"{path}: {note}" for note in placed.notes],
        pyramid_levels=1 if group is None else len(model.datasets),
        level_shapes=[] if group is None else _level_shapes(group, [each.path for each in model.datasets], names),
    )


def _level_shapes(group: zarr.Group, levels: Sequence[str], axes: Sequence[str]) -> list[tuple[int, int, int]]:
    """Shapes (z, y, x) of an image's levels, as far as they are there: only the first is needed."""
    import zarr

    shapes = []
    for level in levels:
        try:
            array = group[level]
        except Exception:  # missing or damaged, which zarr has many words for
            break
        if not isinstance(array, zarr.Array) or len(array.shape) != len(axes) or 0 in array.shape:
            break
        sizes = dict(zip(axes, array.shape, strict=True))
        shapes.append((sizes.get("z", 1), sizes["y"], sizes["x"]))
    return shapes


def level_placement(image: Mapping[str, Any], axes: Sequence[str], level: str) -> Placement:
    """Where a level lies: its own transformations, then those of all levels; ``axes`` has a letter for each."""
    dataset = next(entry for entry in image["datasets"] if entry["path"] == level)
    scale, translation = np.ones(len(axes)), np.zeros(len(axes))
    steps = [*(dataset.get("coordinateTransformations") or []), *(image.get("coordinateTransformations") or [])]
    for step in steps:
        if step["type"] == "scale":
            factor = np.asarray(step["scale"], float)
            scale, translation = scale * factor, translation * factor
        elif step["type"] == "translation":
            translation = translation + np.asarray(step["translation"], float)
    described = [axis if isinstance(axis, Mapping) else {} for axis in image["axes"]]
    place = {axis: index for index, axis in enumerate(axes)}
    found = in_one_unit(
        [float(scale[place[axis]]) if axis in place else None for axis in "zyx"],
        [described[place[axis]].get("unit") if axis in place else None for axis in "zyx"],
        [float(translation[place[axis]]) if axis in place else 0.0 for axis in "zyx"],
    )
    return found if "z" in place else replace(found, scale=(1.0, *found.scale[1:]))


def _channel_names(attributes: Mapping[str, Any], channels: int) -> tuple[str, ...] | None:
    """Names that a store's display settings give its channels."""
    omero = attributes.get("omero")
    about = omero.get("channels") if isinstance(omero, Mapping) else None
    if not isinstance(about, list) or len(about) != channels:
        return None
    names = [entry.get("label") for entry in about if isinstance(entry, Mapping)]
    return tuple(map(str, names)) if len(names) == channels and all(names) else None


def _open_plain_zarr(array: zarr.Array[Any], path: Path, time: int | None, axes: str | None = None) -> ImageStack:
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if isinstance(names, Sequence) and not isinstance(names, str) and len(names) == len(array.shape):
        short = {"time": "t", "channel": "c", "channels": "c"}
        named = [short.get(name, name) for name in (str(name).lower() for name in names)]
        if {"y", "x"} <= set(named) <= set("tczyx"):
            return stack_of_array(array, named, name=stem(path), path=path, time=time, chunks=array.chunks)
    stack = stack_of_unnamed(array, path, time, axes)
    if axes is not None:
        chunks = dict(zip(axes, array.chunks, strict=True))
        stack.chunks = (chunks.get("z", 1), chunks["y"], chunks["x"])
        return stack
    spatial = array.chunks[:-1] if stack.channels > 1 else array.chunks
    stack.chunks = (1, *spatial) if len(spatial) == 2 else (spatial[0], spatial[1], spatial[2])
    return stack
