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
from small_layers import gray

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


def test_the_list_fits_the_dock_and_its_tips_say_all(
    make_session: Callable[..., Any], qtbot: Any, tmp_path: Path
) -> None:
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QStyle, QStyleOptionComboBox

    session, run = make_session(), Run.create(tmp_path / "run")
    session.viewer.add_image(gray(40, 1024, 1024))
    menu = NetworkMenu(session)
    qtbot.addWidget(menu)
    all_goals = {"mean_iou": 0.866, "interval": (0.691, 0.989), "goals": ("accurate", "balanced", "fast")}
    two_goals = {"interval": (0.686, 0.726), "goals": ("accurate", "balanced"), "milliseconds": 50_000.0}
    changes = ({"name": "a"} | all_goals, {"name": "b", "chosen": False} | two_goals)
    write_menu(run, [ENTRY.model_copy(update=each) for each in changes])
    menu.show_run(run)
    qtbot.waitUntil(lambda: menu.box.count() == 2, timeout=20_000)
    assert [menu.box.itemText(index) for index in range(2)] == [
        "0.87 ± 0.15, 16 s (all goals)",
        "0.706 ± 0.020, 2 h 10 min (accurate, balanced)",
    ]
    tip = menu.box.itemData(1, Qt.ItemDataRole.ToolTipRole)
    assert "24 channels at 1/4" in tip and "between 0.686 and 0.726" in tip and "accurate, balanced" in tip
    menu.resize(342, 400)  # in the dock as it opens
    menu.show()
    option = QStyleOptionComboBox()
    menu.box.initStyleOption(option)
    style, part = menu.box.style(), QStyle.SubControl.SC_ComboBoxEditField
    room = style.subControlRect(QStyle.ComplexControl.CC_ComboBox, option, part, menu.box).width()
    texts = [menu.box.itemText(index) for index in range(2)]
    assert max(map(menu.box.fontMetrics().horizontalAdvance, texts)) <= room
    menu.release()
