"""Groups, lists of labels and whole images of OME-Zarr on the disk.

`yaozarrs.write` writes a group's metadata before its pixels; here a store without metadata is one that is not
finished, so that images are written with zarr.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from napari_autosegnet.errors import UserError
from napari_autosegnet.ome_zarr.metadata import OmeVersion
from napari_autosegnet.ome_zarr.new_metadata import group_attributes, image_label, multiscale
from napari_autosegnet.ome_zarr.nodes import open_group
from napari_autosegnet.ome_zarr.paths import damaged_file, is_node, read_metadata, remove_partials, zarrs_around
from napari_autosegnet.units import Placement

if TYPE_CHECKING:
    from napari_autosegnet.data.annotations import ClassInfo

#: What to do about a result whose metadata are damaged.
ADVICE = "start again with --overwrite"
#: Longest side of a chunk in y and x of a whole image.
_CHUNK = 1024
#: Attribute of what this program alone has to know of a store.
_OWN = "napari-autosegnet"


def zarr_format(version: OmeVersion) -> Literal[2, 3]:
    """The version of Zarr that a version of OME-Zarr is written in."""
    return 2 if version == "0.4" else 3


def write_group(folder: Path, ome: Mapping[str, Any], version: OmeVersion) -> None:
    """Make a group with OME metadata, or bring that of an existing one up to date."""
    import zarr

    remove_partials(folder)
    attributes = group_attributes(ome, version)
    if not is_node(folder):
        zarr.create_group(folder, zarr_format=zarr_format(version), attributes=attributes)
        return
    group = open_group(folder, "r+", ADVICE)
    if dict(group.attrs) != attributes:
        group.attrs.put(attributes)


def list_label(folder: Path, name: str, version: OmeVersion) -> None:
    """Put a label on the list of a ``labels`` group, beside those that are there."""
    import zarr

    remove_partials(folder)
    if is_node(folder):
        group = open_group(folder, "r+", f"delete it, or {ADVICE}")
    else:
        group = zarr.create_group(folder, zarr_format=zarr_format(version))
    attributes = dict(group.attrs)
    ome: Any = attributes.get("ome", {}) if version == "0.5" else attributes
    listed = list(ome.get("labels", []))
    if name in listed:
        return
    listed.append(name)
    if version == "0.5":
        group.attrs.update({"ome": {"version": "0.5", **ome, "labels": listed}})
    else:
        group.attrs.update({"labels": listed})


def unlist_label(folder: Path, name: str) -> None:
    """Take a label off the list of a ``labels`` group."""
    if not is_node(folder) or damaged_file(folder) is not None:
        return
    group = open_group(folder, "r+", ADVICE)
    about: Any = dict(group.attrs)
    ome = about.get("ome", about)
    left = {"labels": [each for each in ome.get("labels", []) if each != name]}
    group.attrs.update({"ome": {**ome, **left}} if "ome" in about else left)


def update_consolidated(node: Path) -> None:
    """Consolidate the metadata around a new Zarr array or group where they were: their readers look nowhere else."""
    import zarr

    for group in zarrs_around(node):
        if (group / ".zmetadata").is_file() or read_metadata(group / "zarr.json").get("consolidated_metadata"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # not part of version 3 yet; and about files that are not Zarr
                zarr.consolidate_metadata(group)


def own_attributes(folder: Path) -> Mapping[str, Any] | None:
    """What `write_image` was told to say of a store; None of those that it did not write to the end."""
    attributes = read_metadata(folder / "zarr.json").get("attributes")
    own = attributes.get(_OWN) if isinstance(attributes, dict) else None
    return own if isinstance(own, dict) else None


def write_image(
    path: Path,
    shape: Sequence[int],
    dtype: npt.DTypeLike,
    section: Callable[[int], npt.NDArray[Any]],
    *,
    placement: Placement,
    channels: int | None = None,
    classes: Sequence[tuple[int, ClassInfo]] = (),
    own: Mapping[str, Any] | None = None,
) -> None:
    """Write an image of one level as OME-Zarr 0.5, section by section; what was at ``path`` is replaced.

    Parameters
    ----------
    shape : sequence of int
        ``(y, x)`` or ``(z, y, x)``.
    section : callable
        Pixels of a section: ``(y, x)``, or ``(c, y, x)`` when there are ``channels``.
    classes : sequence of (value, ClassInfo)
        For labels: which value is which class.
    own : mapping, optional
        What the store says beside that; see `own_attributes`.

    Raises
    ------
    UserError
        When the place cannot be written.
    """
    import zarr

    is_stack = len(shape) == 3
    leading = () if channels is None else (channels,)
    axes = "c" * len(leading) + "zyx"[-len(shape) :]
    ome: dict[str, Any] = {"multiscales": [multiscale(path.stem, axes, placement, [("0", (1, 1, 1))], version="0.5")]}
    if classes:
        ome["image-label"] = image_label(classes, version="0.5")
    attributes = {**group_attributes(ome, "0.5"), _OWN: dict(own or {})}
    spatial = (1, *shape[1:]) if is_stack else tuple(shape)
    try:
        group = zarr.open_group(path, mode="w", zarr_format=3)
        array = group.create_array(
            "0",
            shape=(*leading, *shape),
            chunks=(*(1 for _ in leading), *(min(size, _CHUNK) for size in spatial)),
            dtype=dtype,
            fill_value=0,
            dimension_names=list(axes),
        )
        for index in range(shape[0] if is_stack else 1):
            place = (*(slice(None) for _ in leading), *((index,) if is_stack else ()))
            array[place or ...] = np.asarray(section(index))
        # Last: a store without metadata is not read as finished.
        group.attrs.put(attributes)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another folder"
        ) from error
