"""Zarr arrays that are written block by block, each block safely on the disk before the next is spoken of.

zarr renames finished chunk files into place but leaves it to the system when they reach the disk, so files and
folders are synced here. One block is one writer's; blocks are whole chunks (or shards), so no chunk has two.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.blocks import Span, slices
from napari_autosegnet.inference.ledger import sync_folder
from napari_autosegnet.inference.places import is_node

if TYPE_CHECKING:
    import zarr


class BlockArray:
    """One Zarr array on the disk; `make` or `open` it before it is read or written.

    Parameters
    ----------
    folder : Path
        Of the array.
    shape, chunks : tuple of int
        Of the array.
    shards : tuple of int, optional
        Whole shards are written at once; version 3 only.
    dtype : numpy dtype
        Of the voxels.
    axes : sequence of str
        Their names, kept where the format can.
    zarr_format : 2 or 3
        Of a new array.
    """

    def __init__(
        self,
        folder: Path,
        shape: tuple[int, ...],
        chunks: tuple[int, ...],
        *,
        dtype: npt.DTypeLike,
        axes: tuple[str, ...],
        shards: tuple[int, ...] | None = None,
        zarr_format: Literal[2, 3] = 3,
    ) -> None:
        self.folder = folder
        self.shape = shape
        self._chunks = chunks
        self._shards = shards
        self._dtype = np.dtype(dtype)
        self._axes = axes
        self._format = zarr_format
        self._array: zarr.Array[Any] | None = None

    def make(self) -> None:
        """Make the array on the disk if it is missing, and open it."""
        import zarr

        if not is_node(self.folder):
            remove_partials(self.folder)
            zarr.create_array(
                self.folder,
                shape=self.shape,
                chunks=self._chunks,
                shards=self._shards,
                dtype=self._dtype,
                fill_value=0,
                zarr_format=self._format,
                dimension_names=self._axes if self._format == 3 else None,
                chunk_key_encoding={"name": "default" if self._format == 3 else "v2", "separator": "/"},
            )
        self.open()

    def open(self) -> None:
        """Open the array, which another process made.

        Raises
        ------
        UserError
            When it is missing or another one.
        """
        import zarr

        if not is_node(self.folder):
            raise UserError(f"{self.folder} is missing; start again with --overwrite")
        array = zarr.open_array(self.folder, mode="r+")
        if tuple(array.shape) != self.shape:
            raise UserError(
                f"{self.folder} has the shape {array.shape}, not {self.shape}; start again with --overwrite"
            )
        self._array = array

    def read(self, *spans: Span) -> npt.NDArray[Any]:
        """Voxels of a box."""
        return np.asarray(self._opened[slices(spans)])

    def write(self, values: npt.NDArray[Any], *spans: Span) -> None:
        """Write a block and wait until it is on the disk."""
        self._opened[slices(spans)] = values
        self._settle(*spans)

    @property
    def _opened(self) -> zarr.Array[Any]:
        assert self._array is not None, "make or open the array first"
        return self._array

    def _settle(self, *spans: Span) -> None:
        """Wait until a block's chunk files are on the disk, and remove what a killed run left beside them."""
        array = self._opened
        unit = array.shards or array.chunks
        ranges = [range(span[0] // step, -(-span[1] // step)) for span, step in zip(spans, unit, strict=True)]
        folders: dict[Path, set[str]] = {}
        for place in np.ndindex(*(len(r) for r in ranges)):
            key = array.metadata.encode_chunk_key(tuple(r[i] for r, i in zip(ranges, place, strict=True)))
            file = self.folder / key
            folders.setdefault(file.parent, set()).add(file.name)
        above: set[Path] = set()
        for parent, names in folders.items():
            if not parent.is_dir():
                continue  # nothing but background: no chunk was written
            above.update(one for one in (parent, *parent.parents) if one == self.folder or self.folder in one.parents)
            for entry in list(os.scandir(parent)):
                if entry.name.endswith(".partial") and entry.name.split(".")[0] in names:
                    os.unlink(entry.path)
                elif entry.name in names:
                    sync_file(Path(entry.path))
        for one in above:
            sync_folder(one)


def sync_file(file: Path) -> None:
    """Wait until a file's content is on the disk."""
    with open(file, "rb+") as handle:
        os.fsync(handle.fileno())


def remove_partials(folder: Path) -> None:
    """Remove metadata files that a killed run did not finish."""
    if folder.is_dir():
        for entry in list(os.scandir(folder)):
            if entry.name.endswith(".partial"):
                os.unlink(entry.path)
