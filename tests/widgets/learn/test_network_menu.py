"""The plot of networks to choose from."""

from __future__ import annotations

from math import log10

import pytest

pytest.importorskip("napari", reason="napari is not installed")

from napari_autosegnet.widgets.learn.network_menu import speed_ticks


@pytest.mark.parametrize(
    ("slowest", "fastest", "ticks"),
    [(2.9, 5.3, [3, 4, 5, 7]), (3.0, 3.0, [3, 4]), (0.9, 40.0, [1, 2, 5, 10, 20, 50])],
)
def test_an_axis_of_speeds_has_several_round_numbers(slowest: float, fastest: float, ticks: list[float]) -> None:
    assert speed_ticks(log10(slowest) - 0.15, log10(fastest) + 0.15) == pytest.approx(ticks)
