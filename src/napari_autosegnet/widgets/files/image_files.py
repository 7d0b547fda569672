"""Layers of image files that napari itself does not open; what is not looked at is not read."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_autosegnet.data.readers.formats import Format, formats, images_in
from napari_autosegnet.errors import UserError
from napari_autosegnet.widgets.files.readers import LayerData, placement_of
from napari_autosegnet.widgets.files.stack_array import StackArray
from napari_autosegnet.widgets.layers.notes import METADATA

if TYPE_CHECKING:
    from napari_autosegnet.data.images import ImageStack

#: Formats that napari itself, or another reader of this program, opens. It offers the others through this module; the
#: manifest lists the endings of their files.
OPENED_ELSEWHERE = (
    ".npy",
    "PNG, JPEG, BMP",
    "TIFF",
    "zipped OME-Zarr",
    "Zarr, OME-Zarr",
    "a folder of TIFF, PNG, JPEG or BMP images",
)
#: A file with more images than this is a data set, which nobody wants to see as layers.
_MAX_LAYERS = 8
#: Of channels, as napari itself chooses them.
_FEW_COLORS = ("magenta", "green")
_COLORS = ("cyan", "yellow", "magenta", "red", "green", "blue")


def is_image_file(path: Path) -> bool:
    """Whether a file or folder is of a format that napari offers through this program."""
    if path.is_dir():
        return any(each.takes_folder is not None and each.takes_folder(path) for each in _offered())
    return path.name.lower().endswith(offered_endings())


def offered_endings() -> tuple[str, ...]:
    """Endings of the files that napari offers through this program."""
    return tuple(suffix for each in _offered() if each.takes_folder is None for suffix in each.suffixes)


def _offered() -> list[Format]:
    return [each for each in formats() if each.name not in OPENED_ELSEWHERE]


def image_file_layers(path: Path) -> tuple[list[LayerData], list[str]]:
    """Layers of all images in a file or folder, with what is to be told of them; nothing but sections in view is read.

    Raises
    ------
    UserError
        When the file cannot be read, or holds too many images.
    """
    from napari_autosegnet.data.images import open_image

    paths = images_in(path) if path.is_file() else [path]
    if len(paths) > _MAX_LAYERS:
        open_image(path)  # says which there are
    layers: list[LayerData] = []
    notes: list[str] = []
    for image in paths:
        is_named = True
        try:
            try:
                stack = open_image(image, time=0)
            except UserError as error:
                is_named = False
                stack = _unnamed(image, error)
        except UserError as error:
            if len(paths) == 1:
                raise
            notes.append(str(error))  # the others are shown
            continue
        notes.extend(stack.notes)
        name = stack.name if len(paths) == 1 else f"{stack.name} {image.as_posix().rpartition(':/')[2]}"
        layers.extend(_layers(stack, name, is_named=is_named))
    if not layers:
        raise UserError(notes[0])
    return layers, notes


def _unnamed(image: Path, error: UserError) -> ImageStack:
    """An image of four axes that its file does not name, as a time series until the dock was told.

    Raises
    ------
    UserError
        The one given, when it is of another kind.
    """
    from napari_autosegnet.data.images import open_image

    try:
        stack = open_image(image, time=0, axes="tzyx")
    except UserError:
        raise error from None
    stack.notes = (*stack.notes, f"{image} does not name its four axes; choose them in the dock")
    return stack


def _layers(stack: ImageStack, name: str, *, is_named: bool) -> list[LayerData]:
    """A stack as a layer (t, z, y, x) without the axes that it lacks; colors are its last axis, channels are layers."""
    axes = ("t" if stack.time_points > 1 else "") + ("yx" if stack.is_2d else "zyx")
    about: dict[str, Any] = {**placement_of(stack), "rgb": False}
    if "t" in axes:
        about["scale"], about["translate"] = (1.0, *about["scale"]), (0.0, *about["translate"])
        if "units" in about:
            about["units"] = ("pixel", *about["units"])
    about["metadata"] = {METADATA: {"file": str(stack.path)}}
    if is_named:
        about["axis_labels"] = tuple("time" if axis == "t" else axis for axis in axes)
    else:
        about["metadata"][METADATA]["unnamed"] = (stack.scale, stack.translation, stack.unit)
    if stack.channels == 1:
        return [(StackArray(stack, axes), {**about, "name": name}, "image")]
    if stack.channels in (3, 4) and stack.dtype == np.uint8:
        return [(StackArray(stack, f"{axes}c"), {**about, "name": name, "rgb": True}, "image")]
    names = stack.channel_names or tuple(map(str, range(stack.channels)))
    colors = _FEW_COLORS if stack.channels == 2 else _COLORS
    return [
        (
            StackArray(stack.with_channels([str(number)]), axes),
            {**about, "name": f"{name} {channel}", "colormap": color, "blending": "additive"},
            "image",
        )
        for number, (channel, color) in enumerate(zip(names, itertools.cycle(colors)))
    ]
