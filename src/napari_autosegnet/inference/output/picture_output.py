"""Results in one file: TIFF, MRC, HDF5, NIfTI, and PNG."""

from __future__ import annotations

import errno
import glob
import io
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.readers.formats import without_ending
from napari_autosegnet.errors import UserError, one_line
from napari_autosegnet.files import write_atomically
from napari_autosegnet.inference.blocks import Block, Level, PyramidPlan, Shape, slices
from napari_autosegnet.inference.output.arrays import as_bits
from napari_autosegnet.inference.output.file_kinds import FileKind, Pixels, pack, unpack, write_box
from napari_autosegnet.inference.output.ledger import sync_folder
from napari_autosegnet.inference.output.places import Part, taken

if TYPE_CHECKING:
    from napari_autosegnet.data.images import ImageStack
    from napari_autosegnet.inference.compute.block_pixels import BlockResult


class PictureOutput:
    """A result in files of its own, one for each part, that are no stores."""

    places: dict[Part, Path]
    parts: tuple[Part, ...]

    @property
    def _files(self) -> list[Path]:
        return [self.places[part] for part in self.parts]

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
            for partial in file.parent.glob(f".{glob.escape(file.name)}.*partial"):
                partial.unlink(missing_ok=True)

    def written(self, level: int, number: int) -> int:
        return as_bits(file.exists() for file in self._files)

    def subsample(self, level: int, position: Shape) -> int:
        raise ValueError("a file has no pyramid")


class FileOutput(PictureOutput):
    """Labels in one file of a `FileKind`, written in place; probabilities in ``<name>-probabilities`` (c, z, y, x).

    It has its full size from the start, and every block its place in it, so a run continues where it stopped.
    """

    def __init__(
        self, path: Path, kind: FileKind, image: ImageStack, classes: int, block: Shape, *, probabilities: bool
    ) -> None:
        self.path = self.labels_path = path
        self.pyramid = PyramidPlan((Level(image.shape, (1, 1, 1)),), block)
        self._kind, self._image = kind, image
        shape, axes = (image.shape[1:], "yx") if image.is_2d else (image.shape, "zyx")
        self._pixels = {path: Pixels(shape, axes, kind.dtype(classes, "the number of a class"))}
        stem = without_ending(path.name)
        self._scores = path.with_name(f"{stem}-probabilities{path.name.removeprefix(stem)}")
        self.places: dict[Part, Path] = {"labels": path, "probabilities": self._scores}
        self.parts: tuple[Part, ...] = ("labels", "probabilities") if probabilities else ("labels",)
        if probabilities:
            if "u1" not in kind.dtypes:
                raise UserError(f"{kind.name} cannot hold probabilities; give --out with .zarr, .tif, .h5 or .nii")
            self._pixels[self._scores] = Pixels((classes, *shape), f"c{axes}", np.dtype(np.uint8))
        self._begins: dict[Path, int] = {}

    def prepare(self) -> None:
        for file, pixels in self._pixels.items():
            if not file.exists():
                self._make(file, pixels)
        self.attach()

    def attach(self) -> None:
        for file, pixels in self._pixels.items():
            try:
                begin = self._kind.begin(file, pixels)
                if not self._kind.is_whole(file, begin + pixels.nbytes):
                    raise ValueError("it ends early")
            except Exception as error:  # each library has errors of its own for damaged files
                if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
                    raise  # of the disk
                raise UserError(
                    f"{file} is not an unfinished result ({one_line(error)}); start again with --overwrite"
                ) from error
            self._begins[file] = begin

    def reopen(self) -> None:
        """Make a file that was finished one that blocks can be written to."""
        for file in self._pixels:
            if self._kind.is_gzipped and file.exists():
                unpack(file)

    def finish(self) -> None:
        """What is left to do when all blocks are written."""
        for file in self._pixels:
            if self._kind.is_gzipped:
                pack(file)

    def _make(self, file: Path, pixels: Pixels) -> None:
        partial = file.with_name(f".{file.name}.partial")
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._kind.create(partial, pixels, self._image)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)  # what is there of it would keep a full disk full
        sync_folder(file.parent)

    def write(self, block: Block, result: BlockResult) -> int:
        self._put(self.path, block, result.labels)
        if result.probabilities is not None:
            self._put(self._scores, block, result.probabilities)
        return self.written(0, block.index)

    def _put(self, file: Path, block: Block, values: npt.NDArray[np.uint8]) -> None:
        pixels = self._pixels[file]
        box = [*((0, size) for size in values.shape[:-3]), *block.core]
        if self._image.is_2d:
            del box[-3]
            values = values[..., 0, :, :]
        write_box(file, self._begins[file], pixels, box, values)


class PngOutput(PictureOutput):
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
