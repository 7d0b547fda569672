"""What an OME-Zarr store says about itself, made with the models of yaozarrs: axes, scale, classes, colours."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_autosegnet.data.zarr_nodes import damaged_file, is_node, open_group
from napari_autosegnet.inference.blocks import Level
from napari_autosegnet.inference.output.arrays import remove_partials
from napari_autosegnet.inference.output.places import read_json, zarrs_around

if TYPE_CHECKING:
    from napari_autosegnet.data.annotations import ClassInfo
    from napari_autosegnet.data.images import ImageStack

OmeVersion = Literal["0.4", "0.5"]
#: What to do about a result whose metadata are damaged.
ADVICE = "start again with --overwrite"


@dataclass(frozen=True)
class OmeZarrImage:
    """What an OME-Zarr image says about itself: its version, and where in it its levels lie."""

    version: OmeVersion
    levels: tuple[str, ...]


def ome_zarr_image(path: Path) -> OmeZarrImage | None:
    """The OME-Zarr image at a path; None when it is something else."""
    found: tuple[tuple[OmeVersion, object], ...] = (
        ("0.5", _entry(_entry(read_json(path / "zarr.json"), "attributes"), "ome")),
        ("0.4", read_json(path / ".zattrs")),
    )
    for version, about in found:
        if isinstance(about, dict) and "multiscales" in about:
            return OmeZarrImage(version, tuple(_level_paths(about["multiscales"])))
    return None


def pixel_folders(path: Path) -> list[Path]:
    """Where the pixels of an image lie: in its levels, if it is an OME-Zarr."""
    image = ome_zarr_image(path)
    return [path] if image is None else [path / level for level in image.levels]


def update_consolidated(node: Path) -> None:
    """Consolidate the metadata around a new Zarr array or group where they were: their readers look nowhere else."""
    import zarr

    for group in zarrs_around(node):
        if (group / ".zmetadata").is_file() or read_json(group / "zarr.json").get("consolidated_metadata"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # no part of version 3 yet; and of files that are no Zarr
                zarr.consolidate_metadata(group)


class OmeMetadata:
    """Metadata of one result: an image's place and scale, and the classes of its labels.

    Parameters
    ----------
    image : ImageStack
        The image that the result belongs to.
    classes : Sequence[ClassInfo]
        Numbered from 1.
    version : "0.4" or "0.5"
        Of OME-Zarr.
    """

    def __init__(self, image: ImageStack, classes: Sequence[ClassInfo], version: OmeVersion) -> None:
        self._image = image
        self._classes = tuple(classes)
        self.version = version
        self.zarr_format: Literal[2, 3] = 2 if version == "0.4" else 3

    def multiscale(
        self, levels: Sequence[Level], *, prefix: str = "", channel: bool = False, type: str | None = None
    ) -> dict[str, Any]:
        """One entry of ``multiscales``: the arrays ``<prefix>0``, ``<prefix>1``, ... and where they lie."""
        unit = self._image.unit if _is_ome_unit(self._image.unit) else None
        axes: list[dict[str, Any]] = [{"name": "c", "type": "channel"}] if channel else []
        for name in "yx" if self._image.is_2d else "zyx":
            axes.append({"name": name, "type": "space", **({"unit": unit} if unit else {})})
        datasets = []
        factor = np.ones(3, int)
        leading = int(channel)
        for number, level in enumerate(levels):
            factor = factor * level.factor
            # Subsampling takes the first voxel of each group, whose place stays what it was.
            scale = [1.0] * leading + self._flat(
                float(step * int(more)) for step, more in zip(self._image.scale, factor, strict=True)
            )
            translation = [0.0] * leading + self._flat(float(value) for value in self._image.translation)
            transformations: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
            if any(translation):
                transformations.append({"type": "translation", "translation": translation})
            datasets.append({"path": f"{prefix}{number}", "coordinateTransformations": transformations})
        content: dict[str, Any] = {"name": self._image.name, "axes": axes, "datasets": datasets}
        if self.version == "0.4":
            content["version"] = "0.4"
        if type is not None:
            content["type"] = type
        return content

    def image_label(self, *, within_image: bool, colours: bool = True) -> dict[str, Any]:
        """The ``image-label`` entry; class colours and names unless the labels are no classes."""
        about: dict[str, Any] = {"version": self.version}
        if colours:
            numbered = list(enumerate(self._classes, start=1))
            about["colors"] = [{"label-value": n, "rgba": [*_rgb(info.color), 255]} for n, info in numbered]
            about["properties"] = [{"label-value": n, "class": info.name} for n, info in numbered]
        if within_image:
            about["source"] = {"image": "../../"}
        return about

    def omero(self) -> dict[str, Any]:
        """Names and colours of the probabilities' channels."""
        return {
            "channels": [
                {
                    "label": info.name,
                    "color": info.color.lstrip("#").upper(),
                    "active": True,
                    "window": {"start": 0, "min": 0, "end": 255, "max": 255},
                }
                for info in self._classes
            ]
        }

    def write_group(self, folder: Path, ome: dict[str, Any]) -> None:
        """Make a group with OME metadata, or bring that of an existing one up to date."""
        import zarr

        remove_partials(folder)
        attributes = self._validated(ome)
        if not is_node(folder):
            zarr.create_group(folder, zarr_format=self.zarr_format, attributes=attributes)
            return
        group = open_group(folder, "r+", ADVICE)
        if dict(group.attrs) != attributes:
            group.attrs.put(attributes)

    def list_label(self, folder: Path, name: str) -> None:
        """Put a label on the list of a ``labels`` group, beside those that are there."""
        import zarr

        remove_partials(folder)
        if is_node(folder):
            group = open_group(folder, "r+", f"delete it, or {ADVICE}")
        else:
            group = zarr.create_group(folder, zarr_format=self.zarr_format)
        attributes = dict(group.attrs)
        ome: Any = attributes.get("ome", {}) if self.version == "0.5" else attributes
        listed = list(ome.get("labels", []))
        if name in listed:
            return
        listed.append(name)
        if self.version == "0.5":
            group.attrs.update({"ome": {"version": "0.5", **ome, "labels": listed}})
        else:
            group.attrs.update({"labels": listed})

    def unlist_label(self, folder: Path, name: str) -> None:
        """Take a label off the list of a ``labels`` group."""
        if not is_node(folder) or damaged_file(folder) is not None:
            return
        group = open_group(folder, "r+", ADVICE)
        about: Any = dict(group.attrs)
        ome = about.get("ome", about)
        left = {"labels": [each for each in ome.get("labels", []) if each != name]}
        group.attrs.update({"ome": {**ome, **left}} if "ome" in about else left)

    def _flat(self, values: Iterable[float]) -> list[float]:
        """Values per axis of the arrays; without z for a 2D image."""
        return list(values)[1:] if self._image.is_2d else list(values)

    def _validated(self, ome: dict[str, Any]) -> dict[str, Any]:
        from yaozarrs import v04, v05, validate_ome_object

        if self.version == "0.5":
            content = {"ome": {"version": "0.5", **ome}}
            validate_ome_object(content, v05.OMEAttributes)
            return content
        v04.LabelImage.model_validate(ome) if "image-label" in ome else v04.Image.model_validate(ome)
        return ome


def _entry(content: object, name: str) -> object:
    return content.get(name) if isinstance(content, dict) else None


def _level_paths(multiscales: object) -> Iterator[str]:
    for image in multiscales if isinstance(multiscales, list) else []:
        datasets = _entry(image, "datasets")
        for dataset in datasets if isinstance(datasets, list) else []:
            path = _entry(dataset, "path")
            if isinstance(path, str):
                yield path


def _rgb(color: str) -> tuple[int, int, int]:
    value = int(color.lstrip("#"), 16)
    return value >> 16, value >> 8 & 255, value & 255


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
