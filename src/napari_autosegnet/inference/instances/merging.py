"""Which fragments of a flood are one object: those between which a boundary is improbable, or that overlap.

An object that is narrow somewhere has several seeds, and is flooded in as many fragments. Where fragments meet, the
mean of the boundary's probability tells whether something lies between them. Those with the lowest mean are merged
first, and the means of what they become are taken anew (mean affinity agglomeration, as for affinity graphs in
connectomics).

Where objects grow section by section, fragments of neighboring sections are one object if they overlap well: sections
that are far apart have no boundary between one cell and what lies below it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_autosegnet.files import write_atomically
from napari_autosegnet.inference.blocks import Shape
from napari_autosegnet.inference.instances.objects import Ids, joined

#: Intersection over union from which on objects of neighboring sections are one (docs/how-to/instances.md).
OVERLAP = 0.3

Counts = npt.NDArray[np.int64]
_NONE: Counts = np.zeros(0, np.int64)
_NO_PAIRS: Counts = np.zeros((0, 2), np.int64)


@dataclass(frozen=True)
class Contacts:
    """Fragments, and where they meet.

    Attributes
    ----------
    fragments, voxels : (n,)
        Numbers of the fragments, ascending, and their sizes.
    pairs : (m, 2)
        Fragments that share faces of voxels, the lower number first.
    faces : (m,)
        How many.
    boundary : (m,)
        Sum over these faces of the boundary's probability (of 255), the greater one of the two voxels.
    overlaps : (k, 2)
        Fragments of neighboring sections that overlap, where objects grow section by section; lower number first.
    shared : (k,)
        Pixels in which they do.
    """

    fragments: Counts
    voxels: Counts
    pairs: Counts
    faces: Counts
    boundary: Counts
    overlaps: Counts
    shared: Counts

    @classmethod
    def of(cls, fragments: Ids, boundary: npt.NDArray[np.uint8], core: Shape, *, by_section: bool = False) -> Contacts:
        """Contacts in a tile.

        Parameters
        ----------
        fragments, boundary : (z, y, x)
            The tile, and the layer of voxels behind it along each axis, where there is one.
        core : (z, y, x)
            Shape of the tile alone, whose voxels are counted.
        by_section : bool
            Fragments of two sections have no contacts, but overlaps.
        """
        inside = fragments[tuple(slice(size) for size in core)]
        numbers, voxels = np.unique(inside[inside > 0], return_counts=True)
        pairs: list[Counts] = []
        values: list[Counts] = []
        for axis in range(3):
            beside = tuple(slice(size if each != axis else None) for each, size in enumerate(core))
            moved = [np.moveaxis(each[beside], axis, 0) for each in (fragments, boundary)]
            (one, here), (other, there) = ([each[:-1] for each in moved], [each[1:] for each in moved])
            meet = (one != other) & (one > 0) & (other > 0)
            pairs.append(np.stack([one[meet], other[meet]], axis=1).astype(np.int64))
            values.append(np.maximum(here[meet], there[meet]).astype(np.int64))
        ones = [np.ones(len(each), np.int64) for each in pairs]
        first = 1 if by_section else 0
        contacts = _summed(np.concatenate(pairs[first:]), np.concatenate(ones[first:]), np.concatenate(values[first:]))
        overlaps = _summed(np.concatenate(pairs[:first] or [_NO_PAIRS]), np.concatenate(ones[:first] or [_NONE]))
        return cls(numbers.astype(np.int64), voxels.astype(np.int64), *contacts, *overlaps)

    @classmethod
    def added(cls, parts: Iterable[Contacts]) -> Contacts:
        """Those of several tiles or blocks together."""
        parts = [cls(_NONE, _NONE, _NO_PAIRS, _NONE, _NONE, _NO_PAIRS, _NONE), *parts]

        def all_of(*names: str) -> Iterator[Counts]:
            return (np.concatenate([getattr(part, name) for part in parts]) for name in names)

        numbers, counts = all_of("fragments", "voxels")
        fragments, place = np.unique(numbers, return_inverse=True)
        voxels = np.zeros(len(fragments), np.int64)
        np.add.at(voxels, place, counts)
        return cls(
            fragments, voxels, *_summed(*all_of("pairs", "faces", "boundary")), *_summed(*all_of("overlaps", "shared"))
        )

    def save(self, path: Path) -> None:
        """Write them to a file, whole or not at all."""
        content = io.BytesIO()
        np.savez_compressed(content, **vars(self))
        write_atomically(path, content.getvalue())

    @classmethod
    def load(cls, path: Path) -> Contacts:
        with np.load(path) as content:
            return cls(**content)


def merged(count: int, contacts: Contacts, below: float) -> Ids:
    """Object of every fragment 0..count, where those with a mean boundary probability (0 to 1) less than that are one.

    Objects are numbered from 1 by their first fragment; 0 stays 0.
    """
    objects: Ids = np.arange(count + 1, dtype=np.uint32)
    pairs, faces, boundary = contacts.pairs, contacts.faces, contacts.boundary
    while True:
        mean = boundary / (255 * faces)
        if not (mean < below).any():
            return objects
        least = np.full(int(objects.max()) + 1, np.inf)
        for side in pairs.T:
            np.minimum.at(least, side, mean)
        # Each other's nearest are merged at once: one after another, lowest mean first, they would be merged, too.
        nearest = (mean < below) & (mean == least[pairs[:, 0]]) & (mean == least[pairs[:, 1]])
        step = joined(int(objects.max()), pairs[nearest])
        objects = step[objects]
        pairs, faces, boundary = _summed(step[pairs].astype(np.int64), faces, boundary)


def linked(objects: Ids, contacts: Contacts) -> Ids:
    """Object of every fragment, where objects of neighboring sections that overlap well (`OVERLAP`) are one.

    Parameters
    ----------
    objects : (n + 1,)
        Object, within its section, of every fragment 0..n.
    """
    count = int(objects.max())
    pixels = np.zeros(count + 1, np.int64)
    np.add.at(pixels, objects[contacts.fragments], contacts.voxels)
    pairs, shared = _summed(objects[contacts.overlaps].astype(np.int64), contacts.shared)
    well = shared >= OVERLAP * (pixels[pairs].sum(axis=1) - shared)
    return joined(count, pairs[well])[objects]


def _summed(pairs: Counts, *values: Counts) -> tuple[Counts, ...]:
    """Pairs once each, the lower number first, with sums over equal ones; none of a number with itself."""
    apart = pairs[:, 0] != pairs[:, 1]
    low, high = pairs[apart].min(axis=1), pairs[apart].max(axis=1)
    keys, place = np.unique(low << 32 | high, return_inverse=True)
    sums = np.zeros((len(values), len(keys)), np.int64)
    for row, each in zip(sums, values, strict=True):
        np.add.at(row, place, each[apart])
    return np.stack([keys >> 32, keys & 0xFFFFFFFF], axis=1), *sums
