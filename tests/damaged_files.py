"""Files that are cut off or have wrong bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

COPIES = 40


def damaged(whole: bytes, *, cut_at: Sequence[int], header: int) -> Iterator[bytes]:
    """Copies of a file's bytes: cut off, and with four random bytes somewhere in the header."""
    yield from (whole[:size] for size in cut_at)
    generator = np.random.default_rng(0)
    for place in generator.integers(0, header, COPIES):
        yield whole[:place] + generator.bytes(4) + whole[place + 4 :]
