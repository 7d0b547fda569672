"""Which of several networks is chosen, and who goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_autosegnet.errors import UserError
from napari_autosegnet.search.candidates import SIZES, Candidate, choose, fitting_sizes, pareto_front, survivors
from napari_autosegnet.settings import Goal, NetworkSettings
from napari_autosegnet.training.trainer import Validation
from napari_autosegnet.training.validation import PatchScores


@dataclass
class Trained:
    """What a candidate asks of its trainer."""

    best: Validation


def candidate(mean_iou: float, latency: float) -> Candidate:
    """With this mean IoU: of 1000 pixels of each of two classes so many are right."""
    right = round(1000 * 2 * mean_iou / (1 + mean_iou))
    counts = np.array([[[right, 1000 - right], [1000 - right, right]]])
    size = SIZES[0]
    specification = size.specification(128, NetworkSettings(), in_channels=1, classes=2)
    return Candidate(size, specification, latency, cast("Any", Trained(Validation(scores=PatchScores(counts, 0.0)))))


@pytest.mark.parametrize(("goal", "latency"), [("accurate", 80.0), ("balanced", 40.0), ("fast", 10.0)])
def test_the_goal_decides(goal: Goal, latency: float) -> None:
    candidates = [candidate(0.8, 80), candidate(0.797, 40), candidate(0.785, 10), candidate(0.7, 5)]
    assert choose(candidates, goal, 0.005).latency == latency


def test_hardly_faster_is_not_worth_anything() -> None:
    candidates = [candidate(0.8, 80), candidate(0.797, 75)]
    assert choose(candidates, "balanced", 0.005).latency == 80


FIELD = st.lists(st.tuples(st.floats(0.1, 0.95), st.floats(1, 1000)), min_size=1, max_size=8)


@given(field=FIELD, count=st.integers(1, 8), goal=st.sampled_from(["accurate", "balanced", "fast"]))
def test_the_chosen_one_always_survives(field: list[tuple[float, float]], count: int, goal: Goal) -> None:
    candidates = [candidate(*each) for each in field]
    kept = survivors(candidates, count, goal, 0.005)
    assert choose(candidates, goal, 0.005) in kept
    assert len(kept) == min(count, len(candidates)) == len({id(each) for each in kept})
    if goal == "accurate" and count < len(candidates):
        worst = min(each.scores.mean_iou for each in kept)
        assert all(each.scores.mean_iou <= worst for each in candidates if each not in kept)


@given(field=FIELD)
def test_nothing_beats_what_is_on_the_front(field: list[tuple[float, float]]) -> None:
    candidates = [candidate(*each) for each in field]
    front = pareto_front(candidates)
    assert front == sorted(front, key=lambda each: each.latency)
    for each in candidates:
        beaten = any(o.latency < each.latency and o.scores.mean_iou >= each.scores.mean_iou for o in candidates)
        assert beaten == (each not in front)


def test_only_sizes_that_take_the_patches_compete() -> None:
    assert fitting_sizes(128, NetworkSettings()) == list(SIZES)
    fitting = fitting_sizes(40, NetworkSettings())
    assert 0 < len(fitting) < len(SIZES) and all(size.stem_stride < 8 for size in fitting)
    with pytest.raises(UserError, match="choose a multiple of"):
        fitting_sizes(37, NetworkSettings())


def test_sizes_fit_the_patches_of_the_presets() -> None:
    for size in SIZES:
        for patch_size in (64, 128, 256):
            specification = size.specification(patch_size, NetworkSettings(), in_channels=1, classes=3)
            assert specification.stem_stride == size.stem_stride and patch_size % specification.stride == 0
            assert f"{size.base_width} channels" in str(size)
    assert len(set(SIZES)) == len(SIZES)
