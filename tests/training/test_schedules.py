"""Learning rates."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_autosegnet.training.schedules import cosine_rate, decayed_rate, warmup_rate


def test_restarts_are_torchs_with_doubled_cycles() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=10, T_mult=2)
    for step in range(700):
        position = step / 10 + 0.05
        reference.step(position)
        assert cosine_rate(position, 10) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)


def test_the_rate_falls_within_a_cycle_and_restarts() -> None:
    assert cosine_rate(0, 10) == 1
    assert cosine_rate(9.99, 10) < 0.001
    assert cosine_rate(10.01, 10) > 0.999
    assert cosine_rate(29.99, 10) < 0.001
    assert cosine_rate(1.0, 1.0) == 0


@given(st.floats(0, 1e4), st.floats(0.1, 100), st.floats(0, 1))
def test_factors_lie_between_floor_and_one(position: float, period: float, floor: float) -> None:
    assert floor - 1e-9 <= cosine_rate(position, period, floor=floor) <= 1 + 1e-9


def test_decay_is_the_papers() -> None:
    assert decayed_rate(50, decay=0.98, after=50) == 1
    assert decayed_rate(60, decay=0.98, after=50) == pytest.approx(0.98**10)


def test_warm_up_ends_at_one() -> None:
    assert warmup_rate(0, 2) == pytest.approx(0.1)
    assert warmup_rate(2, 2) == warmup_rate(50, 2) == warmup_rate(0, 0) == 1
