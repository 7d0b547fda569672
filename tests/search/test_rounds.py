"""How many networks compete, and for how long."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_autosegnet.search.rounds import number_of_candidates, plan_rounds
from napari_autosegnet.settings import FitSettings


@given(candidates=st.integers(1, 20), choosing=st.floats(0, 0.99))
def test_rounds_halve_and_use_the_whole_budget(candidates: int, choosing: float) -> None:
    rounds = plan_rounds(candidates, choosing)
    assert rounds[0].candidates == candidates and rounds[-1].candidates == 1
    assert all(later.candidates == -(-earlier.candidates // 2) for earlier, later in pairwise(rounds[:-1]))
    assert sum(each.candidates * each.fraction for each in rounds) == pytest.approx(1)
    assert all(each.fraction >= 0 for each in rounds)


@pytest.mark.parametrize(("budget", "count"), [(330, 1), (340, 2), (1330, 2), (1340, 4), (4010, 8)])
def test_as_many_compete_as_there_is_time_for(budget: float, count: int) -> None:
    assert number_of_candidates(FitSettings(budget=budget)) == count
    assert number_of_candidates(FitSettings(budget=budget / 2), threads=2) == count, "two train side by side"
    assert number_of_candidates(FitSettings(budget=budget / 5), on_gpu=True) == count
