"""Zarr arrays that are written block by block, each block safely on the disk before the next is spoken of.

zarr renames finished chunk files into place but leaves it to the system when they reach the disk, so files and
folders are synced here. One block is one writer's; blocks are whole chunks (or shards), so no chunk has two. A block of
nothing but background leaves no chunk; what a block left can be told by `BlockArray.written`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.blocks import Span, slices
from napari_autosegnet.inference.output.ledger import sync_folder
from napari_autosegnet.ome_zarr.nodes import open_array
from napari_autosegnet.ome_zarr.paths import is_node, is_partial, remove_partials

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
        if not is_node(self.folder):
            raise UserError(f"{self.folder} is missing; start again with --overwrite")
        array = open_array(self.folder, "r+", "start again with --overwrite")
        for what, present, wanted in (
            ("shape", array.shape, self.shape),
            ("chunks", array.chunks, self._chunks),
            ("shards", array.shards, self._shards),
            ("type", array.dtype, self._dtype),
        ):
            if present != wanted:
                raise UserError(f"{self.folder} has the {what} {present}, not {wanted}; start again with --overwrite")
        self._array = array

    def read(self, *spans: Span) -> npt.NDArray[Any]:
        """Voxels of a box."""
        return np.asarray(self._opened[slices(spans)])

    def write(self, values: npt.NDArray[Any], *spans: Span) -> None:
        """Write a block and wait until it is on the disk."""
        self._opened[slices(spans)] = values
        self.settle(*spans)

    def written(self, *spans: Span) -> list[bool]:
        """Which of a block's chunk files are on the disk, in a fixed order; also before the array is open."""
        return [_holds_something(file) for file in self._chunk_files(*spans)]

    @property
    def _opened(self) -> zarr.Array[Any]:
        assert self._array is not None, "make or open the array first"
        return self._array

    def _chunk_files(self, *spans: Span) -> Iterator[Path]:
        """The files that a block's chunks have, or would have."""
        unit = self._shards or self._chunks
        ranges = [range(span[0] // step, -(-span[1] // step)) for span, step in zip(spans, unit, strict=True)]
        above = [] if self._format == 2 else ["c"]
        for place in np.ndindex(*(len(r) for r in ranges)):
            yield self.folder.joinpath(*above, *(str(r[i]) for r, i in zip(ranges, place, strict=True)))

    def settle(self, *spans: Span) -> None:
        """Wait until a block's chunk files are on the disk, and remove what a killed worker left beside them."""
        folders: dict[Path, set[str]] = {}
        for file in self._chunk_files(*spans):
            folders.setdefault(file.parent, set()).add(file.name)
        above: set[Path] = set()
        for parent, names in folders.items():
            if not parent.is_dir():
                continue  # nothing but background: no chunk was written
            above.update(one for one in (parent, *parent.parents) if one == self.folder or self.folder in one.parents)
            for entry in list(os.scandir(parent)):
                if is_partial(entry.name) and entry.name.split(".")[0] in names:
                    os.unlink(entry.path)
                elif entry.name in names:
                    sync_file(Path(entry.path))
        for one in above:
            sync_folder(one)


def sync_file(file: Path) -> None:
    """Wait until a file's content is on the disk."""
    with open(file, "rb+") as handle:
        os.fsync(handle.fileno())


def as_bits(flags: Iterable[bool]) -> int:
    """Flags as one number, the first as its lowest bit."""
    return sum(flag << place for place, flag in enumerate(flags))


def _holds_something(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False
