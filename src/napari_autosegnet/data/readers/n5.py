"""N5: one dataset, or the finest level (``s0``) of a group."""

from __future__ import annotations

from napari_autosegnet.data.array_stack import stack_of_file
from napari_autosegnet.data.readers.formats import Format, ReadRequest
from napari_autosegnet.data.readers.tensors import open_tensor, steps_of
from napari_autosegnet.data.stack import ImageStack
from napari_autosegnet.errors import UserError
from napari_autosegnet.ome_zarr.paths import read_metadata
from napari_autosegnet.plain_text import natural_key
from napari_autosegnet.units import in_one_unit

_METADATA = "attributes.json"


def open_n5(request: ReadRequest) -> ImageStack:
    path = request.path
    place = "s0/" if (path / "s0" / _METADATA).is_file() else ""
    if path.is_dir() and "dimensions" not in read_metadata(path / place / _METADATA):
        names = sorted((each.name for each in path.iterdir() if each.is_dir()), key=natural_key)
        such_as = f": {', '.join(names[:8])}" if names else ""
        raise UserError(f"{path} is an N5 group, not an image; give a dataset in it{such_as}")
    tensor, about = open_tensor(path, "n5", _METADATA, place)
    steps, units = steps_of(tensor)
    given = about.get("pixelResolution") or (read_metadata(path / _METADATA).get("pixelResolution") if place else None)
    if not any(steps) and isinstance(given, dict):
        steps = [*[None] * 3, *(float(step) for step in reversed(given["dimensions"]))][-3:]
        units = [str(given.get("unit", ""))] * 3
    return stack_of_file(
        tensor,
        path,
        time=request.time,
        wanted=request.axes,
        stated="zyx"[-len(tensor.shape) :] if len(tensor.shape) <= 3 else None,
        placement=in_one_unit(steps, units),
        chunks=tensor.chunks,
    )


FORMAT = Format(
    "N5",
    open_n5,
    suffixes=(".n5",),
    takes_folder=lambda folder: folder.name.lower().endswith(".n5") or (folder / _METADATA).is_file(),
    module="tensorstore",
    extra="remote",
)
