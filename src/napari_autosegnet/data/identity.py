"""Whether an image is still the one that it was, which a resumed job checks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from napari_autosegnet.data.stack import ImageStack
from napari_autosegnet.errors import UserError

#: At most this many files are looked at; of more, evenly spread ones.
MAX_FILES = 2**16
#: On a network drive each look at a file takes long, and several can be under way.
_THREADS = 16
_FILES_PER_THREAD = 1000

_SAMPLES_PER_AXIS = 3
_SAMPLE_SIDE = 64


def image_identity(image: ImageStack) -> dict[str, Any]:
    """What tells whether an image is still the same, as JSON: shape, type, what is read of it, its files, samples.

    Of the files (the chunks of a Zarr, the sections of a folder) size and time of change count, not the content, which
    would take long to read. At most `MAX_FILES` are looked at, so a change of few chunks of a larger store may be
    missed.
    The samples are checksums of small boxes that are spread evenly over a volume of uniform sections.
    """
    shape = image.shape if image.uniform else [list(image.section_shape(number)) for number in range(image.sections)]
    identity: dict[str, Any] = {"shape": list(shape), "channels": image.channels, "dtype": str(image.dtype)}
    identity |= image.selection
    files = image.files
    if files:
        identity["files"] = [len(files), _digest(files)]
    if not image.uniform:
        return identity
    axes = [_sample_spans(size, 1 if axis == 0 else _SAMPLE_SIDE) for axis, size in enumerate(image.shape)]
    identity["samples"] = [_sample(image, z, y, x) for z in axes[0] for y in axes[1] for x in axes[2]]
    return identity


def same_identity(old: Any, new: Any) -> bool:
    """Whether two identities are equal; samples that could not be read, then or now, say nothing."""
    if isinstance(old, dict) and isinstance(new, dict) and "samples" in old and "samples" in new:
        samples = zip(old["samples"], new["samples"], strict=False)
        known = all(one == other for one, other in samples if one is not None and other is not None)
        return known and all(old.get(key) == new.get(key) for key in {**old, **new} if key != "samples")
    return bool(old == new)


def _digest(files: Sequence[Path]) -> str:
    """Checksum of names, sizes and times of change; a chunk that is not there is background."""
    count = min(len(files), MAX_FILES)

    def lines(begin: int) -> str:
        places = range(begin, min(begin + _FILES_PER_THREAD, count))
        return "".join(line_of(files[place * len(files) // count]) for place in places)

    with ThreadPoolExecutor(_THREADS) as pool:
        parts = list(pool.map(lines, range(0, count, _FILES_PER_THREAD)))
    return hashlib.sha256("".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def line_of(file: Path) -> str:
    # The name alone: a folder that was moved is the same image.
    try:
        about = os.stat(file)
    except OSError:
        return f"{file.name} is missing\n"
    return f"{file.name} {about.st_size} {about.st_mtime_ns}\n"


def _sample(image: ImageStack, z: slice, y: slice, x: slice) -> str | None:
    """Checksum of a box; None where it cannot be read, which whoever needs it will report."""
    try:
        pixels = np.ascontiguousarray(image.read(z, y, x))
    except UserError:
        return None
    return hashlib.sha256(pixels.tobytes()).hexdigest()[:16]


def _sample_spans(size: int, side: int) -> list[slice]:
    side = min(side, size)
    starts = sorted({round(place) for place in np.linspace(0, size - side, _SAMPLES_PER_AXIS)})
    return [slice(start, start + side) for start in starts]
