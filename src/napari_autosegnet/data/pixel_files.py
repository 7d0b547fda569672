"""The files that the pixels of an array lie in: those that are mapped into memory, and those that are not there."""

from __future__ import annotations

import itertools
import math
import mmap
import operator
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, overload

import numpy as np

from napari_autosegnet.ome_zarr.write import own_attributes
from napari_autosegnet.plain_text import listed

#: Larger arrays are not checked: listing their files may take minutes on a network drive.
_MAX_CHUNKS = 2**18
#: Runs of sections that are named.
_SHOWN = 6


def files_of_array(array: Any, fixed: Mapping[int, int] | None = None) -> Sequence[Path]:
    """Files behind a memory-mapped or Zarr array, or one that names them itself (``files``); none where unknown.

    Parameters
    ----------
    array : array-like
        What is indexed.
    fixed : mapping of int to int, optional
        Axes of which one index alone is read, such as one of many time points.
    """
    if isinstance(array, np.memmap):
        return [] if array.filename is None else [Path(array.filename)]
    store = getattr(array, "store", None)
    if store is None:
        return list(getattr(array, "files", ()))
    root = getattr(store, "root", None)
    if isinstance(root, Path):
        return ChunkFiles(root / array.path, array, fixed or {})
    # A zip is one file; what lies on a network has none here.
    path = getattr(store, "path", None)
    return [path] if isinstance(path, Path) else []


def release_pages(array: Any) -> None:
    """Free what earlier reads touched of a file that is mapped into memory; the system keeps it in its cache.

    Otherwise a file that was read once would count as memory of this process, which dask and clusters limit.
    """
    array = getattr(array, "stored", array)
    # With another mode, values that nobody has written yet would be lost.
    if not isinstance(array, np.memmap) or array.mode != "r" or not hasattr(mmap, "MADV_DONTNEED"):
        return
    base: Any = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None:
        base.madvise(mmap.MADV_DONTNEED)


class ChunkFiles(Sequence[Path]):
    """The metadata file of a Zarr array and the files of its chunks or shards; background has none on the disk.

    None is listed: the places follow from the shape, however many there are.

    Attributes
    ----------
    shape, unit : tuple of int
        Of the array, and of a chunk or shard.
    """

    def __init__(self, folder: Path, array: Any, fixed: Mapping[int, int]) -> None:
        self._folder = folder
        self._metadata = array.metadata
        unit = self.unit = getattr(array, "shards", None) or array.chunks
        self.shape = array.shape
        self._ranges = [
            range(fixed[axis] // step, fixed[axis] // step + 1) if axis in fixed else range(-(-size // step))
            for axis, (size, step) in enumerate(zip(array.shape, unit, strict=True))
        ]
        self._count = 1 + math.prod(len(each) for each in self._ranges)

    def __len__(self) -> int:
        return self._count

    def missing(self) -> list[tuple[int, ...]]:
        """Places of the chunks or shards that have no file. Folders are listed, no file is opened or looked at."""
        listed: dict[str, frozenset[str]] = {}

        def is_there(place: tuple[int, ...]) -> bool:
            parent, name = os.path.split(self._folder / str(self._metadata.encode_chunk_key(place)))
            if parent not in listed:
                listed[parent] = frozenset(os.listdir(parent)) if os.path.isdir(parent) else frozenset()
            return name in listed[parent]

        return [place for place in itertools.product(*self._ranges) if not is_there(place)]

    def present(self) -> Iterator[tuple[int, ...]]:
        """Places of the chunks or shards that have a file. Folders are walked, so it takes no longer the more miss."""
        for parent, _, names in os.walk(self._folder):
            for name in names:
                key = (Path(parent) / name).relative_to(self._folder).as_posix()
                if not re.fullmatch(r"(c[./])?\d+([./]\d+)*", key):
                    continue
                place = tuple(map(int, re.findall(r"\d+", key)))
                if len(place) == len(self._ranges) and all(map(operator.contains, self._ranges, place)):
                    yield place

    def representative_places(self, axis: int, layer: int) -> Iterator[tuple[int, ...]]:
        """Places that hold all values of one place along an axis: those that have a file, and one that has none."""
        present = {place for place in self.present() if place[axis] == layer}
        yield from present
        ranges = [range(layer, layer + 1) if number == axis else each for number, each in enumerate(self._ranges)]
        lengths = [len(each) for each in ranges]
        # No list of all places: there may be 10**12.
        for number in range(min(len(present) + 1, math.prod(lengths))):
            indices = np.unravel_index(number, lengths)
            place = tuple(each[int(index)] for each, index in zip(ranges, indices, strict=True))
            if place not in present:
                yield place
                return

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> list[Path]: ...

    def __getitem__(self, index: int | slice) -> Path | list[Path]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if not -self._count <= index < self._count:
            raise IndexError(index)
        index %= self._count
        if not index:
            return self._folder / (".zarray" if self._metadata.zarr_format == 2 else "zarr.json")
        place: list[int] = []
        rest = index - 1
        for each in reversed(self._ranges):
            rest, number = divmod(rest, len(each))
            place.insert(0, each[number])
        return self._folder / str(self._metadata.encode_chunk_key(tuple(place)))


def unwritten_chunks(files: Sequence[Any], axes: Sequence[str], fill: Any) -> str | None:
    """A line on sections that are only partly there; None where there are none, or it cannot be told.

    Sections without any file are reported elsewhere, as constant ones. What this program wrote is complete: its empty
    chunks have no files.

    Parameters
    ----------
    files : sequence of Path
        As `files_of_array` gives them.
    axes : sequence of str
        Of the array, by name.
    fill
        What missing chunks are read as.
    """
    if not isinstance(files, ChunkFiles) or len(files) > _MAX_CHUNKS or own_attributes(files[0].parents[1]) is not None:
        return None
    axis = axes.index("z") if "z" in axes else None
    layers = 1 if axis is None else -(-files.shape[axis] // files.unit[axis])
    chunks = (len(files) - 1) // layers
    missing = Counter(0 if axis is None else place[axis] for place in files.missing())
    partly = sorted(layer for layer, count in missing.items() if count < chunks)
    if not partly:
        return None
    count = f"{sum(missing[layer] for layer in partly)} of {chunks * len(partly)}"
    where = "" if axis is None else f" in {_runs(partly, files.unit[axis], files.shape[axis])}"
    return f"chunks without a file are read as {fill}: {count}{where}; they are empty, or were never written or copied"


def _runs(places: Sequence[int], step: int, size: int) -> str:
    """Sections of chunks as ranges: ``sections 0-3, 8-11``."""
    runs = []
    for _, group in groupby(enumerate(places), lambda pair: pair[1] - pair[0]):
        run = [place for _, place in group]
        first, last = run[0] * step, min(size, (run[-1] + 1) * step) - 1
        runs.append(str(first) if first == last else f"{first}-{last}")
    shown = listed(runs, _SHOWN)
    return f"section {shown}" if shown.isdecimal() else f"sections {shown}"
