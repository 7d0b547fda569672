"""What each axis of a layer is: as it says, as somebody said, or as is to be asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_autosegnet.widgets.layers.notes import note, notes
from napari_autosegnet.widgets.preferences import PLUGIN

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Layer

#: Of this many planes at most one asks whether they are channels.
MAX_CHANNELS = 4
#: What a layer's axes may be.
AXES = ("yx", "zyx", "tyx", "tzyx", "cyx", "czyx", "ctyx", "ctzyx")
_LONG_NAMES = {"c": "channel", "t": "time"}
_AXIS_NAMES = {
    **dict.fromkeys(("c", "ch", "channel", "channels"), "c"),
    **dict.fromkeys(("t", "time", "frame", "frames"), "t"),
    **dict.fromkeys(("z", "depth", "section", "sections", "slice", "plane"), "z"),
}


def full_resolution(layer: Image | Labels) -> Any:
    """Array of the layer's full resolution: level 0 of a multiscale layer."""
    return layer.data[0] if layer.multiscale else layer.data


def is_rgb(layer: Layer) -> bool:
    return bool(getattr(layer, "rgb", False))


def axes_of(layer: Layer) -> str:
    """Names of a layer's axes besides colors, out of ``ctzyx`` and in this order; empty when it has too many.

    As somebody said (`set_axes`), as napari's axis labels say, or sections, and time points before them.
    """
    kept = notes(layer).get("axes")
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
    return "unnamed" in notes(layer)


def has_unnamed_planes(layer: Image) -> bool:
    """Whether a layer that somebody else read from a file has more than y and x, and nothing says what."""
    named = "axes" in notes(layer) or stated_by_labels(layer) is not None
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
        placement = (layer.scale, layer.translate, layer.units)
        scale, translate, units = (np.asarray(each, object)[order] for each in placement)
        colors = [len(axes)] if is_rgb(layer) else []
        levels = [_transposed(level, [*order, *colors]) for level in (layer.data if layer.multiscale else [layer.data])]
        layer.data = levels if layer.multiscale else levels[0]
        layer.scale, layer.translate, layer.units = scale.astype(float), translate.astype(float), tuple(units)
    named = "".join(axes[place] for place in order)
    if _is_of_unnamed(layer):
        # The sizes in the file are those of z, y and x, wherever these turn out to be.
        scale, translation, unit = notes(layer)["unnamed"]
        layer.scale = [dict(zip("zyx", scale, strict=True)).get(axis, 1.0) for axis in named]
        layer.translate = [dict(zip("zyx", translation, strict=True)).get(axis, 0.0) for axis in named]
        layer.units = tuple(unit if unit is not None and axis in "zyx" else "pixel" for axis in named)
    note(layer, axes=named)
    layer.axis_labels = tuple(_LONG_NAMES.get(axis, axis) for axis in named)


def _transposed(array: Any, order: Sequence[int]) -> Any:
    if isinstance(array, np.ndarray):
        return array.transpose(order)
    import dask.array

    return dask.array.asanyarray(array).transpose(order)
