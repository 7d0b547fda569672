"""Sections that show next to nothing, as where the beam was off: only a camera's noise is in them.

They are told from what is read of each block anyway. A section is one of them if all of its values lie close together.
That is so only if it is so in each block, and then the extremes of all blocks say whether it is so for the section:
hence blocks of any size, and any processes and later runs, find the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

#: All values of such a section differ by at most this part of the deviation within the weakest section that the model
#: was trained on. The noise of a camera spans eight to ten of its own deviations, so it may have a twentieth of that
#: deviation. What a section shows spans several whole ones.
FAINT = 0.5

#: Lowest and highest value of each channel.
Extremes = Sequence[Sequence[float]]


class FaintRun(NamedTuple):
    """Sections from ``first`` to before ``stop``, whose values in a block lie close together."""

    first: int
    stop: int
    extremes: Extremes


def faint_runs(
    sections: Sequence[int], pixels: npt.NDArray[Any], most: npt.NDArray[np.float64] | None
) -> tuple[FaintRun, ...]:
    """Those of some sections that show next to nothing in a block.

    Parameters
    ----------
    sections
        Their numbers.
    pixels : (c, n, y, x)
        Of the block.
    most : (c,), optional
        How much values may differ (`ImageSurvey.faint_range`); None: nothing is told.
    """
    runs: list[FaintRun] = []
    if most is None:
        return ()
    middle = pixels.shape[2] // 2
    for section, part in zip(sections, np.moveaxis(pixels, 1, 0), strict=True):
        # One row decides nearly always.
        if not _is_faint(_extremes(part[:, middle]), most) or not _is_faint(extremes := _extremes(part), most):
            continue
        if runs and (runs[-1].stop, runs[-1].extremes) == (section, extremes):
            runs[-1] = runs[-1]._replace(stop=section + 1)
        else:
            runs.append(FaintRun(section, section + 1, extremes))
    return tuple(runs)


def faint_sections(
    blocks: Iterable[tuple[range, Sequence[FaintRun]]], most: npt.NDArray[np.float64] | None
) -> tuple[int, ...]:
    """Sections that show next to nothing in all blocks, given each one's sections and what `faint_runs` said of it."""
    joined: dict[int, Extremes] = {}
    shown: set[int] = set()
    for sections, runs in blocks:
        faint = {section: run.extremes for run in runs for section in range(run.first, run.stop)}
        shown.update(section for section in sections if section not in faint)
        for section, extremes in faint.items():
            both = zip(joined.get(section, extremes), extremes, strict=True)
            joined[section] = [(min(one[0], other[0]), max(one[1], other[1])) for one, other in both]
    if most is None:
        return ()
    return tuple(
        sorted(section for section, extremes in joined.items() if section not in shown and _is_faint(extremes, most))
    )


def _extremes(pixels: npt.NDArray[Any]) -> Extremes:
    """Of pixels (c, ...), NaN apart."""
    return [(np.fmin.reduce(one, axis=None).item(), np.fmax.reduce(one, axis=None).item()) for one in pixels]


def _is_faint(extremes: Extremes, most: npt.NDArray[np.float64]) -> bool:
    return all(high - low <= limit for (low, high), limit in zip(extremes, most, strict=True))
