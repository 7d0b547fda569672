"""Who works with the keyboard or a screen reader: every stop of the Tab key can be seen and says what it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractButton, QApplication, QLineEdit, QWidget

from napari_autosegnet.events import Epoch, Finished, Started
from napari_autosegnet.jobs.menu import MenuEntry, write_menu
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.apply.apply_dialog import ApplyDialog
from napari_autosegnet.widgets.dock import STEPS, AutoSegNetDock
from napari_autosegnet.widgets.forms.form_rows import FoldedSection
from small_models import small_model
from windows import activate

ENTRY = MenuEntry(
    name="a",
    description="32 channels at full resolution",
    mean_iou=0.5,
    interval=(0.4, 0.6),
    difference=(0.0, 0.0),
    milliseconds=100.0,
    parameters=1000,
    seconds=60.0,
    epochs=3,
    chosen=True,
)


@pytest.fixture
def dock(make_napari_viewer: Callable[..., Any], qtbot: Any, runs_folder: Path) -> AutoSegNetDock:
    """With images, annotation, a run with a model, and every step at work on them."""
    viewer = make_napari_viewer(show=True)
    for name in ("first", "second"):
        viewer.add_image(np.zeros((3, 64, 64), np.uint8), name=name)
    dock = AutoSegNetDock(viewer)
    viewer.window.add_dock_widget(dock, name="AutoSegNet")
    for name in STEPS:
        dock.show_step(name)
    dock.session.annotation.new_labels(viewer.layers["second"])
    run = Run.create(runs_folder / "earlier")
    for event in (Started(step="fit"), Finished(step="fit")):
        run.report(event)
    write_menu(run, [ENTRY, ENTRY.model_copy(update={"name": "b", "chosen": False})])
    small_model().save(run.model_folder)
    dock.open(run.path)
    architecture = small_model().specification.architecture
    assert architecture is not None
    learn = dock.learn_step
    learn.architecture.show_architecture(architecture)
    qtbot.waitUntil(lambda: learn.menu.box.count() == 2, timeout=20_000)
    learn.plots.add(Epoch(step="train", epoch=1, loss=1.0, mean_iou=0.5))
    qtbot.waitUntil(lambda: not dock.session.background.is_busy and dock.apply_step.model is not None, timeout=20_000)
    qtbot.waitUntil(lambda: any(row.drawn() for row in learn.plots.rows), timeout=20_000)
    return dock


def tab_stops(window: QWidget, first: QWidget, qtbot: Any) -> Iterator[QWidget]:
    """Widgets inside a window to which the Tab key comes, one press after the other, until it leaves the window."""
    activate(first.window(), qtbot)
    first.setFocus(Qt.FocusReason.TabFocusReason)
    stops: list[QWidget] = []
    while window.isAncestorOf(current := focus_widget(window, qtbot)):
        if current is first and stops:
            return
        assert stops or current is first
        assert current not in stops, f"the Tab key goes round in {[name_of(each) for each in stops]}"
        stops.append(current)
        yield current
        qtbot.keyClick(current, Qt.Key.Key_Tab)
        qtbot.wait(5)


def focus_widget(window: QWidget, qtbot: Any) -> QWidget:
    """What the keyboard goes to, also where the window of another test process came to the front meanwhile."""
    for _ in range(100):
        if (current := QApplication.focusWidget()) is not None:
            return current
        activate(window.window(), qtbot)
        qtbot.wait(10)
    raise AssertionError("the keyboard goes to nothing")


def can_have_focus(widget: QWidget) -> bool:
    by_tab = widget.focusPolicy().value & Qt.FocusPolicy.TabFocus.value
    return bool(by_tab) and widget.isVisible() and widget.isEnabled() and widget.focusProxy() is None


def name_of(widget: QWidget) -> str:
    return widget.accessibleName() or (widget.text() if isinstance(widget, QAbstractButton) else "")


def check(stop: QWidget) -> None:
    what = f"{type(stop).__name__} '{stop.objectName() or name_of(stop)}'"
    size = stop.visibleRegion().boundingRect()
    assert size.width() > 5 and size.height() > 5, f"{what} cannot be seen"
    assert name_of(stop).strip(". "), f"{what} has no name"
    assert stop.toolTip(), f"{what} has no tool tip"


def test_every_tab_stop_of_a_step_is_seen_and_named(dock: Any, qtbot: Any) -> None:
    for name, unfolded in product(STEPS, (False, True)):
        dock.show_step(name)
        if name == "learn":
            dock.learn_step.ask_anew()
            dock.learn_step.refresh()
        sections = [each for each in dock.pages.currentWidget().findChildren(FoldedSection) if not each.isHidden()]
        for section in sections:
            section.unfold(unfolded)
        qtbot.wait(50)
        found, pictures = [], []
        for stop in tab_stops(dock, dock.run_box, qtbot):
            check(stop)  # while it has the focus, as the page scrolls to it
            found.append(stop)
            pictures.append(stop.grab().toImage())
        dock.setFocus()
        hidden = [
            name_of(stop) for stop, picture in zip(found, pictures, strict=True) if stop.grab().toImage() == picture
        ]
        assert hidden == [], "one cannot see that the keyboard is there"
        fields = [each for section in sections for each in section.content.findChildren(QLineEdit)]
        assert all((each in found) == unfolded for each in fields) and (fields or not sections)
        missed = [each for each in dock.findChildren(QWidget) if can_have_focus(each) and each not in found]
        assert missed == [], [name_of(each) for each in missed]
        assert found.index(dock.step_buttons[name]) < 2
        page = dock.pages.currentWidget().widget()
        places = [each.mapTo(page, each.rect().topLeft()) for each in found if page.isAncestorOf(each)]
        rows = [(round(place.y() / 20), place.x()) for place in places]
        assert rows == sorted(rows), "the order of the Tab key is another one than on the screen"


def test_the_dialog_and_what_is_unfolded_can_be_reached(dock: Any, qtbot: Any) -> None:
    dialog = ApplyDialog(dock.session)
    qtbot.addWidget(dialog)
    dialog.image_box.setCurrentIndex(dialog.image_box.count() - 1)  # a file: more to fill in
    dialog.show()
    stops = []
    for stop in tab_stops(dialog, dialog.image_box, qtbot):
        check(stop)
        stops.append(stop)
    reading = dialog.reading.findChildren(QLineEdit)
    assert len(reading) == 3 and {dialog.file_line, *reading, dialog.out_line} <= set(stops)
    dialog.close()

    dock.activateWindow()
    dock.show_step("learn")
    section = dock.learn_step.advanced_section
    assert not section.content.isVisible()
    section.button.setFocus()
    qtbot.keyClick(section.button, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: section.content.isVisible() and section.content.height() > 200, timeout=5000)
    qtbot.keyClick(section.button, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: not section.content.isVisible(), timeout=5000)
