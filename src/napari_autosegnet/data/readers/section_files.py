"""Files that are a section each, decoded as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from napari_autosegnet.data.stack import Array, PixelSource

#: Decoded sections that are kept for the next read take no more memory than this, unless one alone does.
KEPT_BYTES = 2**30


@dataclass
class SectionFiles(PixelSource):
    """One file per section. Blocks are read one by one, so what one read decodes is kept.

    Parameters
    ----------
    paths : sequence of Path
        In the order of the sections.
    decode : callable
        Pixels (c, y, x) of a file.
    """

    paths: Sequence[Path]
    decode: Callable[[Path], Array]
    kept: dict[int, Array] = field(default_factory=dict, init=False, repr=False)

    def read(self, z: slice, y: slice, x: slice) -> Array:
        wanted = range(z.start, z.stop)
        kept = {index: section for index, section in self.kept.items() if index in wanted}
        self.kept = {}  # the others leave the memory before more come
        free = KEPT_BYTES - sum(section.nbytes for section in kept.values())
        out: Array | None = None
        for place, index in enumerate(wanted):
            section = kept[index] if index in kept else self.decode(self.paths[index])
            if index not in kept and (not kept or section.nbytes <= free):
                kept[index] = section
                free -= section.nbytes
            part = section[:, y, x]
            if out is None:
                out = np.empty((len(part), len(wanted), *part.shape[1:]), part.dtype)
            out[:, place] = part
        assert out is not None
        self.kept = kept  # as a whole, and never changed again: several threads may read
        return out

    def files(self) -> Sequence[Path]:
        return self.paths


def sections_at_once(nbytes: int) -> int:
    """How many sections of at most so many bytes to read together; half of what is kept, neighbors come on top."""
    return max(1, KEPT_BYTES // 2 // max(1, nbytes))
