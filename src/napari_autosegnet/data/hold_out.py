"""Which images or groups are held out as a whole for validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.labeled_stacks import LabeledStack


def hold_out(
    stacks: Sequence[LabeledStack],
    units: Sequence[Sequence[tuple[int, int]]],
    fraction: float,
    generator: np.random.Generator,
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Choose whole units for validation, so that every class has about its ``fraction`` there."""
    pixels = np.array(
        [sum(stacks[stack].annotated_pixels[section] for stack, section in unit) for unit in units], dtype=np.float64
    )
    fractions = (pixels / np.maximum(pixels.sum(0), 1))[:, pixels.sum(0) > 0]
    sizes = np.array([len(unit) for unit in units])
    wanted = fraction * sizes.sum()
    best: tuple[float, npt.NDArray[np.bool_]] | None = None
    for _ in range(200):
        order = generator.permutation(len(units))
        # As many units as come nearest to the wanted number of sections, one at least on each side.
        reached = np.cumsum(sizes[order])[:-1]
        held = np.zeros(len(units), bool)
        held[order[: int(np.argmin(np.abs(reached - wanted))) + 1]] = True
        score = float(_unevenness(fractions[held].sum(0), fraction))
        if best is None or score < best[0] - 1e-12:
            best = (score, held)
    assert best is not None
    held = _exchanged(fractions, best[1], fraction)
    training = [place for unit, is_held in zip(units, held, strict=True) if not is_held for place in unit]
    validation = [place for unit, is_held in zip(units, held, strict=True) if is_held for place in unit]
    return training, validation


def _unevenness(validation: npt.NDArray[np.float64], fraction: float) -> npt.NDArray[np.float64]:
    """How far classes, whose fractions in validation are ``(..., K)``, are from the fraction; most if on one side."""
    one_sided = ((validation < 1e-12) | (validation > 1 - 1e-12)).sum(-1)
    unevenness: npt.NDArray[np.float64] = one_sided + np.abs(validation - fraction).sum(-1) / (1 + validation.shape[-1])
    return unevenness


def _exchanged(
    fractions: npt.NDArray[np.float64], held: npt.NDArray[np.bool_], fraction: float
) -> npt.NDArray[np.bool_]:
    """What is held out, with units sent to the other side one by one as long as that brings a class to both."""
    held = held.copy()
    while True:
        now = fractions[held].sum(0)
        after = _unevenness(now + np.where(held, -1, 1)[:, np.newaxis] * fractions, fraction)
        after[held if held.sum() == 1 else ~held if (~held).sum() == 1 else np.zeros_like(held)] = np.inf
        best = int(after.argmin())
        if after[best] > _unevenness(now, fraction) - 0.5:
            return held
        held[best] = not held[best]
