"""Layers as stacks: spatial shape, full resolution, section in view, the file behind a layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.units import Placement, in_one_unit
from napari_autosegnet.errors import UserError

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer

    from napari_autosegnet.data.images import ImageStack

#: Key in a layer's metadata under which this program keeps what it needs to know of layers that it made.
METADATA = "napari-autosegnet"

#: Bytes of an empty layer up to which it is a plain array; beyond, memory is taken only where it is painted.
_MOST_PLAIN = 2**31
#: Longest side of a chunk of such a layer.
_CHUNK = 512

Role = Literal["result", "preview", "uncertainty", "objects"]


def role(layer: Layer) -> Role | None:
    """What this program made the layer for; None for the user's own layers."""
    about = layer.metadata.get(METADATA)
    return about.get("role") if isinstance(about, dict) else None


def full_resolution(layer: Image | Labels) -> Any:
    """Array of the layer's full resolution: level 0 of a multiscale layer."""
    return layer.data[0] if layer.multiscale else layer.data


def is_rgb(layer: Layer) -> bool:
    return bool(getattr(layer, "rgb", False))


def spatial_shape(layer: Image | Labels) -> tuple[int, ...]:
    """Shape without a colour axis."""
    shape = tuple(int(size) for size in full_resolution(layer).shape)
    return shape[:-1] if is_rgb(layer) else shape


def is_stack(layer: Image | Labels) -> bool:
    """Whether the layer is a 2D or 3D image."""
    return len(spatial_shape(layer)) in (2, 3)


def sections(layer: Image | Labels) -> int:
    shape = spatial_shape(layer)
    return shape[0] if len(shape) == 3 else 1


def read_section(layer: Image | Labels, section: int) -> npt.NDArray[Any]:
    """Section of a layer: (y, x), or (y, x, c) for RGB. May read a file, so call it in a thread."""
    array = full_resolution(layer)
    return np.asarray(array[section] if len(spatial_shape(layer)) == 3 else array)


def empty_labels(shape: tuple[int, ...]) -> Any:
    """Nothing but 0; of whatever size, memory is taken only where something is painted."""
    if int(np.prod(shape, dtype=np.int64)) <= _MOST_PLAIN:
        return np.zeros(shape, np.uint8)
    import zarr

    chunks = (*(1 for _ in shape[:-2]), *(min(side, _CHUNK) for side in shape[-2:]))
    return zarr.create_array({}, shape=shape, chunks=chunks, dtype=np.uint8, fill_value=0)


def layer_stack(layer: Image | Labels) -> ImageStack:
    """A layer as the stack that all other rooms work on; nothing is read yet.

    Raises
    ------
    UserError
        When the layer has a time axis or the like.
    """
    from napari_autosegnet.data.images import image_from_array

    if not is_stack(layer):
        raise UserError(
            f"'{layer.name}' has {len(spatial_shape(layer))} axes where 2 or 3 are needed; "
            "split it (right click the layer: Split Stack) and use one part"
        )
    array = full_resolution(layer)
    alpha = is_rgb(layer) and array.shape[-1] == 4
    return image_from_array(
        array[..., :3] if alpha else array,
        name=layer.name,
        channel_axis=-1 if is_rgb(layer) else None,
        scale=tuple(layer.scale),
        translation=tuple(layer.translate),
    )


def layer_placement(scale: Sequence[float], translate: Sequence[float], units: Sequence[Any]) -> Placement:
    """Size and place of a layer's voxels in one unit, whatever units its axes have."""
    missing = max(0, 3 - len(scale))
    sizes, named = [*[None] * missing, *map(float, scale)], [*[None] * missing, *map(str, units or [None] * len(scale))]
    return in_one_unit(sizes[-3:], named[-3:], [*[0.0] * missing, *map(float, translate)][-3:])


def shows_sections(viewer: ViewerModel) -> bool:
    """Whether the viewer shows y and x, as sections lie: not rolled, not in 3D."""
    dims = viewer.dims
    return tuple(dims.displayed) == (dims.ndim - 2, dims.ndim - 1)


def section_in_view(viewer: ViewerModel, layer: Image | Labels) -> int | None:
    """Section of a layer that the viewer shows; None when the viewer is outside the layer."""
    if len(spatial_shape(layer)) == 2:
        return 0
    if viewer.dims.ndim < layer.ndim:
        return None
    section = int(np.round(data_in_view(viewer, layer, viewer.dims.point)[-3]))
    return section if 0 <= section < sections(layer) else None


def data_in_view(viewer: ViewerModel, layer: Layer, point: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Where in a layer's data a point of the viewer (slider, camera) lies."""
    return np.asarray(layer.world_to_data(np.asarray(point, float)[-layer.ndim :] / _units_per_unit(viewer, layer)))


def view_of_data(viewer: ViewerModel, layer: Layer, point: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Where in the viewer a point of a layer's data lies."""
    return np.asarray(layer.data_to_world(point), float) * _units_per_unit(viewer, layer)


def _units_per_unit(viewer: ViewerModel, layer: Layer) -> npt.NDArray[np.float64]:
    """Per axis of the layer: the viewer's units in one of the layer's. Layers in µm and in nm lie in one view."""
    units = viewer.dims.units
    # None when the layers have nothing in common; napari converts nothing then, either.
    if units is None or len(units) < layer.ndim:
        return np.ones(layer.ndim)
    pairs = zip(layer.units, units[-layer.ndim :], strict=True)
    return np.array([1.0 if own == shared else (1.0 * own).to(shared).magnitude for own, shared in pairs])


def place_on(image: Image, section: int | None = None, origin: tuple[int, int] = (0, 0)) -> dict[str, Any]:
    """Attributes of a layer that lies on an image, however that is scaled, turned, sheared or measured.

    Parameters
    ----------
    section : int, optional
        The layer's first section lies on this one of the image; of a 2D image it says nothing.
    origin : (y, x)
        Pixel of the image on which the layer's first one lies.
    """
    offset = np.zeros(image.ndim)
    offset[-2:] = origin
    if section is not None and image.ndim > 2:
        offset[-3] = section
    affine = np.array(image.affine.affine_matrix)
    # The offset is of pixels, so it is scaled and turned with them; without one nothing is rounded.
    translate = image.affine.inverse(image.data_to_world(offset)) if offset.any() else image.translate
    return {
        "scale": np.array(image.scale),
        "translate": np.array(translate),
        "rotate": np.array(image.rotate),
        "shear": np.array(image.shear),
        "affine": affine,
        "units": image.units,
        "axis_labels": image.axis_labels,
    }


def file_of(layer: Image | Labels) -> Path | None:
    """File that holds exactly what the layer shows, if there is one. Reads some sections: call it in a thread."""
    from napari_autosegnet.data.images import open_image

    path = _store_of(full_resolution(layer)) or getattr(layer.source, "path", None)
    if not isinstance(path, str | Path) or not Path(path).exists() or not is_stack(layer):
        return None
    try:
        found = open_image(path)
        stack = layer_stack(layer)
        if not found.uniform or (found.shape, found.channels) != (stack.shape, stack.channels):
            return None
        depth = stack.sections
        same = all(
            np.array_equal(found.section(section), stack.section(section)) for section in {0, depth // 2, depth - 1}
        )
    except UserError:
        return None
    return Path(path) if same else None


def _store_of(array: Any) -> Path | None:
    """Folder of a zarr array on the disk."""
    root = getattr(getattr(array, "store", None), "root", None)
    return None if root is None else Path(root) / str(getattr(array, "path", ""))
