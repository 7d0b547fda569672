"""Epochs and seconds that are used, without those of pauses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_autosegnet.training.budget import Budget


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def set_clock(patch: pytest.MonkeyPatch) -> Clock:
    """A clock in the place of the wall's."""
    clock = Clock()
    patch.setattr("time.monotonic", clock)
    return clock


@given(parts=st.lists(st.tuples(st.sampled_from(["count", "pause", "idle"]), st.floats(0, 1e4)), max_size=12))
def test_only_counted_time_counts(parts: list[tuple[str, float]]) -> None:
    budget = Budget(None, 10.0)
    expected = 0.0
    with pytest.MonkeyPatch.context() as patch:
        clock = set_clock(patch)
        for kind, seconds in parts:
            if kind == "idle":
                clock.now += seconds
                continue
            with budget.counting():
                if kind == "pause":
                    with budget.pausing():
                        clock.now += seconds
                else:
                    clock.now += seconds
                    expected += seconds
                assert budget.elapsed == pytest.approx(expected)
    assert budget.elapsed == pytest.approx(expected)
    assert budget.left == (budget.elapsed < 10.0) and budget.is_time_used != budget.left


def test_whichever_is_used_up_first_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = set_clock(monkeypatch)
    budget = Budget(4, 10.0)
    assert budget.seconds_left is None, "nothing is known yet"
    with budget.counting():
        clock.now += 2.0
    budget.epoch = 1
    assert budget.fraction_used() == 0.25 and budget.fraction_used(3.5) == 0.875
    assert budget.seconds_left == pytest.approx(6.0), "three more epochs like this one"
    budget.elapsed = 10.0
    assert not budget.left and budget.is_time_used
    budget.elapsed = 12.0
    assert budget.seconds_left == 0.0, "the last epoch took longer"
    assert Budget(None, None).left
    assert not Budget(0, None).left and not Budget(None, 0.0).left


def test_the_time_of_an_answer_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = set_clock(monkeypatch)
    budget = Budget(None, 10.0)

    def slow() -> str:
        clock.now += 5.0
        return "yes"

    with budget.counting():
        assert budget.without(slow) == "yes"
        clock.now += 1.0
    assert budget.elapsed == pytest.approx(1.0)


def test_the_clock_is_that_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks put processor time in the place of the wall's clock, after this module was imported."""
    clock = set_clock(monkeypatch)
    budget = Budget(None, 10.0)
    with budget.counting():
        clock.now += 4
    assert budget.elapsed == 4
