"""A dataset of WEBKNOSSOS: the finest magnification of a layer, within the layer's bounding box."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_autosegnet.data.array_stack import stack_of_array
from napari_autosegnet.data.readers.formats import Format, ReadRequest
from napari_autosegnet.data.readers.tensors import open_tensor
from napari_autosegnet.data.stack import ImageStack
from napari_autosegnet.errors import UserError
from napari_autosegnet.ome_zarr.paths import read_metadata
from napari_autosegnet.units import in_one_unit

_METADATA = "datasource-properties.json"
#: What describes an array, by the format of a layer.
_ARRAYS = {"zarr3": "zarr.json", "zarr": ".zarray"}


def open_webknossos(request: ReadRequest) -> ImageStack:
    path = request.path
    root = path if (path / _METADATA).is_file() else path.parent
    try:
        about = read_metadata(root / _METADATA)
        return _open_layer(_layer(about, root, request), about, root, request.time)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(f"{root / _METADATA} is incomplete or damaged; copy the dataset again") from error


def _layer(about: dict[str, Any], root: Path, request: ReadRequest) -> dict[str, Any]:
    """The layer of that name or, of the dataset, the only one of its kind."""
    layers: dict[str, dict[str, Any]] = {str(each["name"]): each for each in about["dataLayers"]}
    wanted = request.path.name
    if request.path == root:
        kind = "segmentation" if request.labels else "color"
        fitting = [name for name, each in layers.items() if each["category"] == kind]
        wanted = fitting[0] if len(fitting) == 1 else ""
    if wanted not in layers:
        example = next(iter(layers), "color")
        raise UserError(
            f"{root} is a WEBKNOSSOS dataset with the layers {', '.join(layers)}; give one, such as {root / example}"
        )
    return layers[wanted]


def _open_layer(layer: dict[str, Any], about: dict[str, Any], root: Path, time: int | None) -> ImageStack:
    name, kind = layer["name"], layer["dataFormat"]
    if kind == "wkw":
        raise UserError(
            f"{root / name} is stored as WKW, which is not read here; convert it: "
            "pip install webknossos; webknossos copy-dataset --data-format zarr3 OLD NEW"
        )
    if kind not in _ARRAYS:
        raise UserError(f"{root / name} is stored as {kind}; give the folder or the address of the array itself")
    finest = min(layer["mags"], key=lambda each: math.prod(each["mag"]))
    folder = root / (finest.get("path") or f"{name}/{_folder_name(finest['mag'])}")
    tensor, _ = open_tensor(folder, kind, _ARRAYS[kind])
    axes = _axes(layer, finest, len(tensor.shape))
    # The array begins at the origin of the dataset, and ends with a whole chunk.
    box, within = layer["boundingBox"], {}
    sides = (box["width"], box["height"], box["depth"])
    for axis, start, side, step in zip("xyz", box["topLeft"], sides, finest["mag"], strict=True):
        within[axis] = slice(start // step, -(-(start + side) // step))
    if "channelIndex" in finest and "c" in axes:
        within["c"] = slice(finest["channelIndex"], finest["channelIndex"] + 1)
    cuts = [within.get(axis, slice(None)).indices(size) for axis, size in zip(axes, tensor.shape, strict=True)]
    tensor = replace(tensor, store=tensor.store[tuple(slice(*cut) for cut in cuts)].translate_to[0])
    scale = about["scale"]
    given = scale if isinstance(scale, dict) else {"factor": scale}
    sizes = [float(size) * step for size, step in zip(given["factor"], finest["mag"], strict=True)][::-1]
    origin = [within[axis].start * size for axis, size in zip("zyx", sizes, strict=True)]
    return stack_of_array(
        tensor,
        axes,
        name=root.name,
        path=root,
        time=time,
        chunks=tensor.chunks,
        placement=in_one_unit(sizes, [given.get("unit", "nanometer")] * 3, origin),
    )


def _axes(layer: dict[str, Any], magnification: dict[str, Any], count: int) -> list[str]:
    """Names of a tensor's axes; in the file they are turned around."""
    places = dict(magnification.get("axisOrder") or {})
    places |= {each["name"]: each["index"] for each in layer.get("additionalAxes") or ()}
    names = sorted(places, key=lambda axis: int(places[axis])) or [*"cxyz"[-count:]]
    if len(names) != count or not set(names) <= set("tczyx"):
        raise UserError(f"the layer {layer['name']} has the axes {', '.join(names)} for {count}; save it with x, y, z")
    return names[::-1]


def _folder_name(magnification: list[int]) -> str:
    return "-".join(map(str, magnification if len(set(magnification)) > 1 else magnification[:1]))


def _is_webknossos(folder: Path) -> bool:
    layers = read_metadata(folder.parent / _METADATA).get("dataLayers")
    names = [each.get("name") for each in layers if isinstance(each, dict)] if isinstance(layers, list) else []
    return (folder / _METADATA).is_file() or folder.name in names


FORMAT = Format("WEBKNOSSOS", open_webknossos, takes_folder=_is_webknossos, module="tensorstore", extra="remote")
