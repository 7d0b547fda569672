"""Learning rates as pure functions of the position in a search or a training."""

from __future__ import annotations

import math


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
    share = min(1.0, max(0.0, (position - start) / (period * 2**cycle)))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))


def decayed_rate(epoch: int, *, decay: float, after: int) -> float:
    """Factor ``decay`` per epoch after epoch ``after`` (AutoSegNet, section IV.B: 0.98 after 50)."""
    return float(decay ** max(0, epoch - after))


def warmup_rate(position: float, length: float) -> float:
    """Factor that rises linearly from a tenth to 1 within ``length``, where a high rate would diverge."""
    return 1.0 if length <= 0 else min(1.0, 0.1 + 0.9 * position / length)
