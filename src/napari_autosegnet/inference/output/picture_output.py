"""Results in one file: TIFF and PNG."""

from __future__ import annotations

import errno
import glob
import io
import math
import os
import uuid
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.errors import UserError
from napari_autosegnet.files import write_atomically
from napari_autosegnet.inference.blocks import Block, Level, PyramidPlan, Shape, slices
from napari_autosegnet.inference.output.arrays import as_bits
from napari_autosegnet.inference.output.ledger import sync_folder
from napari_autosegnet.inference.output.places import Part, taken
from napari_autosegnet.plain_text import printable
from napari_autosegnet.units import unit_symbol

if TYPE_CHECKING:
    from napari_autosegnet.data.images import ImageStack
    from napari_autosegnet.inference.compute.block_pixels import BlockResult


class TiffOutput:
    """One uncompressed uint8 TIFF stack, written in place; probabilities in ``<name>-probabilities.tif`` (c, z, y, x).

    It has its full size from the start, and every block its place in it, so a run continues where it stopped.
    """

    def __init__(self, path: Path, image: ImageStack, channels: int, block: Shape) -> None:
        self.path = self.labels_path = path
        self.pyramid = PyramidPlan((Level(image.shape, (1, 1, 1)),), block)
        self._image = image
        shape = image.shape[1:] if image.is_2d else image.shape
        self._files: dict[Path, tuple[int, ...]] = {path: shape}
        self._scores = path.with_name(f"{path.stem}-probabilities{path.suffix}")
        self.places: dict[Part, Path] = {"labels": path, "probabilities": self._scores}
        self.parts: tuple[Part, ...] = ("labels", "probabilities") if channels else ("labels",)
        if channels:
            self._files[self._scores] = (channels, *shape)
        self._offsets: dict[Path, int] = {}

    def foreign(self, ours: Collection[Part]) -> Path | None:
        return taken(self.places, self.parts, ours)

    def strange(self, ours: Collection[Part]) -> Path | None:
        return next((file for part, file in self.places.items() if part in ours and file.is_symlink()), None)

    def remove(self, ours: Collection[Part]) -> None:
        for part, file in self.places.items():
            if part in ours:
                file.unlink(missing_ok=True)

    def remove_partials(self) -> None:
        for file in self._files:
            _partial(file).unlink(missing_ok=True)

    def prepare(self) -> None:
        for file, shape in self._files.items():
            if not file.exists():
                self._make(file, shape)
        self.attach()

    def attach(self) -> None:
        import tifffile

        for file, shape in self._files.items():
            try:
                with tifffile.TiffFile(file) as tiff:
                    series = tiff.series[0]
                    offset = series.dataoffset
                    if _sides(series.shape) != _sides(shape) or series.dtype != np.uint8 or offset is None:
                        raise ValueError(f"it holds {series.shape} {series.dtype}")
                    if file.stat().st_size < offset + math.prod(shape):
                        raise ValueError("it ends early")
            except (tifffile.TiffFileError, FileNotFoundError, ValueError, IndexError) as error:
                raise UserError(f"{file} is no unfinished result ({error}); start again with --overwrite") from error
            self._offsets[file] = int(offset)

    def _make(self, file: Path, shape: tuple[int, ...]) -> None:
        import tifffile

        axes = "CYX" if len(shape) == 3 and self._image.is_2d else "CZYX"[-len(shape) :]
        partial = _partial(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            tifffile.imwrite(
                partial,
                shape=shape,
                dtype=np.uint8,
                photometric="minisblack",
                ome=True,
                bigtiff=math.prod(shape) > 2**31,
                # tifffile would draw a random identity, and two runs would differ.
                metadata={"axes": axes, "UUID": str(_identity(file)), **self._voxel_size()},
            )
            with open(partial, "rb+") as handle:
                _reserve(handle.fileno(), partial.stat().st_size)
                os.fsync(handle.fileno())
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)  # what is there of it would keep a full disk full
        sync_folder(file.parent)

    def _voxel_size(self) -> dict[str, Any]:
        image = self._image
        if image.unit is None and image.scale == (1.0, 1.0, 1.0):
            return {}
        unit = unit_symbol(image.unit)
        about: dict[str, Any] = {}
        for axis, step in zip("ZYX", image.scale, strict=True):
            about |= {f"PhysicalSize{axis}": abs(step), f"PhysicalSize{axis}Unit": unit}
        return about

    def write(self, block: Block, result: BlockResult) -> int:
        self._put(self.path, block, result.labels)
        if result.probabilities is not None:
            for channel, scores in enumerate(result.probabilities):
                self._put(self._scores, block, scores, channel)
        return self.written(0, block.index)

    def written(self, level: int, number: int) -> int:
        return as_bits(file.exists() for file in self._files)

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

    def subsample(self, level: int, position: Shape) -> int:
        raise ValueError("a TIFF has no pyramid")


def _partial(file: Path) -> Path:
    """A TIFF in the making."""
    return file.with_name(f".{file.name}.partial")


def _identity(file: Path) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_OID, printable(file.name))


def _sides(shape: Sequence[int]) -> list[int]:
    """A shape as tifffile tells it: it leaves axes of one pixel out."""
    return [size for size in shape if size > 1]


class PngOutput:
    """One uint8 PNG of a 2D image, which is one block (of a region of interest: all of it)."""

    def __init__(self, path: Path, image: ImageStack, probabilities: bool, block: Shape) -> None:
        if image.sections != 1:
            raise UserError(f"{path.name} cannot hold {image.sections} sections; give --out with .zarr or .tif")
        if probabilities:
            raise UserError("probabilities cannot be written as PNG; give --out with .zarr or .tif")
        self.path = self.labels_path = path
        self.places: dict[Part, Path] = {"labels": path}
        self.parts: tuple[Part, ...] = ("labels",)
        self.pyramid = PyramidPlan((Level(image.shape, (1, 1, 1)),), block)
        self._shape = image.shape

    def foreign(self, ours: Collection[Part]) -> Path | None:
        return taken(self.places, self.parts, ours)

    def strange(self, ours: Collection[Part]) -> Path | None:
        return None

    def remove(self, ours: Collection[Part]) -> None:
        if "labels" in ours:
            self.path.unlink(missing_ok=True)

    def remove_partials(self) -> None:
        for file in self.path.parent.glob(f".{glob.escape(self.path.name)}.*.partial"):
            file.unlink(missing_ok=True)

    def prepare(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def attach(self) -> None:
        """Nothing is kept open."""

    def write(self, block: Block, result: BlockResult) -> int:
        from PIL import Image

        whole = np.zeros(self._shape, np.uint8)
        whole[slices(block.core)] = result.labels
        content = io.BytesIO()
        Image.fromarray(whole[0]).save(content, format="PNG")
        write_atomically(self.path, content.getvalue())
        sync_folder(self.path.parent)
        return self.written(0, block.index)

    def written(self, level: int, number: int) -> int:
        return as_bits([self.path.exists()])

    def subsample(self, level: int, position: Shape) -> int:
        raise ValueError("a PNG has no pyramid")


def _reserve(handle: int, size: int) -> None:
    """Take the space at once, so that a full disk is met at the start and not in the middle of a run."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
