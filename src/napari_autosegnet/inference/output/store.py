"""Results in Zarr: OME-Zarr 0.4 and 0.5 with their pyramid, and plain arrays.

Both have the interface of `napari_autosegnet.inference.output.output.Output`. Pixels are written with zarr, metadata
with the models of yaozarrs.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.blocks import Block, Box, Level, PyramidPlan, Shape
from napari_autosegnet.inference.output.arrays import BlockArray, as_bits
from napari_autosegnet.inference.output.ledger import instance_ledger_path, object_table_path, scratch_path, sync_folder
from napari_autosegnet.inference.output.places import Part, is_used, stranger, taken
from napari_autosegnet.ome_zarr.metadata import OmeGroup, OmeVersion
from napari_autosegnet.ome_zarr.new_metadata import image_label, multiscale, omero
from napari_autosegnet.ome_zarr.paths import (
    INSTANCES,
    LABELS,
    PROBABILITIES,
    is_array,
    is_node,
    is_partial,
    remove_partials,
)
from napari_autosegnet.ome_zarr.write import list_label, unlist_label, update_consolidated, write_group, zarr_format
from napari_autosegnet.units import Placement

if TYPE_CHECKING:
    from napari_autosegnet.data.annotations import ClassInfo
    from napari_autosegnet.data.images import ImageStack
    from napari_autosegnet.inference.compute.block_pixels import BlockResult

#: All that a group consists of besides its members.
_GROUP_FILES = frozenset({"zarr.json", ".zgroup", ".zattrs", ".zmetadata"})


class LabelPyramid:
    """Labels of a volume, (z, y, x), at all levels; without z on the disk for a 2D image.

    Lower levels are subsampled, never interpolated, so that they hold labels.

    Parameters
    ----------
    folder : Path
        Where the arrays ``0``, ``1``, ... lie.
    plan : PyramidPlan
        Levels and blocks.
    chunks : (z, y, x)
        Of every level. With ``sharded`` a block is one shard.
    """

    def __init__(
        self,
        folder: Path,
        plan: PyramidPlan,
        *,
        chunks: Shape,
        is_2d: bool,
        dtype: npt.DTypeLike = np.uint8,
        sharded: bool = False,
        zarr_format: Literal[2, 3] = 3,
        is_group: bool = True,
    ) -> None:
        self.folder = folder
        self.plan = plan
        self.chunks = chunks
        self._is_2d = is_2d
        self.arrays = [
            BlockArray(
                folder / str(number) if is_group else folder,
                _flat(level.shape, is_2d),
                _flat(chunks, is_2d),
                dtype=dtype,
                axes=_flat(("z", "y", "x"), is_2d),
                shards=_flat(plan.block, is_2d) if sharded else None,
                zarr_format=zarr_format,
            )
            for number, level in enumerate(plan.levels)
        ]

    def make(self) -> None:
        for array in self.arrays:
            array.make()

    def open(self) -> None:
        for array in self.arrays:
            array.open()

    def read(self, box: Box, level: int = 0) -> npt.NDArray[Any]:
        """Labels (z, y, x) of a box."""
        pixels = self.arrays[level].read(*_flat(box, self._is_2d))
        return pixels[np.newaxis] if self._is_2d else pixels

    def write(self, core: Box, labels: npt.NDArray[Any], level: int = 0) -> None:
        """Write labels (z, y, x) of a block."""
        self.arrays[level].write(labels[0] if self._is_2d else labels, *_flat(core, self._is_2d))

    def written(self, core: Box, level: int = 0) -> list[bool]:
        """Which of a block's chunk files are on the disk."""
        return self.arrays[level].written(*_flat(core, self._is_2d))

    def subsample(self, level: int, position: Shape) -> None:
        """Write a block of a lower level from the level above."""
        core = self.plan.core(level, position)
        factor = self.plan.levels[level].factor
        above = self.plan.levels[level - 1].shape
        z, y, x = (
            (span[0] * step, min(span[1] * step, size)) for span, step, size in zip(core, factor, above, strict=True)
        )
        # zarr reads whole chunks for a strided slice anyway; numpy strides the dense read faster.
        dense = self.read((z, y, x), level - 1)
        self.write(core, dense[:: factor[0], :: factor[1], :: factor[2]], level)


class ProbabilityArray:
    """Class probabilities of a volume, (K, z, y, x) uint8; without z on the disk for a 2D image."""

    def __init__(
        self,
        folder: Path,
        classes: int,
        shape: Shape,
        *,
        chunks: Shape,
        block: Shape,
        is_2d: bool,
        sharded: bool = False,
        zarr_format: Literal[2, 3] = 3,
    ) -> None:
        self.folder = folder
        self._classes = classes
        self._is_2d = is_2d
        self._array = BlockArray(
            folder,
            (classes, *_flat(shape, is_2d)),
            (1, *_flat(chunks, is_2d)),
            dtype=np.uint8,
            axes=("c", *_flat(("z", "y", "x"), is_2d)),
            shards=(1, *_flat(block, is_2d)) if sharded else None,
            zarr_format=zarr_format,
        )
        self.make, self.open = self._array.make, self._array.open

    def read(self, channels: Sequence[int], box: Box) -> npt.NDArray[np.uint8]:
        """Probabilities (c, z, y, x) of some classes."""
        channels_read = [self._array.read((channel, channel + 1), *_flat(box, self._is_2d)) for channel in channels]
        whole: npt.NDArray[np.uint8] = np.concatenate(channels_read)
        return whole[:, np.newaxis] if self._is_2d else whole

    def write(self, core: Box, scores: npt.NDArray[np.uint8]) -> None:
        for channel, one in enumerate(scores):
            values = one if not self._is_2d else one[0]
            self._array.write(values[np.newaxis], (channel, channel + 1), *_flat(core, self._is_2d))

    def written(self, core: Box) -> list[bool]:
        """Which of a block's chunk files are on the disk, of all classes."""
        return self._array.written((0, self._classes), *_flat(core, self._is_2d))


class _ZarrArrays:
    """Labels and, if asked for, probabilities of a volume in Zarr, written block by block."""

    places: dict[Part, Path]
    parts: tuple[Part, ...]
    pyramid: PyramidPlan
    probabilities: ProbabilityArray | None
    _labels: LabelPyramid

    def remove_partials(self) -> None:
        for part in self.parts:
            remove_partials(self.places[part], deep=True)
            _remove_rubbish(self.places[part])

    def attach(self) -> None:
        self._labels.open()
        if self.probabilities is not None:
            self.probabilities.open()

    def write(self, block: Block, result: BlockResult) -> int:
        self._labels.write(block.core, result.labels)
        if result.probabilities is not None and self.probabilities is not None:
            self.probabilities.write(block.core, result.probabilities)
        return self.written(0, block.index)

    def written(self, level: int, number: int) -> int:
        core = self.pyramid.core(level, self.pyramid.position(level, number))
        written = self._labels.written(core, level)
        if self.probabilities is not None and not level:
            written += self.probabilities.written(core)
        return as_bits(written)

    def subsample(self, level: int, position: Shape) -> int:
        self._labels.subsample(level, position)
        return self.written(level, self.pyramid.number(level, position))


class ZarrOutput(_ZarrArrays):
    """OME-Zarr: ``labels/segmentation`` with its pyramid, ``labels/instances`` and ``probabilities`` if asked for.

    A store of its own is an image too: its root names the label arrays as its levels, so that viewers that
    open the root show something.

    Parameters
    ----------
    path : Path
        The store, or the image's own store.
    chunks, block : (z, y, x)
        Of every level. With ``sharded`` a block is one shard.
    levels : tuple[Level, ...]
        Of the labels; probabilities have full resolution only.
    """

    def __init__(
        self,
        path: Path,
        image: ImageStack,
        classes: Sequence[ClassInfo],
        *,
        chunks: Shape,
        block: Shape,
        levels: tuple[Level, ...],
        probabilities: bool,
        instances: bool,
        version: OmeVersion,
        sharded: bool,
        within_image: bool,
    ) -> None:
        if sharded and version == "0.4":
            raise UserError("OME-Zarr 0.4 has no shards; write 0.5, or do without shards")
        self.path = path
        self.labels_path = path / LABELS
        self.places: dict[Part, Path] = {
            "labels": path / LABELS,
            "probabilities": path / PROBABILITIES,
            "instances": path / INSTANCES,
        }
        asked: dict[Part, bool] = {"labels": True, "probabilities": probabilities, "instances": instances}
        self.parts: tuple[Part, ...] = tuple(part for part, wanted in asked.items() if wanted)
        self.pyramid = PyramidPlan(levels, block)
        self.within_image = within_image
        self._image = image
        self._classes = tuple(classes)
        self._version = version

        about: dict[str, Any] = {"chunks": chunks, "is_2d": image.is_2d, "sharded": sharded}
        about["zarr_format"] = zarr_format(version)
        self._labels = LabelPyramid(path / LABELS, self.pyramid, **about)
        self.instances = LabelPyramid(path / INSTANCES, self.pyramid, dtype=np.uint32, **about) if instances else None
        self.probabilities = None
        if probabilities:
            folder = path / PROBABILITIES / "0"
            self.probabilities = ProbabilityArray(folder, len(classes), image.shape, block=block, **about)

    def foreign(self, ours: Collection[Part]) -> Path | None:
        if not self.within_image and is_used(self.path) and not (ours and self._may_be_ours()):
            return self.path
        return taken(self.places, self.parts, ours)

    def _may_be_ours(self) -> bool:
        """Whether the store is one of labels; a run that was killed at its start leaves one without metadata."""
        if is_array(self.path) or not self.path.is_dir():
            return False
        if not is_node(self.path):
            return _has_only_metadata(self.path)
        return all(level.startswith(f"{LABELS}/") for level in OmeGroup.read(self.path).levels)

    def strange(self, ours: Collection[Part]) -> Path | None:
        strangers = (stranger(place, self.path) for part, place in self.places.items() if part in ours)
        return next((each for each in strangers if each is not None), None)

    def remove(self, ours: Collection[Part]) -> None:
        instance_ledger_path(self.path).unlink(missing_ok=True)
        object_table_path(self.path).unlink(missing_ok=True)
        remove_folder(scratch_path(self.path))
        for part, place in self.places.items():
            if part in ours:
                remove_folder(place)
                if part != "probabilities":
                    unlist_label(place.parent, place.name)
        if not self.within_image:
            self._remove_metadata()

    def _remove_metadata(self) -> None:
        """Forget a store of which nothing else is left: the next one may be of another version of OME-Zarr."""
        labels = self.labels_path.parent
        if is_node(labels) and _has_only_metadata(labels):
            remove_folder(labels)
        if is_node(self.path) and _has_only_metadata(self.path):
            for file in list(self.path.iterdir()):  # the folder itself may be a link, or where somebody is
                file.unlink()

    def remove_partials(self) -> None:
        for folder in (self.path, self.labels_path.parent):
            remove_partials(folder)
        super().remove_partials()

    def prepare(self) -> None:
        if not self.within_image:
            self._write_group(self.path, {"multiscales": [self._multiscale(prefix=f"{LABELS}/")]})
        self._make_labels(self._labels, colors=True)
        if self.probabilities is not None:
            content = {"multiscales": [self._multiscale(channel=True, levels=1)], "omero": omero(self._classes)}
            self._write_group(self.path / PROBABILITIES, content)
            self.probabilities.make()
        if self.instances is not None:
            self._make_labels(self.instances, colors=False)
        update_consolidated(self.labels_path)

    def _make_labels(self, labels: LabelPyramid, *, colors: bool) -> None:
        list_label(self.path / "labels", labels.folder.name, self._version)
        classes = enumerate(self._classes, start=1) if colors else ()
        content = {
            "multiscales": [self._multiscale(type="nearest")],
            "image-label": image_label(classes, version=self._version, within_image=self.within_image),
        }
        self._write_group(labels.folder, content)
        labels.make()

    def _write_group(self, folder: Path, ome: dict[str, Any]) -> None:
        write_group(folder, ome, self._version)

    def _multiscale(
        self, *, prefix: str = "", channel: bool = False, levels: int | None = None, type: str | None = None
    ) -> dict[str, Any]:
        """The entry of ``multiscales`` for the arrays ``<prefix>0``, ``<prefix>1``, ..."""
        image = self._image
        factors = np.cumprod([level.factor for level in self.pyramid.levels], axis=0).tolist()[:levels]
        return multiscale(
            image.name,
            "c" * channel + ("yx" if image.is_2d else "zyx"),
            Placement(image.scale, image.translation, image.unit),
            [(f"{prefix}{number}", factor) for number, factor in enumerate(factors)],
            version=self._version,
            type=type,
        )

    def attach(self) -> None:
        super().attach()
        if self.instances is not None:
            self.instances.open()


class PlainZarrOutput(_ZarrArrays):
    """One Zarr array of labels (z, y, x); probabilities (c, z, y, x) in ``<name>-probabilities.zarr``."""

    def __init__(
        self, path: Path, image: ImageStack, classes: int, *, chunks: Shape, block: Shape, sharded: bool
    ) -> None:
        self.path = self.labels_path = path
        scores = path.with_name(f"{path.stem}-probabilities{path.suffix}")
        self.places: dict[Part, Path] = {"labels": path, "probabilities": scores}
        self.parts: tuple[Part, ...] = ("labels", "probabilities") if classes else ("labels",)
        self.pyramid = PyramidPlan((Level(image.shape, (1, 1, 1)),), block)
        about: dict[str, Any] = {"chunks": chunks, "is_2d": image.is_2d, "sharded": sharded}
        self._labels = LabelPyramid(path, self.pyramid, is_group=False, **about)
        self.probabilities = ProbabilityArray(scores, classes, image.shape, block=block, **about) if classes else None

    def foreign(self, ours: Collection[Part]) -> Path | None:
        # The ledger may be that of an OME-Zarr at the same place.
        return taken(self.places, self.parts, [part for part in ours if self._may_be_ours(part)])

    def _may_be_ours(self, part: Part) -> bool:
        place = self.places.get(part)
        return place is not None and (is_array(place) or not is_node(place))

    def strange(self, ours: Collection[Part]) -> Path | None:
        places = (place for part, place in self.places.items() if part in ours and self._may_be_ours(part))
        strangers = (stranger(place, place.parent) for place in places)
        return next((each for each in strangers if each is not None), None)

    def remove(self, ours: Collection[Part]) -> None:
        for part, place in self.places.items():
            if part in ours and self._may_be_ours(part):
                remove_folder(place)

    def prepare(self) -> None:
        self._labels.make()
        if self.probabilities is not None:
            self.probabilities.make()
        update_consolidated(self.path)


def _has_only_metadata(group: Path) -> bool:
    """Whether nothing lies in a group but its metadata, or what a killed run left of writing them."""
    return all(entry.name in _GROUP_FILES or is_partial(entry.name) for entry in group.iterdir())


def remove_folder(folder: Path) -> None:
    """Delete a folder; renamed first, so that a crash in the middle leaves no half of a result."""
    if folder.is_symlink():
        folder.unlink()  # what it leads to is somebody else's
    elif folder.exists():
        _remove_rubbish(folder)
        folder.rename(_rubbish(folder))
        sync_folder(folder.parent)
        shutil.rmtree(_rubbish(folder))


def _rubbish(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.removed")


def _remove_rubbish(folder: Path) -> None:
    """Remove what a crash left of a folder that was being deleted."""
    shutil.rmtree(_rubbish(folder), ignore_errors=True)


def _flat(values: tuple[Any, ...], is_2d: bool) -> tuple[Any, ...]:
    """Values per spatial axis of the arrays; without z for a 2D image."""
    return values[1:] if is_2d else values
