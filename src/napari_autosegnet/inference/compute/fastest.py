"""Which engine and which tile take the least time, measured when a long run begins."""

from __future__ import annotations

import dataclasses
import math

import torch

from napari_autosegnet.duration import format_duration
from napari_autosegnet.events import Note, Report, silent
from napari_autosegnet.inference.blocks import BlockPlan, round_up
from napari_autosegnet.inference.compute.engines import EngineName, usual_engine
from napari_autosegnet.inference.compute.precision import Precision
from napari_autosegnet.inference.compute.predictor import Predictor

#: Runs over fewer pixels (all windows together) are over before a measurement pays.
WORTH_MEASURING = 2**25
#: Larger tiles compute less twice, but may not fit into the processor's caches.
LARGER_TILES = (768, 1152)
#: Another choice than the usual one must win clearly: a few per cent are noise, and memory is worth as much.
CLEARLY = 0.95
#: Side of the windows on which engines are compared, to be quick.
_ENGINE_WINDOW = 256


def fastest_engine(predictor: Predictor, plan: BlockPlan, *, report: Report = silent) -> EngineName:
    """The engine that computes a plan's windows (or smaller ones) fastest here and now; told as ``note``."""
    window = _small_window(predictor, plan)
    seconds = {name: predictor.measured(name, window, passes=3) for name in predictor.engines}
    best = min(seconds, key=lambda name: seconds[name])
    usual = usual_engine(predictor.device)
    if seconds[best] > CLEARLY * seconds[usual]:
        best = usual
    timings = ", ".join(f"{name} {1e3 * value:.0f} ms" for name, value in seconds.items())
    report(Note(text=f"computing with {best} ({timings} per pass)"))
    return best


def fastest_precision(predictor: Predictor, plan: BlockPlan, *, report: Report = silent) -> Precision:
    """The half precision that may be used here if it is clearly faster than what computes; told as ``note``."""
    window = _small_window(predictor, plan)
    usual = usual_engine(predictor.device)
    seconds: dict[Precision, float] = {"float32": predictor.measured(None, window, passes=3)}
    for name in predictor.half_precisions:
        seconds[name] = predictor.measured(usual, window, passes=3, precision=name)
    best = min(seconds, key=lambda name: seconds[name])
    chosen: Precision = best if seconds[best] <= CLEARLY * seconds["float32"] else "float32"
    timings = ", ".join(f"{name} {1e3 * value:.0f} ms" for name, value in seconds.items())
    report(Note(text=f"computing in {chosen} ({timings} per pass)"))
    return chosen


def _small_window(predictor: Predictor, plan: BlockPlan) -> tuple[int, int]:
    y, x = (min(side, round_up(_ENGINE_WINDOW, predictor.stride)) for side in plan.window)
    return y, x


def fastest_tile(predictor: Predictor, plan: BlockPlan, *, report: Report = silent) -> int:
    """The predictor's tile, or the larger one that takes clearly less time for a plan; told as ``note``."""
    usual = predictor.tile
    plans = {tile: dataclasses.replace(plan, tile=tile) for tile in (usual, *LARGER_TILES) if tile >= usual}
    seconds: dict[int, float] = {}
    for tile, trial in plans.items():
        if tile != usual and trial.computed > CLEARLY * plans[usual].computed:
            continue
        try:
            one = predictor.measured(None, trial.window, passes=1)
        except torch.OutOfMemoryError:
            break
        seconds[tile] = one * trial.computed / math.prod(trial.window) / predictor.batch_size
    if len(seconds) < 2:
        return usual
    best = min(seconds, key=lambda tile: seconds[tile])
    if seconds[best] > CLEARLY * seconds[usual]:
        best = usual
    told = ", ".join(
        f"windows of {plans[tile].window[0]} x {plans[tile].window[1]} {format_duration(seconds[tile])}"
        for tile in seconds
    )
    report(Note(text=f"tiles of at most {best} pixels (expected: {told})"))
    return best
