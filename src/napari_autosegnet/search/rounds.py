"""How many networks compete in a fit, and for how long: successive halving of what time there is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from napari_autosegnet.settings import FitSettings

#: Less than this is too short to compare networks: seconds of a CPU's core that each trains in the first round. A slow
#: network that is worth its time shows it after 60 to 150 s; what wins earlier, mostly wins by luck
#: (docs/benchmarks/search.md).
MIN_SECONDS = 100.0
#: A GPU does as much in this time, and more; it was not measured.
MIN_SECONDS_ON_GPU = 20.0
#: Fraction of the budget after which the rate of a network that is alone falls.
STEADY_ALONE = 0.7
#: How many may compete, as time allows; halving makes the most of powers of two.
FIELDS = (8, 4, 2)


@dataclass(frozen=True)
class Round:
    """So many candidates train for this fraction of the whole budget each, and for longer if side by side."""

    candidates: int
    fraction: float


def plan_rounds(candidates: int, choosing: float) -> list[Round]:
    """Rounds with half as many each time, which take equal time, then the last one's own.

    Where one is alone there is nothing to choose, and ``choosing`` says nothing.
    """
    if candidates == 1:
        return [Round(1, STEADY_ALONE), Round(1, 1 - STEADY_ALONE)]
    counts = [candidates]
    while counts[-1] > 2:
        counts.append(math.ceil(counts[-1] / 2))
    rounds = [Round(count, choosing / len(counts) / count) for count in counts]
    return [*rounds, Round(1, 1 - choosing)]


def number_of_candidates(settings: FitSettings, threads: int = 1, *, on_gpu: bool = False) -> int:
    """As many as there is time for, or as the settings say; as many train side by side as there are threads."""
    if settings.candidates is not None:
        # Each trains for an epoch at least.
        return min(settings.candidates, settings.epochs or settings.candidates)
    enough = MIN_SECONDS_ON_GPU if on_gpu else MIN_SECONDS
    for count in FIELDS:
        first = plan_rounds(count, settings.choosing)[0].fraction
        enough_time = settings.budget is None or first * settings.budget * min(threads, count) >= enough
        enough_epochs = settings.epochs is None or first * settings.epochs >= 1
        if enough_time and enough_epochs:
            return count
    return 1
