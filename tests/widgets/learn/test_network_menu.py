"""The plot of networks to choose from."""

from __future__ import annotations

from collections.abc import Callable
from math import log10
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from napari_autosegnet.jobs.menu import MenuEntry, write_menu
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.learn.network_menu import NetworkMenu, speed_ticks

ENTRY = MenuEntry(
    name="a",
    description="24 channels at 1/4 of the resolution",
    mean_iou=0.706,
    interval=(0.44, 0.97),
    difference=(0.0, 0.0),
    milliseconds=100.0,
    parameters=1000,
    seconds=60.0,
    epochs=3,
    chosen=True,
)


@pytest.mark.parametrize(
    ("slowest", "fastest", "ticks"),
    [(2.9, 5.3, [3, 4, 5, 7]), (3.0, 3.0, [3, 4]), (0.9, 40.0, [1, 2, 5, 10, 20, 50])],
)
def test_an_axis_of_speeds_has_several_round_numbers(slowest: float, fastest: float, ticks: list[float]) -> None:
    assert speed_ticks(log10(slowest) - 0.15, log10(fastest) + 0.15) == pytest.approx(ticks)


def test_one_network_is_no_choice(make_session: Callable[..., Any], qtbot: Any, tmp_path: Path) -> None:
    session, run = make_session(), Run.create(tmp_path / "run")
    menu = NetworkMenu(session)
    qtbot.addWidget(menu)
    other = ENTRY.model_copy(update={"name": "b", "chosen": False})
    for entries in ([ENTRY], [ENTRY, other], [ENTRY]):
        write_menu(run, entries)
        menu.show_run(run)
        qtbot.waitUntil(lambda: not session.background.is_busy, timeout=20_000)
        qtbot.wait(10)
        assert not menu.isHidden() and "million pixels per second" in menu.about.text()
        alone = len(entries) == 1
        # Its quality may not be known: the list would say a figure.
        assert [each.isHidden() for each in (menu.title, menu.box)] == [alone, alone]
        assert menu.plot is None or menu.plot.isHidden() == alone
    menu.release()
