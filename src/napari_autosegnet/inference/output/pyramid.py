"""When the blocks of lower levels can be made: each needs its finished blocks of the level above."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from napari_autosegnet.inference.blocks import PyramidPlan, Shape
from napari_autosegnet.inference.output.ledger import Ledger


class PyramidProgress:
    """Lower levels of one result; the ledger knows which blocks are finished at each.

    Parameters
    ----------
    plan : PyramidPlan
        Of the result.
    ledger : Ledger
        Its blocks by level; level 0 is recorded by who computes it.
    """

    def __init__(self, plan: PyramidPlan, ledger: Ledger) -> None:
        self.plan = plan
        self._ledger = ledger

    def ready(self, level: int, number: int) -> tuple[int, int] | None:
        """The block (level, number) of the next level that this finished block was the last part of."""
        parent = self.plan.parent(level, self.plan.position(level, number))
        if parent is None:
            return None
        children = self.plan.children(level + 1, parent)
        if not all(self._ledger.is_finished(self.plan.number(level, child), level) for child in children):
            return None
        place = self.plan.number(level + 1, parent)
        return None if self._ledger.is_finished(place, level + 1) else (level + 1, place)

    def missing(self, level: int) -> Iterator[int]:
        """Blocks that a killed run did not come to, or that a region of interest leaves incomplete."""
        for number in range(math.prod(self.plan.grid(level))):
            if not self._ledger.is_finished(number, level):
                children = self.plan.children(level, self.plan.position(level, number))
                if any(self._ledger.is_finished(self.plan.number(level - 1, child), level - 1) for child in children):
                    yield number

    def climb(self, number: int, subsample: Callable[[int, Shape], int]) -> None:
        """Make all blocks of lower levels that a finished block of level 0 completes."""
        ready = self.ready(0, number)
        while ready is not None:
            self.make(*ready, subsample)
            ready = self.ready(*ready)

    def finish(self, subsample: Callable[[int, Shape], int]) -> None:
        """Make what is missing of all lower levels."""
        for level in range(1, len(self.plan.levels)):
            for number in tuple(self.missing(level)):
                self.make(level, number, subsample)

    def make(self, level: int, number: int, subsample: Callable[[int, Shape], int]) -> None:
        """Make one block and note it."""
        files = subsample(level, self.plan.position(level, number))
        self._ledger.record(number, "done", level=level, files=files)
