"""Chunks of a Zarr that have no file: read as its fill value, whether they are empty or were never written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from napari_autosegnet.data.pixel_files import ChunkFiles
from napari_autosegnet.ome_zarr.write import own_attributes
from napari_autosegnet.plain_text import listed

#: Larger arrays are not checked: listing their files may take minutes on a network drive.
_MAX_CHUNKS = 2**18
#: Runs of sections that are named.
_SHOWN = 6


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
