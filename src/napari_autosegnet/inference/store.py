"""Where results are written: OME-Zarr 0.4 and 0.5, TIFF, PNG.

All have one interface (`Output`): `prepare` makes the store or opens that of an earlier run, `write` returns when
a block is safely on the disk. One block is one writer's; blocks are whole chunks (or shards), so no chunk has
two writers. Pixels are written with zarr, metadata with the models of yaozarrs.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import shutil
import uuid
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.blocks import (
    Block,
    Box,
    Level,
    PyramidPlan,
    Shape,
    Span,
    pyramid_levels,
    slices,
)
from napari_autosegnet.inference.ledger import sync_folder
from napari_autosegnet.run import write_atomically

if TYPE_CHECKING:
    import zarr

    from napari_autosegnet.data.annotations import ClassInfo
    from napari_autosegnet.data.images import ImageStack
    from napari_autosegnet.inference.predictor import BlockResult

OmeVersion = Literal["0.4", "0.5"]

LABELS = "labels/segmentation"
PROBABILITIES = "probabilities"

#: OME-XML wants symbols where OME-Zarr wants names.
_OME_TIFF_UNITS = {
    "angstrom": "Å",
    "nanometer": "nm",
    "micrometer": "µm",
    "millimeter": "mm",
    "centimeter": "cm",
    "meter": "m",
}


class Output(Protocol):
    """A result that is written block by block."""

    #: The file or folder beside which the ledger lies.
    path: Path
    #: What the user asked to be shown: the labels.
    labels_path: Path
    pyramid: PyramidPlan

    def exists(self) -> bool:
        """Whether there is a result, finished or not."""
        ...

    def is_occupied(self) -> bool:
        """Whether something lies where the result goes, a result or not."""
        ...

    def prepare(self) -> None:
        """Make what is missing of the store; existing blocks stay."""
        ...

    def remove(self) -> None:
        """Delete the result, and nothing else."""
        ...

    def write(self, block: Block, result: BlockResult) -> None:
        """Write a block and wait until it is on the disk."""
        ...

    def subsample(self, level: int, position: Shape) -> None:
        """Write one block of a lower pyramid level from the level above."""
        ...


def open_output(
    out: Path | None,
    image: ImageStack,
    classes: Sequence[ClassInfo],
    *,
    chunks: Shape,
    block: Shape,
    levels: int | None,
    probabilities: bool,
    version: OmeVersion = "0.5",
    sharded: bool = False,
) -> Output:
    """Output for a path: ``.tif`` and ``.png`` are files, anything else is an OME-Zarr store.

    Without a path the result goes under the image's own ``labels/``, in the image's version of OME-Zarr.

    Raises
    ------
    UserError
        When the image has no store of its own and no path is given, or the kind of file cannot hold the result.
    """
    own_version = None if image.path is None else ome_version(image.path)
    within = out is None or (image.path is not None and out.resolve() == image.path.resolve())
    if within and (image.path is None or own_version is None):
        raise UserError("the image is no OME-Zarr that could hold the result; give --out, such as --out result.zarr")
    if within:
        assert image.path is not None and own_version is not None
        place, version = image.path, own_version
    else:
        assert out is not None
        place = out
    if not within and place.suffix.lower() in (".tif", ".tiff"):
        return TiffOutput(place, image, len(classes) if probabilities else 0, block)
    if not within and place.suffix.lower() == ".png":
        return PngOutput(place, image, probabilities, block)
    if place.suffix.lower() in (".jpg", ".jpeg", ".bmp", ".npy", ".h5", ".hdf5", ".n5"):
        raise UserError(f"labels cannot be written as {place.suffix}; give --out with .zarr, .tif or .png")
    return ZarrOutput(
        place,
        image,
        classes,
        chunks=chunks,
        block=block,
        levels=_levels(image, levels),
        probabilities=probabilities,
        version=version,
        sharded=sharded,
        within_image=within,
    )


def ome_version(path: Path) -> OmeVersion | None:
    """Version of the OME-Zarr image at a path; None when it is something else."""
    for name, version in (("zarr.json", "0.5"), (".zattrs", "0.4")):
        file = path / name
        if not file.is_file():
            continue
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        attributes = content.get("attributes", {}).get("ome", {}) if version == "0.5" else content
        if isinstance(attributes, dict) and "multiscales" in attributes:
            return "0.5" if version == "0.5" else "0.4"
    return None


def _levels(image: ImageStack, wanted: int | None) -> tuple[Level, ...]:
    """Pyramid of the result: that of the source, where it has one and halves or so; else halved y and x."""
    count = wanted or image.pyramid_levels
    source = _source_shapes(image) if image.pyramid_levels > 1 else []
    levels = [Level(image.shape, (1, 1, 1))]
    for shape in source[1:count]:
        above = levels[-1].shape
        factor = tuple(max(1, round(large / small)) for large, small in zip(above, shape, strict=True))
        reach = tuple(-(-large // step) for large, step in zip(above, factor, strict=True))
        if any(not most - 1 <= small <= most for small, most in zip(shape, reach, strict=True)):
            break
        levels.append(Level(shape, (factor[0], factor[1], factor[2])))
    if len(levels) < count:
        more = pyramid_levels(levels[-1].shape, count - len(levels) + 1)
        levels.extend(more[1:])
    return tuple(levels)


def _source_shapes(image: ImageStack) -> list[Shape]:
    """Shapes (z, y, x) of the source's levels."""
    import zarr

    if image.path is None:
        return []
    group = zarr.open_group(image.path, mode="r")
    attributes = dict(group.attrs)
    about: Any = attributes.get("ome", attributes)
    multiscale = about["multiscales"][0]
    names = [axis["name"] for axis in multiscale["axes"]]
    shapes: list[Shape] = []
    for dataset in multiscale["datasets"]:
        array = group[dataset["path"]]
        assert not isinstance(array, zarr.Group)
        size = dict(zip(names, array.shape, strict=True))
        shapes.append((int(size.get("z", 1)), int(size["y"]), int(size["x"])))
    return shapes


class ZarrOutput:
    """OME-Zarr: ``labels/segmentation`` with its pyramid, and ``probabilities`` (c, z, y, x) if asked for.

    A store of its own is an image too: its root names the label arrays as its levels, so that viewers that
    open the root show something. Lower levels are subsampled, never interpolated, so that they hold classes.

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
        version: OmeVersion,
        sharded: bool,
        within_image: bool,
    ) -> None:
        if sharded and version == "0.4":
            raise UserError("OME-Zarr 0.4 has no shards; write 0.5, or do without shards")
        self.path = path
        self.labels_path = path / LABELS
        self.pyramid = PyramidPlan(levels, block)
        self._image = image
        self._classes = tuple(classes)
        self._chunks = chunks
        self._block = block
        self._probabilities = probabilities
        self._version = version
        self._sharded = sharded
        self._within_image = within_image
        self._format: Literal[2, 3] = 2 if version == "0.4" else 3
        self._arrays: dict[str, zarr.Array[Any]] = {}

    def exists(self) -> bool:
        return _is_node(self.labels_path)

    def is_occupied(self) -> bool:
        if self._within_image:
            return self.labels_path.exists() or (self._probabilities and (self.path / PROBABILITIES).exists())
        return self.path.is_file() or (self.path.is_dir() and any(self.path.iterdir()))

    def remove(self) -> None:
        for node in (LABELS, PROBABILITIES):
            folder = self.path / node
            if folder.exists():
                # Renamed first: a crash in the middle leaves no half of a result.
                rubbish = folder.with_name(f".{folder.name}.removed")
                shutil.rmtree(rubbish, ignore_errors=True)
                folder.rename(rubbish)
                shutil.rmtree(rubbish)

    def prepare(self) -> None:
        if not self._within_image:
            self._group("", {"multiscales": [self._multiscale(self._label_datasets(f"{LABELS}/"))]})
        self._list_label()
        self._group(
            LABELS,
            {
                "multiscales": [self._multiscale(self._label_datasets(""), type="nearest")],
                "image-label": self._image_label(),
            },
        )
        for number, level in enumerate(self.pyramid.levels):
            self._array(f"{LABELS}/{number}", self._spatial(level.shape), ())
        if self._probabilities:
            scale, translation = self._placed((1, 1, 1))
            dataset = _dataset("0", [1.0, *scale], None if translation is None else [0.0, *translation])
            self._group(
                PROBABILITIES,
                {"multiscales": [self._multiscale([dataset], channel=True)], "omero": self._omero()},
            )
            self._array(f"{PROBABILITIES}/0", (len(self._classes), *self._spatial(self._image.shape)), (1,))

    def write(self, block: Block, result: BlockResult) -> None:
        self._put(f"{LABELS}/0", block.core, result.labels)
        if result.probabilities is not None:
            for channel, scores in enumerate(result.probabilities):
                self._put(f"{PROBABILITIES}/0", block.core, scores, channel)

    def subsample(self, level: int, position: Shape) -> None:
        core = self.pyramid.core(level, position)
        factor = self.pyramid.levels[level].factor
        above = self.pyramid.levels[level - 1].shape
        reach = tuple(
            slice(span[0] * step, min(span[1] * step, size), step)
            for span, step, size in zip(core, factor, above, strict=True)
        )
        array = self._arrays[f"{LABELS}/{level - 1}"]
        # zarr reads whole chunks for a strided slice anyway; numpy strides the dense read faster.
        dense = np.asarray(array[tuple(slice(part.start, part.stop) for part in self._flat(reach))])
        dense = dense[tuple(slice(None, None, step) for step in self._flat(factor))]
        self._put(f"{LABELS}/{level}", core, dense if not self._image.is_2d else dense[np.newaxis])

    # ------------------------------------------------------------ chunks

    def _flat(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Values per spatial axis of the arrays; without z for a 2D image."""
        return values[1:] if self._image.is_2d else values

    def _spatial(self, shape: Shape) -> tuple[int, ...]:
        flat: tuple[int, ...] = self._flat(shape)
        return flat

    def _put(self, name: str, core: Box, values: npt.NDArray[np.uint8], channel: int | None = None) -> None:
        array = self._arrays[name]
        place = self._flat(slices(core))
        values = values[0] if self._image.is_2d else values
        if channel is not None:
            place, values = (slice(channel, channel + 1), *place), values[np.newaxis]
        array[place] = values
        self._settle(name, core, channel)

    def _settle(self, name: str, core: Box, channel: int | None) -> None:
        """Wait until a block's chunk files are on the disk, and remove what a killed run left beside them."""
        array = self._arrays[name]
        unit = array.shards or array.chunks
        spans: tuple[Span, ...] = self._flat(core)
        if channel is not None:
            spans = ((channel, channel + 1), *spans)
        ranges = [range(span[0] // step, -(-span[1] // step)) for span, step in zip(spans, unit, strict=True)]
        folder = self.path / name
        folders: dict[Path, set[str]] = {}
        for place in np.ndindex(*(len(r) for r in ranges)):
            key = array.metadata.encode_chunk_key(tuple(r[i] for r, i in zip(ranges, place, strict=True)))
            file = folder / key
            folders.setdefault(file.parent, set()).add(file.name)
        above: set[Path] = set()
        for parent, names in folders.items():
            if not parent.is_dir():
                continue  # nothing but background: no chunk was written
            above.update(one for one in (parent, *parent.parents) if one == folder or folder in one.parents)
            for entry in list(os.scandir(parent)):
                if entry.name.endswith(".partial") and entry.name.split(".")[0] in names:
                    os.unlink(entry.path)
                elif entry.name in names:
                    sync_file(Path(entry.path))
        for one in above:
            sync_folder(one)

    # ------------------------------------------------------------ metadata

    def _array(self, name: str, shape: tuple[int, ...], leading: tuple[int, ...]) -> None:
        import zarr

        folder = self.path / name
        if not _is_node(folder):
            _remove_partials(folder)
            chunks = (*leading, *self._spatial(self._chunks))
            shards = (*leading, *self._spatial(self._block)) if self._sharded else None
            axes = [*("c" for _ in leading), *self._flat(("z", "y", "x"))]
            zarr.create_array(
                folder,
                shape=shape,
                chunks=chunks,
                shards=shards,
                dtype=np.uint8,
                fill_value=0,
                zarr_format=self._format,
                dimension_names=axes if self._format == 3 else None,
                chunk_key_encoding={"name": "default" if self._format == 3 else "v2", "separator": "/"},
            )
        array = zarr.open_array(folder, mode="r+")
        if tuple(array.shape) != shape:
            raise UserError(f"{folder} has the shape {array.shape}, not {shape}; start again with --overwrite")
        self._arrays[name] = array

    def _group(self, name: str, ome: dict[str, Any]) -> None:
        """Make a group with OME metadata, or bring that of an existing one up to date."""
        import zarr

        folder = self.path / name
        _remove_partials(folder)
        attributes = self._validated(ome)
        if not _is_node(folder):
            zarr.create_group(folder, zarr_format=self._format, attributes=attributes)
            return
        group = zarr.open_group(folder, mode="r+")
        if dict(group.attrs) != attributes:
            group.attrs.put(attributes)

    def _validated(self, ome: dict[str, Any]) -> dict[str, Any]:
        from yaozarrs import v04, v05, validate_ome_object

        if self._version == "0.5":
            content = {"ome": {"version": "0.5", **ome}}
            validate_ome_object(content, v05.OMEAttributes)
            return content
        v04.LabelImage.model_validate(ome) if "image-label" in ome else v04.Image.model_validate(ome)
        return ome

    def _list_label(self) -> None:
        """Put the result on the list of labels, beside those that are there."""
        import zarr

        folder = self.path / "labels"
        _remove_partials(folder)
        if _is_node(folder):
            group = zarr.open_group(folder, mode="r+")
        else:
            group = zarr.create_group(folder, zarr_format=self._format)
        attributes = dict(group.attrs)
        ome: Any = attributes.get("ome", {}) if self._version == "0.5" else attributes
        listed = list(ome.get("labels", []))
        if "segmentation" in listed:
            return
        listed.append("segmentation")
        if self._version == "0.5":
            group.attrs.update({"ome": {"version": "0.5", **ome, "labels": listed}})
        else:
            group.attrs.update({"labels": listed})

    def _multiscale(
        self, datasets: list[dict[str, Any]], *, channel: bool = False, type: str | None = None
    ) -> dict[str, Any]:
        unit = self._image.unit if _is_ome_unit(self._image.unit) else None
        axes: list[dict[str, Any]] = [{"name": "c", "type": "channel"}] if channel else []
        for name in self._flat(("z", "y", "x")):
            axes.append({"name": name, "type": "space", **({"unit": unit} if unit else {})})
        content: dict[str, Any] = {"name": self._image.name, "axes": axes, "datasets": datasets}
        if self._version == "0.4":
            content["version"] = "0.4"
        if type is not None:
            content["type"] = type
        return content

    def _label_datasets(self, prefix: str) -> list[dict[str, Any]]:
        datasets = []
        factor = np.ones(3, int)
        for number, level in enumerate(self.pyramid.levels):
            factor = factor * level.factor
            # Subsampling takes the first voxel of each group, whose place stays what it was.
            scale, translation = self._placed((int(factor[0]), int(factor[1]), int(factor[2])))
            datasets.append(_dataset(f"{prefix}{number}", scale, translation))
        return datasets

    def _placed(self, factor: Shape) -> tuple[list[float], list[float] | None]:
        scale = [float(step * more) for step, more in zip(self._image.scale, factor, strict=True)]
        translation = [float(value) for value in self._flat(self._image.translation)]
        return list(self._flat(tuple(scale))), translation if any(translation) else None

    def _image_label(self) -> dict[str, Any]:
        colors, properties = [], []
        for number, info in enumerate(self._classes, start=1):
            colors.append({"label-value": number, "rgba": [*_rgb(info.color), 255]})
            properties.append({"label-value": number, "class": info.name})
        about: dict[str, Any] = {"version": self._version, "colors": colors, "properties": properties}
        if self._within_image:
            about["source"] = {"image": "../../"}
        return about

    def _omero(self) -> dict[str, Any]:
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


class TiffOutput:
    """One uncompressed uint8 TIFF stack, written in place; probabilities in ``<name>-probabilities.tif`` (c, z, y, x).

    It has its full size from the start, and every block its place in it, so a run goes on where it stopped.
    """

    def __init__(self, path: Path, image: ImageStack, channels: int, block: Shape) -> None:
        self.path = self.labels_path = path
        self.pyramid = PyramidPlan((Level(image.shape, (1, 1, 1)),), block)
        self._image = image
        shape = image.shape[1:] if image.is_2d else image.shape
        self._files: dict[Path, tuple[int, ...]] = {path: shape}
        self._scores = path.with_name(f"{path.stem}-probabilities{path.suffix}")
        if channels:
            self._files[self._scores] = (channels, *shape)
        self._offsets: dict[Path, int] = {}

    def exists(self) -> bool:
        return all(file.exists() for file in self._files)

    def is_occupied(self) -> bool:
        return any(file.exists() for file in self._files)

    def remove(self) -> None:
        for file in self._files:
            file.unlink(missing_ok=True)

    def prepare(self) -> None:
        import tifffile

        for file, shape in self._files.items():
            if not file.exists():
                self._make(file, shape)
            try:
                with tifffile.TiffFile(file) as tiff:
                    series = tiff.series[0]
                    offset = series.dataoffset
                    if tuple(series.shape) != shape or series.dtype != np.uint8 or offset is None:
                        raise ValueError(f"it holds {series.shape} {series.dtype}")
            except (tifffile.TiffFileError, ValueError, IndexError) as error:
                raise UserError(f"{file} is no unfinished result ({error}); start again with --overwrite") from error
            self._offsets[file] = int(offset)

    def _make(self, file: Path, shape: tuple[int, ...]) -> None:
        import tifffile

        axes = "CYX" if len(shape) == 3 and self._image.is_2d else "CZYX"[-len(shape) :]
        partial = file.with_name(f".{file.name}.partial")
        file.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(
            partial,
            shape=shape,
            dtype=np.uint8,
            photometric="minisblack",
            ome=True,
            bigtiff=math.prod(shape) > 2**31,
            # tifffile would draw a random identity, and two runs would differ.
            metadata={"axes": axes, "UUID": str(uuid.uuid5(uuid.NAMESPACE_OID, file.name)), **self._voxel_size()},
        )
        with open(partial, "rb+") as handle:
            _reserve(handle.fileno(), partial.stat().st_size)
            os.fsync(handle.fileno())
        partial.replace(file)
        sync_folder(file.parent)

    def _voxel_size(self) -> dict[str, Any]:
        image = self._image
        if image.unit is None and image.scale == (1.0, 1.0, 1.0):
            return {}
        unit = _OME_TIFF_UNITS.get(image.unit or "", "pixel")
        about: dict[str, Any] = {}
        for axis, step in zip("ZYX", image.scale, strict=True):
            about |= {f"PhysicalSize{axis}": step, f"PhysicalSize{axis}Unit": unit}
        return about

    def write(self, block: Block, result: BlockResult) -> None:
        self._put(self.path, block, result.labels)
        if result.probabilities is not None:
            for channel, scores in enumerate(result.probabilities):
                self._put(self._scores, block, scores, channel)

    def _put(self, file: Path, block: Block, values: npt.NDArray[np.uint8], channel: int = 0) -> None:
        depth, height, width = self._image.shape
        (z0, z1), (y0, y1), (x0, x1) = block.core
        start = self._offsets[file] + channel * depth * height * width
        with open(file, "rb+") as handle:
            for z in range(z0, z1):
                section = np.ascontiguousarray(values[z - z0])
                if x1 - x0 == width:
                    handle.seek(start + (z * height + y0) * width)
                    handle.write(section.tobytes())
                    continue
                for y in range(y0, y1):
                    handle.seek(start + (z * height + y) * width + x0)
                    handle.write(section[y - y0].tobytes())
            handle.flush()
            os.fsync(handle.fileno())

    def subsample(self, level: int, position: Shape) -> None:
        raise ValueError("a TIFF has no pyramid")


class PngOutput:
    """One uint8 PNG of a 2D image, which is one block."""

    def __init__(self, path: Path, image: ImageStack, probabilities: bool, block: Shape) -> None:
        if image.sections != 1:
            raise UserError(f"{path.name} cannot hold {image.sections} sections; give --out with .zarr or .tif")
        if probabilities:
            raise UserError("probabilities cannot be written as PNG; give --out with .zarr or .tif")
        self.path = self.labels_path = path
        self.pyramid = PyramidPlan((Level(image.shape, (1, 1, 1)),), block)
        self._shape = image.shape

    def exists(self) -> bool:
        return self.path.exists()

    is_occupied = exists

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def prepare(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, block: Block, result: BlockResult) -> None:
        from PIL import Image

        if block.shape != self._shape:
            raise ValueError("a PNG is written as one block")
        content = io.BytesIO()
        Image.fromarray(result.labels[0]).save(content, format="PNG")
        write_atomically(self.path, content.getvalue())
        sync_folder(self.path.parent)

    def subsample(self, level: int, position: Shape) -> None:
        raise ValueError("a PNG has no pyramid")


def disk_error(error: OSError, path: Path) -> UserError:
    """The line for an output that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"no space left for {path}; free some and give the same command again: it goes on from here")
    return UserError(f"cannot write {path}: {error.strerror or error}; give the same command again to go on")


def _reserve(handle: int, size: int) -> None:
    """Take the space at once, so that a full disk is met at the start and not in the middle of a run."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise


def sync_file(file: Path) -> None:
    with open(file, "rb+") as handle:
        os.fsync(handle.fileno())


def _is_node(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


def _remove_partials(folder: Path) -> None:
    """Remove metadata files that a killed run did not finish."""
    if folder.is_dir():
        for entry in list(os.scandir(folder)):
            if entry.name.endswith(".partial"):
                os.unlink(entry.path)


def _dataset(path: str, scale: Iterable[float], translation: Iterable[float] | None) -> dict[str, Any]:
    transformations: list[dict[str, Any]] = [{"type": "scale", "scale": list(scale)}]
    if translation is not None:
        transformations.append({"type": "translation", "translation": list(translation)})
    return {"path": path, "coordinateTransformations": transformations}


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
