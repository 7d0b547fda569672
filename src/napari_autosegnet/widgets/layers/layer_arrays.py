"""Layers as stacks of sections.

The sections of a layer are numbered through all its time points: those of the first, then those of the second. A
layer of channels has them along its first axis; labels and results of it have no such axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.errors import UserError
from napari_autosegnet.units import Placement, in_one_unit
from napari_autosegnet.widgets.layers.axes import AXES, axes_of, full_resolution, is_rgb

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from napari_autosegnet.data.images import ImageStack

#: Bytes of an empty layer up to which it is a plain array; beyond, memory is taken only where it is painted.
_MAX_PLAIN = 2**31
#: Longest side of a chunk of such a layer.
_CHUNK = 512


def channel_count(layer: Image | Labels) -> int:
    """Channels that are used: of colors only red, green and blue."""
    shape = full_resolution(layer).shape
    return min(3, shape[-1]) if is_rgb(layer) else int(shape[0]) if axes_of(layer).startswith("c") else 1


def spatial_shape(layer: Image | Labels) -> tuple[int, ...]:
    """Shape without colors and channels: (y, x), (z, y, x), or (t, z, y, x)."""
    shape = tuple(int(size) for size in full_resolution(layer).shape)
    shape = shape[:-1] if is_rgb(layer) else shape
    return shape[1:] if axes_of(layer).startswith("c") else shape


def is_stack(layer: Image | Labels) -> bool:
    """Whether the layer is an image, a stack of sections, or several of them, one after the other in time."""
    return axes_of(layer) in AXES


def sections(layer: Image | Labels) -> int:
    """Sections of all time points together."""
    return int(np.prod(spatial_shape(layer)[:-2], dtype=np.int64))


def depth(layer: Image | Labels) -> int:
    """Sections of one time point."""
    return spatial_shape(layer)[-3] if "z" in axes_of(layer) else 1


def time_points(layer: Image | Labels) -> int:
    """How many stacks lie in a layer, one after the other in time."""
    return sections(layer) // depth(layer)


def section_index(layer: Image | Labels, section: int) -> tuple[int, ...]:
    """Where a section lies along the axes before y and x."""
    return tuple(int(place) for place in np.unravel_index(section, spatial_shape(layer)[:-2]))


def pixel_indices(layer: Labels, section: int, rows: npt.NDArray[Any], columns: npt.NDArray[Any]) -> tuple[Any, ...]:
    """Pixels of a section as `Labels.data_setitem` wants them."""
    return (*(np.full(len(rows), place) for place in section_index(layer, section)), rows, columns)


def read_section(layer: Image | Labels, section: int) -> npt.NDArray[Any]:
    """Section of a layer: (y, x), or (y, x, c) for colors and channels. May read a file, so call it in a thread."""
    array, index = full_resolution(layer), section_index(layer, section)
    if axes_of(layer).startswith("c"):
        return np.moveaxis(np.asarray(array[(slice(None), *index)]), 0, -1)
    return np.asarray(array[index] if index else array)


def empty_labels(shape: tuple[int, ...]) -> Any:
    """Nothing but 0; of whatever size, memory is taken only where something is painted."""
    if int(np.prod(shape, dtype=np.int64)) <= _MAX_PLAIN:
        return np.zeros(shape, np.uint8)
    import zarr

    chunks = (*(1 for _ in shape[:-2]), *(min(side, _CHUNK) for side in shape[-2:]))
    return zarr.create_array({}, shape=shape, chunks=chunks, dtype=np.uint8, fill_value=0)


def layer_stack(layer: Image | Labels, time: int = 0) -> ImageStack:
    """A layer, at one time point, as the stack that all other rooms work on; nothing is read yet.

    Raises
    ------
    UserError
        When the layer has too many axes.
    """
    from napari_autosegnet.data.array_stack import stack_of_array
    from napari_autosegnet.units import triple

    axes = axes_of(layer)
    if not is_stack(layer):
        raise UserError(
            f"'{layer.name}' has {layer.ndim} axes, of which some are unknown; "
            "split it (right click the layer: Split Stack) and use one part"
        )
    array = full_resolution(layer)
    alpha = is_rgb(layer) and array.shape[-1] == 4
    space = [place for place, axis in enumerate(axes) if axis in "zyx"]
    return stack_of_array(
        array,
        [*axes, *(["c"] if is_rgb(layer) else [])],
        name=layer.name,
        time=time if "t" in axes else None,
        alpha=alpha,
        placement=Placement(
            triple([float(layer.scale[place]) for place in space], 1.0),
            triple([float(layer.translate[place]) for place in space], 0.0),
        ),
    )


def stack_around(layer: Image, section: int) -> tuple[ImageStack, int]:
    """The stack of the time point that a section of a layer belongs to, and the section's number in it."""
    time, number = divmod(section, depth(layer))
    return layer_stack(layer, time), number


def layer_placement(scale: Sequence[float], translate: Sequence[float], units: Sequence[Any]) -> Placement:
    """Size and place of a layer's voxels in one unit, whatever units its axes have."""
    missing = max(0, 3 - len(scale))
    sizes, named = [*[None] * missing, *map(float, scale)], [*[None] * missing, *map(str, units or [None] * len(scale))]
    return in_one_unit(sizes[-3:], named[-3:], [*[0.0] * missing, *map(float, translate)][-3:])


def place_on(image: Image, section: int | None = None, origin: tuple[int, int] = (0, 0)) -> dict[str, Any]:
    """Attributes of a layer that lies on an image, however that is scaled, turned, sheared or measured.

    Parameters
    ----------
    section : int, optional
        The layer's first section lies on this one of the image; of a 2D image it says nothing.
    origin : (y, x)
        Pixel of the image on which the layer's first one lies.
    """
    from napari.utils.transforms import Affine

    offset = np.zeros(image.ndim)
    offset[-2:] = origin
    axes = [*range(image.ndim - len(spatial_shape(image)), image.ndim)]
    if section is not None:
        offset[axes[:-2]] = section_index(image, section)
    affine = np.array(image.affine.affine_matrix)
    # The offset is of pixels, so it is scaled and turned with them; without one nothing is rounded.
    translate = image.affine.inverse(image.data_to_world(offset)) if offset.any() else image.translate
    placed = {"scale": image.scale, "translate": translate, "rotate": image.rotate, "shear": image.shear}
    if len(axes) < image.ndim:
        # Channels have no place.
        kept = Affine(**placed).set_slice(axes)
        placed = {name: getattr(kept, name) for name in placed}
        if not placed["shear"].any():  # napari gives one number per axis then, and takes one per pair of axes
            placed["shear"] = np.zeros(len(axes) * (len(axes) - 1) // 2)
        affine = affine[1:, 1:]
    return {
        **{name: np.array(value) for name, value in placed.items()},
        "affine": affine,
        "units": tuple(image.units[place] for place in axes),
        "axis_labels": tuple(image.axis_labels[place] for place in axes),
    }
