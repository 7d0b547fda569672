"""Layers as stacks: axes, full resolution, section in view, the file behind a layer.

The sections of a layer are numbered through all its time points: those of the first, then those of the second. A
layer of channels has them along its first axis; labels and results of it have no such axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from napari_autosegnet.errors import UserError
from napari_autosegnet.units import Placement, in_one_unit

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer

    from napari_autosegnet.data.images import ImageStack

#: Key in a layer's metadata under which this program keeps what it needs to know of layers that it made.
METADATA = "napari-autosegnet"

#: Bytes of an empty layer up to which it is a plain array; beyond, memory is taken only where it is painted.
_MAX_PLAIN = 2**31
#: Longest side of a chunk of such a layer.
_CHUNK = 512

#: Of this many planes at most one asks whether they are channels.
MAX_CHANNELS = 4
PLUGIN = "napari-autosegnet"
#: What a layer's axes may be.
AXES = ("yx", "zyx", "tyx", "tzyx", "cyx", "czyx", "ctyx", "ctzyx")
_LONG_NAMES = {"c": "channel", "t": "time"}
_AXIS_NAMES = {
    **dict.fromkeys(("c", "ch", "channel", "channels"), "c"),
    **dict.fromkeys(("t", "time", "frame", "frames"), "t"),
    **dict.fromkeys(("z", "depth", "section", "sections", "slice", "plane"), "z"),
}

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


def axes_of(layer: Layer) -> str:
    """Names of a layer's axes besides colors, out of ``ctzyx`` and in this order; empty when it has too many.

    As somebody said (`set_axes`), as napari's axis labels say, or sections, and time points before them.
    """
    said = layer.metadata.get(METADATA)
    kept = said.get("axes") if isinstance(said, dict) else None
    if kept is not None and len(kept) == layer.ndim:
        return str(kept)
    return stated_by_labels(layer) or {2: "yx", 3: "zyx", 4: "tzyx"}.get(layer.ndim, "")


def is_ambiguous(layer: Image) -> bool:
    """Whether nothing says what the planes of a layer are, and some of its axes are short enough for channels.

    Only of layers that were read from a file by somebody else: who makes a layer of an array knows what it is.
    """
    shape = full_resolution(layer).shape[: layer.ndim - 2]
    may_be_channels = _is_of_unnamed(layer) or any(1 < size <= MAX_CHANNELS for size in shape)
    return layer.ndim <= 5 and has_unnamed_planes(layer) and may_be_channels


def _is_of_unnamed(layer: Image) -> bool:
    """Whether this program read a layer from a file that names no axes."""
    said = layer.metadata.get(METADATA)
    return isinstance(said, dict) and "unnamed" in said


def has_unnamed_planes(layer: Image) -> bool:
    """Whether a layer that somebody else read from a file has more than y and x, and nothing says what."""
    said = layer.metadata.get(METADATA)
    named = (isinstance(said, dict) and "axes" in said) or stated_by_labels(layer) is not None
    if layer.ndim <= 2 or named or layer.source.path is None:
        return False
    return layer.source.reader_plugin != PLUGIN or _is_of_unnamed(layer)


def possible_axes(layer: Image) -> list[str]:
    """What the axes of an ambiguous layer may be, the most likely first."""
    shape = full_resolution(layer).shape
    leading = {3: ("c", "z"), 4: ("cz", "zc", "tz", "tc", "ct"), 5: ("tcz", "tzc", "ctz")}[layer.ndim]
    if _is_of_unnamed(layer):
        last = ["zyxc", "tyxc"] if layer.ndim == 4 and shape[-1] < min(shape[1:-1]) else []
        return [*(f"{axes}yx" for axes in leading), *last]
    return [f"{axes}yx" for axes in leading if "c" not in axes or shape[axes.index("c")] <= MAX_CHANNELS]


def stated_by_file(layer: Image) -> str | None:
    """Axes that the file behind a layer states, or its name says; None when it states none. Call it in a thread."""
    from napari_autosegnet.data.readers.tiff import stated_axes
    from napari_autosegnet.data.readers.tiff_pages import TIFF_SUFFIXES

    path = layer.source.path
    if path is None or Path(path).suffix.lower() not in TIFF_SUFFIXES:
        return None
    shape = tuple(full_resolution(layer).shape[: layer.ndim])
    axes = stated_axes(Path(path), shape)
    return axes if axes is not None and "".join(sorted(axes, key="ctzyx".index)) in AXES else None


def stated_by_labels(layer: Layer) -> str | None:
    """Axes that napari's labels of a layer name; None when they leave one open."""
    names = "".join(_AXIS_NAMES.get(str(label).strip().lower(), "?") for label in layer.axis_labels[:-2]) + "yx"
    return names if names in AXES else None


def set_axes(layer: Image, axes: str) -> None:
    """Say what a layer's axes are: each of ``tczyx`` at most once. Channels become the first axis, time the next."""
    order = sorted(range(len(axes)), key=lambda place: "ctzyx".index(axes[place]))
    if order != [*range(len(axes))]:
        scale, translate, units = (np.asarray(each, object)[order] for each in _placement(layer))
        colors = [len(axes)] if is_rgb(layer) else []
        levels = [_transposed(level, [*order, *colors]) for level in (layer.data if layer.multiscale else [layer.data])]
        layer.data = levels if layer.multiscale else levels[0]
        layer.scale, layer.translate, layer.units = scale.astype(float), translate.astype(float), tuple(units)
    named = "".join(axes[place] for place in order)
    if _is_of_unnamed(layer):
        # The sizes in the file are those of z, y and x, wherever these turn out to be.
        scale, translation, unit = layer.metadata[METADATA]["unnamed"]
        layer.scale = [dict(zip("zyx", scale, strict=True)).get(axis, 1.0) for axis in named]
        layer.translate = [dict(zip("zyx", translation, strict=True)).get(axis, 0.0) for axis in named]
        layer.units = tuple(unit if unit is not None and axis in "zyx" else "pixel" for axis in named)
    layer.metadata[METADATA] = {**layer.metadata.get(METADATA, {}), "axes": named}
    layer.axis_labels = tuple(_LONG_NAMES.get(axis, axis) for axis in named)


def _placement(layer: Image) -> tuple[Any, Any, Any]:
    return layer.scale, layer.translate, layer.units


def _transposed(array: Any, order: Sequence[int]) -> Any:
    if isinstance(array, np.ndarray):
        return array.transpose(order)
    import dask.array

    return dask.array.asanyarray(array).transpose(order)


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
    from napari_autosegnet.data.stack import stack_of_array, triple

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


def shows_sections(viewer: ViewerModel) -> bool:
    """Whether the viewer shows y and x, as sections lie: not rolled, not in 3D."""
    dims = viewer.dims
    return tuple(dims.displayed) == (dims.ndim - 2, dims.ndim - 1)


def section_in_view(viewer: ViewerModel, layer: Image | Labels) -> int | None:
    """Section of a layer that the viewer shows; None when the viewer is outside the layer."""
    leading = spatial_shape(layer)[:-2]
    if not leading:
        return 0
    if viewer.dims.ndim < layer.ndim:
        return None
    place = np.round(data_in_view(viewer, layer, viewer.dims.point)[-2 - len(leading) : -2]).astype(int)
    if (place < 0).any() or (place >= leading).any():
        return None
    return int(np.ravel_multi_index(tuple(place), leading))


def time_in_view(viewer: ViewerModel, layer: Image) -> int | None:
    """Time point of a layer at the viewer's slider, the nearest that there is; None when it has no time axis."""
    axes = axes_of(layer)
    if "t" not in axes:
        return None
    place = axes.index("t") - len(axes)
    point = data_in_view(viewer, layer, viewer.dims.point)[place]
    return int(np.clip(np.round(point), 0, time_points(layer) - 1))


def data_in_view(viewer: ViewerModel, layer: Layer, point: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Where in a layer's data a point of the viewer (slider, camera) lies."""
    return np.asarray(layer.world_to_data(np.asarray(point, float)[-layer.ndim :] / _units_per_unit(viewer, layer)))


def window_in_view(viewer: ViewerModel, image: Image, side: int, step: int = 1) -> tuple[slice, slice]:
    """Rows and columns of a section around the middle of the view, ``side`` pixels of each at most.

    With a larger ``step`` they stay the same while the view is moved a little.
    """
    center = data_in_view(viewer, image, (*viewer.dims.point[:-2], *viewer.scene.camera.center[-2:]))[-2:]
    spans = []
    for length, middle in zip(spatial_shape(image)[-2:], center, strict=True):
        start = int(np.clip(round((middle - side // 2) / step) * step, 0, max(0, length - side)))
        spans.append(slice(start, min(length, start + side)))
    return spans[0], spans[1]


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


def file_of(layer: Image | Labels, time: int = 0) -> Path | None:
    """File that holds exactly what the layer shows at a time point, if there is one.

    Reads some sections: call it in a thread. Where the layer has a time axis, the file has it, too.
    """
    path, opened = _file_behind(layer, time)
    if opened is None:
        return None
    try:
        stack = layer_stack(layer, time)
        last = stack.sections - 1
        same = all(np.array_equal(opened.section(section), stack.section(section)) for section in {0, last // 2, last})
    except UserError:
        return None
    return path if same else None


def stack_with_placement(layer: Image, time: int = 0) -> ImageStack:
    """A layer's stack as a job reads it, with the size of its voxels: that in its file, if there is one.

    No pixels are read, but a file may be opened: call it in a thread.
    """
    _, opened = _file_behind(layer, time)
    if opened is not None:
        return opened
    stack = layer_stack(layer, time)
    placed = layer_placement(layer.scale, layer.translate, layer.units)
    is_volume = "z" in axes_of(layer)
    stack.scale = placed.scale if is_volume else (1.0, *placed.scale[1:])
    stack.translation, stack.unit = placed.translation, placed.unit
    return stack


def _file_behind(layer: Image | Labels, time: int) -> tuple[Path, ImageStack | None]:
    """File that a layer was read from, opened; None if there is none, or if it is of another shape."""
    from napari_autosegnet.data.images import open_image

    said = layer.metadata.get(METADATA)
    image = said.get("file") if isinstance(said, dict) else None  # of a file that holds several
    path = folder_of(full_resolution(layer)) or image or layer.source.path
    if not isinstance(path, str | Path) or not is_stack(layer):
        return Path(), None
    try:
        opened = open_image(path, time=time if "t" in axes_of(layer) else None)
        stack = layer_stack(layer, time)
        fits = opened.uniform and (opened.shape, opened.channels) == (stack.shape, stack.channels)
    except UserError:
        return Path(), None
    return Path(path), opened if fits else None


def folder_of(array: Any) -> Path | None:
    """Folder of a zarr array on the disk."""
    root = getattr(getattr(array, "store", None), "root", None)
    return None if root is None else Path(root) / str(getattr(array, "path", ""))
