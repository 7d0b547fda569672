"""Learning rates as pure functions of the position in a search or a training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

#: Fraction of a training of one cycle in which the learning rate rises to its full height.
WARMUP_FRACTION = 0.03


class Schedule(Protocol):
    """Factor of the learning rates in the course of a training."""

    def factor(self, epoch: float, fraction: float) -> float:
        """The factor after ``epoch`` epochs, fractions included, with this ``fraction`` of the budget used."""
        ...


@dataclass(frozen=True)
class Cosine:
    """Cosine cycles with warm restarts, or without a period one that spans the training."""

    restart_period: float = 0

    def factor(self, epoch: float, fraction: float) -> float:
        at, period = (epoch, self.restart_period) if self.restart_period else (fraction, 1.0)
        return cosine_rate(at, period) * warmup_rate(fraction, WARMUP_FRACTION)


@dataclass(frozen=True)
class Steady:
    """A rate that rises in the first epoch and stays: a training that may be continued or left at any time."""

    def factor(self, epoch: float, fraction: float) -> float:
        return warmup_rate(epoch, 1.0)


@dataclass(frozen=True)
class Falling:
    """The end of a steady training: falls to zero, linearly, after ``start`` of the budget."""

    start: float

    def factor(self, epoch: float, fraction: float) -> float:
        return warmup_rate(epoch, 1.0) * min(1.0, max(0.0, (1 - fraction) / max(1 - self.start, 1e-9)))


def cosine_rate(position: float, period: float, *, floor: float = 0.0) -> float:
    """Factor of cosine annealing with warm restarts (SGDR, Loshchilov and Hutter 2017).

    Parameters
    ----------
    position : float
        Epochs done, fractions included.
    period : float
        Epochs of the first cycle; every restart doubles it.
    floor : float
        Factor at the end of a cycle.
    """
    if period <= 0:
        raise ValueError("the period of a cosine cycle must be positive")
    if position == period:
        # The very end of a first cycle, not the start of a second: trainings of one cycle end low.
        return floor
    cycle = math.floor(math.log2(position / period + 1) + 1e-12)
    start = period * (2**cycle - 1)
    fraction = min(1.0, max(0.0, (position - start) / (period * 2**cycle)))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * fraction))


def decayed_rate(epoch: int, *, decay: float, after: int) -> float:
    """Factor ``decay`` per epoch after epoch ``after`` (AutoSegNet, section IV.B: 0.98 after 50)."""
    return float(decay ** max(0, epoch - after))


def warmup_rate(position: float, length: float) -> float:
    """Factor that rises linearly from a tenth to 1 within ``length``, where a high rate would diverge."""
    return 1.0 if length <= 0 else min(1.0, 0.1 + 0.9 * position / length)
