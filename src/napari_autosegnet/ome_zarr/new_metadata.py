"""What a new OME-Zarr store says about itself, checked with the models of yaozarrs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from napari_autosegnet.ome_zarr.metadata import OmeVersion
from napari_autosegnet.units import Placement

if TYPE_CHECKING:
    from napari_autosegnet.data.annotations import ClassInfo


def multiscale(
    name: str,
    axes: str,
    placement: Placement,
    levels: Sequence[tuple[str, Sequence[int]]],
    *,
    version: OmeVersion,
    type: str | None = None,
) -> dict[str, Any]:
    """One entry of ``multiscales``.

    Parameters
    ----------
    axes : str
        ``zyx`` or ``yx``, with a ``c`` before it for channels.
    placement : Placement
        Of the full resolution.
    levels : sequence of (path, factors)
        Each with its factor (z, y, x) from the full resolution.
    type : str, optional
        How the lower levels are made.
    """
    unit = placement.unit if _is_ome_unit(placement.unit) else None
    space = {"type": "space", **({"unit": unit} if unit else {})}
    spatial = axes.removeprefix("c")
    leading = len(axes) - len(spatial)
    datasets = []
    for path, factors in levels:
        # Subsampling takes the first voxel of each group, whose place stays what it was.
        scale = [float(step * int(factor)) for step, factor in zip(placement.scale, factors, strict=True)]
        translation = [float(value) for value in placement.translation][-len(spatial) :]
        steps: list[dict[str, Any]] = [{"type": "scale", "scale": [1.0] * leading + scale[-len(spatial) :]}]
        if any(translation):
            steps.append({"type": "translation", "translation": [0.0] * leading + translation})
        datasets.append({"path": path, "coordinateTransformations": steps})
    content: dict[str, Any] = {
        "name": name,
        "axes": [{"name": "c", "type": "channel"} if axis == "c" else {"name": axis, **space} for axis in axes],
        "datasets": datasets,
    }
    if version == "0.4":
        content["version"] = "0.4"
    if type is not None:
        content["type"] = type
    return content


def image_label(
    classes: Iterable[tuple[int, ClassInfo]] = (), *, version: OmeVersion, within_image: bool = False
) -> dict[str, Any]:
    """The ``image-label`` entry; without colors and names where the labels are not classes."""
    about: dict[str, Any] = {"version": version}
    numbered = list(classes)
    if numbered:
        about["colors"] = [{"label-value": n, "rgba": [*bytes.fromhex(info.color[1:]), 255]} for n, info in numbered]
        about["properties"] = [{"label-value": n, "class": info.name} for n, info in numbered]
    if within_image:
        about["source"] = {"image": "../../"}
    return about


def omero(classes: Iterable[ClassInfo]) -> dict[str, Any]:
    """Names and colors of the channels of probabilities."""
    return {
        "channels": [
            {
                "label": info.name,
                "color": info.color.lstrip("#").upper(),
                "active": True,
                "window": {"start": 0, "min": 0, "end": 255, "max": 255},
            }
            for info in classes
        ]
    }


def group_attributes(ome: Mapping[str, Any], version: OmeVersion) -> dict[str, Any]:
    """Attributes of a Zarr group with OME metadata, which are checked."""
    from yaozarrs import v04, v05, validate_ome_object

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the standard only recommends
        if version == "0.5":
            content = {"ome": {"version": "0.5", **ome}}
            validate_ome_object(content, v05.OMEAttributes)
            return content
        v04.LabelImage.model_validate(ome) if "image-label" in ome else v04.Image.model_validate(ome)
    return dict(ome)


def _is_ome_unit(unit: str | None) -> bool:
    """Whether a unit is one of OME-Zarr's; others are left out, since a wrong one is worse than none."""
    from yaozarrs import v05

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            v05.SpaceAxis(name="x", unit=unit)
        except (ValueError, Warning):
            return False
    return unit is not None
