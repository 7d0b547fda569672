"""Which of several networks is chosen, and who continues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_autosegnet.errors import UserError
from napari_autosegnet.search.candidates import (
    SIZES,
    Candidate,
    RoundLimits,
    Size,
    choose,
    fitting_sizes,
    pareto_front,
    survivors,
)
from napari_autosegnet.settings import Goal, NetworkSettings
from napari_autosegnet.training.training_data import Validation
from napari_autosegnet.training.validation import PatchScores


@dataclass
class Trained:
    """What a candidate asks of its trainer."""

    best: Validation
    curve: list[float]
    recent: list[PatchScores]


def candidate(
    latency: float, *mean_iou: float, size: Size = SIZES[1], curve: Sequence[float] | None = None
) -> Candidate:
    """With a patch for each mean IoU: of 1000 pixels of each of two classes so many are right."""
    right = [round(1000 * 2 * value / (1 + value)) for value in mean_iou]
    counts = np.array([[[number, 1000 - number], [1000 - number, number]] for number in right])
    specification = size.specification(128, NetworkSettings(), in_channels=1, classes=2)
    scores = PatchScores(counts, 0.0)
    trained = Trained(Validation(scores=scores), [scores.mean_iou] if curve is None else list(curve), [])
    return Candidate(size, specification, latency, cast("Any", trained))


def test_a_lucky_epoch_does_not_count() -> None:
    usual, spiky = candidate(80, 0.7, 0.72, size=SIZES[0]), candidate(160, 0.8, 0.82)
    last = [candidate(160, *each).scores for each in ((0.8, 0.82), (0.6, 0.62), (0.58, 0.6))]
    assert choose([usual, spiky], "balanced", 0.005) is spiky
    spiky.trainer.recent = last
    assert spiky.scores.mean_iou == pytest.approx(0.67, abs=0.01)
    assert choose([usual, spiky], "balanced", 0.005) is usual


@pytest.mark.parametrize(("goal", "latency"), [("accurate", 80.0), ("balanced", 40.0), ("fast", 10.0)])
def test_the_goal_decides(goal: Goal, latency: float) -> None:
    candidates = [candidate(80, 0.8), candidate(40, 0.797), candidate(10, 0.785), candidate(5, 0.7)]
    assert choose(candidates, goal, 0.005).latency == latency


def test_hardly_faster_is_not_worth_anything() -> None:
    candidates = [candidate(80, 0.8), candidate(75, 0.797)]
    assert choose(candidates, "balanced", 0.005).latency == 80


def test_the_usual_size_is_left_on_evidence_only() -> None:
    usual = candidate(80, 0.7, 0.8, 0.75, 0.72, size=SIZES[0])
    lucky = candidate(160, 0.9, 0.72, 0.76, 0.7)
    better = candidate(160, 0.75, 0.85, 0.8, 0.77)
    assert lucky.scores.mean_iou > usual.scores.mean_iou + 0.02
    assert choose([usual, lucky], "balanced", 0.005) is usual and choose([usual, lucky], "accurate", 0.005) is lucky
    assert choose([usual, better], "balanced", 0.005) is better


def test_a_faster_network_has_to_be_as_good_for_sure() -> None:
    usual = candidate(80, 0.7, 0.8, 0.75, 0.72, size=SIZES[0])
    alike = candidate(20, 0.701, 0.797, 0.748, 0.718)
    doubtful = candidate(20, 0.62, 0.85, 0.8, 0.7)
    assert abs(doubtful.scores.mean_iou - usual.scores.mean_iou) < 0.005
    assert choose([usual, alike], "balanced", 0.005) is alike
    assert (
        choose([usual, doubtful], "balanced", 0.005) is usual and choose([usual, doubtful], "fast", 0.005) is doubtful
    )


def test_the_usual_size_survives_unless_another_is_surely_better() -> None:
    usual = candidate(80, 0.7, 0.8, 0.75, 0.72, size=SIZES[0])
    lucky = [candidate(70, 0.9, 0.7, 0.76, 0.72), candidate(60, 0.72, 0.9, 0.7, 0.75)]
    assert usual in survivors([*lucky, usual], 2, "accurate", 0.005)
    better = [candidate(70, 0.8, 0.9, 0.85, 0.82), candidate(60, 0.81, 0.9, 0.85, 0.8)]
    assert usual not in survivors([*better, usual], 2, "balanced", 0.005)


def test_the_usual_size_does_not_come_back() -> None:
    """What others win by when they have learned for longer may be doubtful, as few pixels are checked."""
    usual = candidate(80, 0.7, 0.8, 0.75, 0.72, size=SIZES[0])
    others = [candidate(160, 0.9, 0.72, 0.76, 0.7), candidate(60, 0.6, 0.85, 0.7, 0.72)]
    usual.limits, others[0].limits, others[1].limits = RoundLimits(0), RoundLimits(2), RoundLimits(1)
    assert choose([usual, *others], "balanced", 0.005) is others[0]
    usual.limits = RoundLimits(2)
    assert choose([usual, *others], "balanced", 0.005) is usual


FIELD = st.lists(st.tuples(st.floats(0.1, 0.95), st.floats(1, 1000)), min_size=1, max_size=8)


@given(field=FIELD, count=st.integers(1, 8), goal=st.sampled_from(["accurate", "balanced", "fast"]))
def test_the_chosen_one_always_survives(field: list[tuple[float, float]], count: int, goal: Goal) -> None:
    candidates = [candidate(latency, mean_iou) for mean_iou, latency in field]
    kept = survivors(candidates, count, goal, 0.005)
    assert choose(candidates, goal, 0.005) in kept
    assert len(kept) == min(count, len(candidates)) == len({id(each) for each in kept})
    if goal == "accurate" and count < len(candidates):
        worst = min(each.scores.mean_iou for each in kept)
        assert all(each.scores.mean_iou <= worst for each in candidates if each not in kept)


@given(field=FIELD)
def test_nothing_beats_what_is_on_the_front(field: list[tuple[float, float]]) -> None:
    candidates = [candidate(latency, mean_iou) for mean_iou, latency in field]
    front = pareto_front(candidates)
    assert front == sorted(front, key=lambda each: each.latency)
    assert max(each.scores.mean_iou for each in candidates) == front[-1].scores.mean_iou
    for each in candidates:
        better = [other for other in front if other is not each and other.scores.mean_iou >= each.scores.mean_iou]
        assert (each in front) == all(each.is_faster_than(other) for other in better)


def test_a_speed_that_is_hardly_higher_saves_nobody() -> None:
    usual, coarse, wide = candidate(33, 0.83), candidate(32, 0.77), candidate(46, 0.82)
    assert pareto_front([usual, coarse, wide]) == [usual]
    assert survivors([usual, coarse, wide], 2, "balanced", 0.005) == [usual, wide]
    fast = candidate(20, 0.77)
    assert pareto_front([usual, fast, wide]) == [fast, usual]


RISING = [0.4, 0.5, 0.6, 0.65, 0.7, 0.72]


def test_a_slow_network_that_leads_epoch_by_epoch_goes_on() -> None:
    """Large networks learn more from an epoch, and have done fewer of them when the first ones leave."""
    usual = candidate(30, 0.72, size=SIZES[0], curve=RISING)
    fast = candidate(10, 0.71, curve=[*RISING, 0.71, 0.71])
    slow = candidate(90, 0.70, curve=[0.45, 0.62, 0.70])
    slower = candidate(90, 0.70, curve=[0.45, 0.60, 0.65])
    assert slow.lead_by_epoch(usual) == pytest.approx(0.11) and usual.lead_by_epoch(slow) == 0
    for goal in ("balanced", "accurate"):
        assert survivors([usual, fast, slower, slow], 2, goal, 0.005) == [usual, slow]
        assert survivors([usual, fast, slower, slow], 3, goal, 0.005) == [usual, slow, slower]
    assert survivors([usual, fast, slow], 2, "fast", 0.005) == [fast, usual]
    behind = candidate(90, 0.70, curve=[0.3, 0.5, 0.604])
    assert survivors([usual, fast, behind], 2, "balanced", 0.005) == [usual, fast]


@pytest.mark.parametrize(
    ("curve", "leads"),
    [
        ([0.6, 0.7, 0.73, 0.75], True),
        ([0.6, 0.7, 0.66, 0.75], False),  # one good epoch
        ([0.6, 0.7, 0.7, 0.715], False),  # not ahead yet
        ([0.3, 0.4, 0.5, 0.55, 0.73, 0.75], False),  # as many epochs: the score alone has to be surely better
        ([], False),  # its only epoch was cut short
    ],
)
def test_the_usual_size_is_left_to_what_leads_now_and_epoch_by_epoch(curve: list[float], leads: bool) -> None:
    usual = candidate(30, 0.7, 0.8, 0.75, 0.72, size=SIZES[0], curve=RISING)
    better = candidate(90, 0.9, 0.72, 0.76, 0.7, curve=curve)
    assert not better.is_surely_better_than(usual)
    assert (choose([usual, better], "balanced", 0.005) is better) == leads == better.leads(usual, 0.005)


def test_only_sizes_that_take_the_patches_compete() -> None:
    assert fitting_sizes(128, NetworkSettings(), "balanced") == list(SIZES)
    fitting = fitting_sizes(40, NetworkSettings(), "balanced")
    assert 0 < len(fitting) < len(SIZES) and all(size.stem_stride < 8 for size in fitting)
    with pytest.raises(UserError, match="choose a multiple of"):
        fitting_sizes(37, NetworkSettings(), "balanced")


def test_sizes_fit_the_patches_of_the_presets() -> None:
    for size in SIZES:
        for patch_size in (64, 128, 256):
            specification = size.specification(patch_size, NetworkSettings(), in_channels=1, classes=3)
            assert specification.stem_stride == size.stem_stride and patch_size % specification.stride == 0
            assert f"{size.base_width} channels" in str(size)
    assert len(set(SIZES)) == len(SIZES)


def test_a_goal_of_speed_tries_small_networks_first() -> None:
    names = [size.name for size in fitting_sizes(128, NetworkSettings(), "fast")]
    assert names[:3] == [SIZES[0].name, "w16-s4-c3", "w24-s4-c2"]
    assert sorted(names) == sorted(size.name for size in SIZES)
