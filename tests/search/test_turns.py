"""Turns of several players, some at a time."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_autosegnet.search.turns import take_turns


@given(wanted=st.lists(st.integers(1, 5), max_size=6), side_by_side=st.integers(1, 4))
def test_everybody_has_as_many_turns_as_wanted(wanted: list[int], side_by_side: int) -> None:
    had = [0] * len(wanted)

    def turn(player: int) -> bool:
        had[player] += 1
        return had[player] < wanted[player]

    take_turns(range(len(wanted)), turn, had=had.__getitem__, side_by_side=side_by_side)
    assert had == wanted


def test_who_has_had_least_comes_next() -> None:
    had, order = [0.0, 0.0, 0.0], []

    def turn(player: int) -> bool:
        had[player] += (1, 2, 4)[player]
        order.append(player)
        return had[player] < 4

    take_turns(range(3), turn, had=had.__getitem__, side_by_side=1)
    assert order == [0, 1, 2, 0, 1, 0, 0]


def test_turns_are_taken_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=10)
    take_turns(range(2), lambda _: both.wait() < 0, had=lambda _: 0, side_by_side=2)
    assert not both.broken


@pytest.mark.parametrize("unlucky", [0, 1])
def test_an_error_in_any_turn_ends_all_and_is_raised(unlucky: int) -> None:
    turns = 0

    def turn(player: int) -> bool:
        nonlocal turns
        turns += 1
        if player == unlucky:
            raise ValueError(f"of player {player}")
        return turns < 1000

    with pytest.raises(ValueError, match=f"of player {unlucky}"):
        take_turns(range(2), turn, had=lambda _: 0, side_by_side=2)
    assert turns < 1000
