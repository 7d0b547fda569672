"""Images and annotation as OME-Zarr 0.5 stores of one level, with scale, colours and class names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.annotations import ClassInfo
from napari_autosegnet.data.ome_zarr import ome_attributes
from napari_autosegnet.errors import UserError

#: Longest side of a chunk in y and x.
_CHUNK = 1024


def write_stack(
    path: Path,
    shape: Sequence[int],
    dtype: npt.DTypeLike,
    section: Callable[[int], npt.NDArray[Any]],
    *,
    scale: Sequence[float],
    translation: Sequence[float],
    unit: str | None = None,
    channels: int | None = None,
    classes: Sequence[tuple[int, ClassInfo]] = (),
) -> None:
    """Write a stack section by section; what was at ``path`` is replaced.

    Parameters
    ----------
    shape : sequence of int
        ``(y, x)`` or ``(z, y, x)``.
    section : callable
        Pixels of a section: ``(y, x)``, or ``(c, y, x)`` when there are ``channels``.
    scale, translation : sequence of float
        Per axis of ``shape``, in ``unit``.
    classes : sequence of (value, ClassInfo)
        For labels: which value is which class.

    Raises
    ------
    UserError
        When the place cannot be written.
    """
    import zarr

    measured = {} if unit is None else {"unit": unit}
    axes = [{"name": name, "type": "space", **measured} for name in "zyx"[-len(shape) :]]
    placed = [_place([1.0] * (channels is not None), scale, "scale")]
    if any(translation):
        placed.append(_place([0.0] * (channels is not None), translation, "translation"))
    if channels is not None:
        axes.insert(0, {"name": "c", "type": "channel"})
    ome: dict[str, Any] = {
        "version": "0.5",
        "multiscales": [
            {"name": path.stem, "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": placed}]}
        ],
    }
    if classes:
        ome["image-label"] = _image_label(classes)
    _validate(ome)
    leading = () if channels is None else (channels,)
    spatial = (1, *shape[1:]) if len(shape) == 3 else tuple(shape)
    chunks = (*(1 for _ in leading), *(min(size, _CHUNK) for size in spatial))
    try:
        group = zarr.open_group(path, mode="w", zarr_format=3)
        array = group.create_array(
            "0",
            shape=(*leading, *shape),
            chunks=chunks,
            dtype=dtype,
            fill_value=0,
            dimension_names=[str(axis["name"]) for axis in axes],
        )
        for index in range(shape[0] if len(shape) == 3 else 1):
            place = (*(slice(None) for _ in leading), *((index,) if len(shape) == 3 else ()))
            array[place or ...] = section(index)
        # Last: a store without metadata is not read as finished.
        group.attrs["ome"] = ome
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another folder") from error


def class_names(path: Path) -> tuple[tuple[int, ClassInfo], ...]:
    """Values, names and colours that a label image names, from its ``image-label`` metadata; empty if none."""
    from napari_autosegnet.data.annotations import PALETTE, name_from_file

    about = ome_attributes(path).get("image-label")
    if not isinstance(about, dict):
        return ()
    colors = {int(entry["label-value"]): _hex(entry["rgba"]) for entry in about.get("colors") or () if "rgba" in entry}
    names = {}
    for entry in about.get("properties") or ():
        name = next((entry[key] for key in ("class", "class-name", "name") if isinstance(entry.get(key), str)), None)
        if name and (name := name_from_file(name)):
            names[int(entry["label-value"])] = name
    values = sorted({*colors, *names} - {0}) if not names else sorted(names)
    return tuple(
        (
            value,
            ClassInfo(
                name=names.get(value, f"class {value}"),
                color=colors.get(value, PALETTE[position % len(PALETTE)]),
            ),
        )
        for position, value in enumerate(values)
    )


def _place(leading: list[float], values: Sequence[float], kind: str) -> dict[str, Any]:
    return {"type": kind, kind: [*leading, *(float(value) for value in np.asarray(values))]}


def _image_label(classes: Sequence[tuple[int, ClassInfo]]) -> dict[str, Any]:
    return {
        "colors": [{"label-value": value, "rgba": [*bytes.fromhex(info.color[1:]), 255]} for value, info in classes],
        "properties": [{"label-value": value, "class": info.name} for value, info in classes],
    }


def _hex(rgba: Sequence[int]) -> str:
    return "#" + bytes(int(part) for part in rgba[:3]).hex()


def _validate(ome: dict[str, Any]) -> None:
    import warnings

    from yaozarrs import v05, validate_ome_object

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the standard only recommends
        validate_ome_object({"ome": ome}, v05.OMEAttributes)
