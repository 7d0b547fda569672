"""What an OME-Zarr store says about itself, checked with the models of yaozarrs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_autosegnet.errors import UserError, first_problem, one_line
from napari_autosegnet.ome_zarr.paths import read_metadata
from napari_autosegnet.units import Placement, in_one_unit

OmeVersion = Literal["0.4", "0.5"]
VERSIONS: tuple[OmeVersion, ...] = ("0.4", "0.5")


@dataclass(frozen=True)
class OmeImage:
    """One image of a group, as its metadata describe it.

    Attributes
    ----------
    axes : tuple of str
        A letter for each (t, c, z, y, x), or the name of one that is none of these.
    levels : tuple of str
        Paths of the resolution levels within the group, the full resolution first.
    type : str or None
        How the lower levels were made.
    """

    axes: tuple[str, ...]
    levels: tuple[str, ...]
    type: str | None
    _content: Mapping[str, Any]

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> OmeImage:
        described = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in content["axes"]]
        names = [str(axis["name"]).lower() for axis in described]
        kinds = [axis.get("type") for axis in described]
        letters = {"time": "t", "channel": "c"}
        axes = [letters.get(str(kind)) or letters.get(name, name) for kind, name in zip(kinds, names, strict=True)]
        return cls(tuple(axes), tuple(each["path"] for each in content["datasets"]), content.get("type"), content)

    def placement(self, level: str) -> Placement:
        """Where a level lies: its own transformations, then those of all levels."""
        dataset = next(entry for entry in self._content["datasets"] if entry["path"] == level)
        scale, translation = np.ones(len(self.axes)), np.zeros(len(self.axes))
        for about in (dataset, self._content):
            for step in about.get("coordinateTransformations") or []:
                if step["type"] == "scale":
                    scale, translation = scale * step["scale"], translation * step["scale"]
                elif step["type"] == "translation":
                    translation = translation + step["translation"]
        units = [_entry(axis, "unit") for axis in self._content["axes"]]
        place = {axis: index for index, axis in enumerate(self.axes)}
        placement = in_one_unit(
            [float(scale[place[axis]]) if axis in place else None for axis in "zyx"],
            [units[place[axis]] if axis in place else None for axis in "zyx"],
            [float(translation[place[axis]]) if axis in place else 0.0 for axis in "zyx"],
        )
        return placement if "z" in place else replace(placement, scale=(1.0, *placement.scale[1:]))


@dataclass(frozen=True)
class OmeGroup:
    """OME metadata of a folder, as they lie on the disk; empty where there are none that can be read.

    Attributes
    ----------
    attributes : mapping
        The OME metadata: beside the others in 0.4, under ``ome`` in 0.5.
    version : "0.4", "0.5" or None
        By where they lie; None where that is neither.
    """

    folder: Path
    attributes: Mapping[str, Any]
    version: OmeVersion | None

    @classmethod
    def read(cls, folder: Path) -> OmeGroup:
        for name in ("zarr.json", ".zattrs"):
            content: object = read_metadata(folder / name)
            if name == "zarr.json" and isinstance(content, dict):
                content = content.get("attributes")
            if isinstance(content, dict) and content:
                return cls.of(folder, content, 3 if name == "zarr.json" else 2)
        return cls(folder, {}, None)

    @classmethod
    def of(cls, folder: Path, attributes: Mapping[str, Any], zarr_format: int) -> OmeGroup:
        """The OME metadata among the attributes of a group."""
        inner = attributes.get("ome")
        if isinstance(inner, dict):
            return cls(folder, inner, "0.5" if zarr_format == 3 else None)
        return cls(folder, attributes, "0.4" if zarr_format == 2 else None)

    @property
    def images(self) -> list[dict[str, Any]]:
        """Entries of ``multiscales`` as they are written; empty when the group is something else."""
        entries = self.attributes.get("multiscales")
        return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []

    @property
    def is_image(self) -> bool:
        return bool(self.attributes.get("multiscales"))

    @property
    def levels(self) -> list[str]:
        """Paths of all levels of all images, as far as they can be read."""
        return [path for image in self.images for path in _texts(image.get("datasets"), "path")]

    @property
    def stated_version(self) -> str | None:
        """The version that the metadata name: of an image in 0.4 and before, of the group since 0.5."""
        image = self.images[0] if self.images else {}
        version = image.get("version", self.attributes.get("version"))
        return version if isinstance(version, str) else None

    @property
    def is_known_version(self) -> bool:
        return self.stated_version is None or self.stated_version.startswith(VERSIONS)

    @property
    def label_names(self) -> list[str]:
        """What a ``labels`` group lists."""
        names = self.attributes.get("labels")
        return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []

    @property
    def channel_names(self) -> list[str]:
        """Names that the display settings give the channels; empty where one lacks."""
        channels = _entry(self.attributes.get("omero"), "channels")
        labels = [_entry(channel, "label") for channel in channels] if isinstance(channels, list) else []
        return [str(label) for label in labels] if all(labels) else []

    @property
    def class_names(self) -> dict[int, str]:
        """Names of a label image's values as the file writes them; empty text where one is not text."""
        properties = _by_value(_entry(self.attributes.get("image-label"), "properties"))
        texts = {
            value: next((each[key] for key in ("class", "class-name", "name") if isinstance(each.get(key), str)), "")
            for value, each in properties.items()
        }
        return {value: text.strip() for value, text in texts.items()}

    @property
    def class_colors(self) -> dict[int, str]:
        """Colors of a label image's values, as ``#rrggbb``."""
        colors = _by_value(_entry(self.attributes.get("image-label"), "colors"))
        return {value: _hex(each["rgba"]) for value, each in colors.items() if "rgba" in each}

    def check_version(self) -> None:
        """Refuse an OME-Zarr of a version that is read otherwise.

        Raises
        ------
        UserError
            Names the version and what can be done.
        """
        if not self.is_known_version:
            raise UserError(
                f"{self.folder} is OME-Zarr {self.stated_version}, of which {' and '.join(VERSIONS)} are read; convert "
                "it, for example with ome-zarr-py or bioformats2raw, or give the array in it, "
                f"{self.folder / '0'}, with --axes tczyx"
            )

    def image(self, number: int = 0, *, strict: bool = True) -> OmeImage:
        """One of the images.

        Parameters
        ----------
        strict : bool
            Refuse what the standard forbids; what is only shown may be as others write it.

        Raises
        ------
        UserError
            When the metadata are damaged, or of another version.
        """
        self.check_version()
        entries = self.attributes.get("multiscales")
        if not isinstance(entries, list) or number >= len(entries) or not isinstance(entries[number], dict):
            raise UserError(
                f"the OME-Zarr metadata of {self.folder} are damaged: 'multiscales' is not a list of images"
            )
        if strict:
            _check(entries[number], self.folder)
        try:
            return OmeImage.of(entries[number])
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"the OME-Zarr metadata of {self.folder} cannot be read ({one_line(error)}); write the image again"
            ) from error


def image_group(folder: Path) -> OmeGroup | None:
    """The OME-Zarr image, of any version, at a path; None when it is something else."""
    group = OmeGroup.read(folder)
    return group if group.is_image else None


def ome_version(folder: Path) -> OmeVersion | None:
    """The version that an image's own labels are written in; None where there is no OME-Zarr image."""
    group = image_group(folder)
    return None if group is None else group.version


def pixel_folders(path: Path) -> list[Path]:
    """Where the pixels of an image lie: in its levels, if it is an OME-Zarr."""
    group = image_group(path)
    return [path] if group is None else [path / level for level in group.levels]


def images_of_plate(group: OmeGroup) -> Iterator[Path]:
    """Images of a plate or well that are there."""
    for image in _texts(_entry(group.attributes.get("well"), "images"), "path"):
        if (group.folder / image).is_dir():
            yield group.folder / image
    for well in _texts(_entry(group.attributes.get("plate"), "wells"), "path"):
        yield from images_of_plate(OmeGroup.read(group.folder / well))


def _check(image: Mapping[str, Any], folder: Path) -> None:
    """Refuse an entry of ``multiscales`` that the standard forbids; 0.4 and 0.5 have the same."""
    from pydantic import ValidationError
    from yaozarrs import v04, v05

    _check_transformations(image, folder)
    version: Any = v04 if image.get("version", "0.5") == "0.4" else v05
    content = {key: value for key, value in image.items() if key != "version"} if version is v05 else dict(image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the standard only recommends
        try:
            version.Multiscale.model_validate_json(json.dumps(content))
        except ValidationError as error:
            raise UserError(
                f"the OME-Zarr metadata of {folder} cannot be read {first_problem(error)}; write the image again"
            ) from error


def _check_transformations(image: Mapping[str, Any], folder: Path) -> None:
    """Refuse all but a scale, perhaps with a translation after it, of one number per axis; yaozarrs is less clear."""
    axes, levels = image.get("axes"), image.get("datasets")
    if not isinstance(axes, list) or not isinstance(levels, list):
        return
    for level in levels:
        steps = _entry(level, "coordinateTransformations")
        kinds = [str(_entry(step, "type")) for step in steps] if isinstance(steps, list) else ["scale"]
        if kinds not in (["scale"], ["scale", "translation"]):
            told = ", ".join(kinds) or "of an empty list"
            raise UserError(
                f"'{_entry(level, 'path')}' in {folder} has the transformations {told}; it needs a scale, and may "
                "have a translation after it; write the image again"
            )
        for step in steps if isinstance(steps, list) else ():
            kind = _entry(step, "type")
            given = _entry(step, kind) if kind in ("scale", "translation") else None
            numbers = given if isinstance(given, list) else []
            if given is not None and [isinstance(each, int | float) for each in numbers] != [True] * len(axes):
                raise UserError(
                    f"the {kind} of '{_entry(level, 'path')}' in {folder} is {given}; it needs {len(axes)} "
                    "numbers, one for each axis; write the image again"
                )


def _entry(content: object, name: str) -> Any:
    return content.get(name) if isinstance(content, Mapping) else None


def _texts(entries: object, name: str) -> list[str]:
    """The texts of one name in a list of objects."""
    texts = [_entry(entry, name) for entry in entries] if isinstance(entries, list) else []
    return [text for text in texts if isinstance(text, str)]


def _by_value(entries: object) -> dict[int, dict[str, Any]]:
    """Entries of ``image-label`` by the value that they are about."""
    about = entries if isinstance(entries, list) else []
    values = [_entry(entry, "label-value") for entry in about]
    return {value: entry for value, entry in zip(values, about, strict=True) if isinstance(value, int)}


def _hex(rgba: Sequence[int]) -> str:
    return "#" + bytes(int(part) for part in rgba[:3]).hex()
