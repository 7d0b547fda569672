"""Neuroglancer's precomputed volumes: the finest scale, with all channels."""

from __future__ import annotations

from pathlib import Path

from napari_autosegnet.data.array_stack import stack_of_array
from napari_autosegnet.data.readers.formats import Format, ReadRequest
from napari_autosegnet.data.readers.tensors import open_tensor, steps_of
from napari_autosegnet.data.stack import ImageStack
from napari_autosegnet.ome_zarr.paths import read_metadata
from napari_autosegnet.units import in_one_unit


def open_precomputed(request: ReadRequest) -> ImageStack:
    path = request.path
    tensor, about = open_tensor(path, "neuroglancer_precomputed", "info")
    offset = about["scales"][0].get("voxel_offset", [0, 0, 0])
    # The channels have no length.
    steps, units = steps_of(tensor)
    origin = [place * (step or 0.0) for place, step in zip(offset[::-1], steps, strict=True)]
    return stack_of_array(
        tensor,
        "czyx",
        name=path.name,
        path=path,
        time=request.time,
        chunks=tensor.chunks,
        placement=in_one_unit(steps, units, origin),
    )


def looks_like_precomputed(folder: Path) -> bool:
    return "scales" in read_metadata(folder / "info")


FORMAT = Format(
    "neuroglancer precomputed",
    open_precomputed,
    suffixes=(".precomputed",),
    takes_folder=looks_like_precomputed,
    module="tensorstore",
    extra="remote",
)
