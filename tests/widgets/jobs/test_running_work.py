"""Jobs that run while the dock shows something else, with real workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from html import unescape
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QMessageBox, QPushButton

import small_jobs
from axon_docks import axon_dock
from napari_autosegnet.events import Epoch, Started
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.dock import AutoSegNetDock
from napari_autosegnet.widgets.jobs.worker_process import find, launch
from run_configs import update_config

LONG = 240_000


@pytest.fixture
def make_dock(make_napari_viewer: Callable[..., Any], runs_folder: Path) -> Iterator[Callable[[], AutoSegNetDock]]:
    def make() -> AutoSegNetDock:
        return axon_dock(make_napari_viewer())

    yield make
    for path in runs_folder.iterdir():
        if (process := find(Run(path))) is not None:
            process.kill()


def lines(dock: AutoSegNetDock) -> list[str]:
    """The lines on running work, top to bottom, without their markup."""
    found = [each for each in dock.running.findChildren(QLabel) if not each.isHidden()]
    return [unescape(each.text().replace("<b>", "").replace("</b>", "")) for each in found]


def press(qtbot: Any, dock: AutoSegNetDock, name: str) -> None:
    """Press a button of the lines, found as a screen reader would."""
    buttons = [each for each in dock.running.findChildren(QPushButton) if not each.isHidden()]
    (button,) = [each for each in buttons if each.accessibleName().startswith(name)]
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def question(dock: AutoSegNetDock) -> QMessageBox:
    (found,) = dock.learn_step.findChildren(QMessageBox)
    return found


def test_work_is_in_sight_whatever_is_shown_and_a_second_job_asks(
    make_dock: Any, qtbot: Any, runs_folder: Path
) -> None:
    first = Run.create(runs_folder / "first")
    data = small_jobs.write_data(runs_folder.parent / "data")
    data["architecture"] = small_jobs.architecture_file(runs_folder.parent / "data")
    launch(first, small_jobs.train_job(epochs=small_jobs.ENDLESS).model_copy(update=data))
    dock = make_dock()
    session, learn = dock.session, dock.learn_step
    qtbot.waitUntil(lambda: learn.client.active, timeout=LONG)
    assert session.run.path == first.path and dock.step == "learn" and lines(dock) == []
    dock.show_step("annotate")
    assert len(lines(dock)) == 1 and lines(dock)[0].startswith("Training in 'first'")

    # Another job would begin in a run of its own, beside the training.
    session.run = None
    dock.show_step("learn")
    qtbot.waitUntil(lambda: session.labeled_images.problem is None, timeout=LONG)
    learn.form.set_value(small_jobs.FIT.changed(epochs=small_jobs.ENDLESS))
    qtbot.waitUntil(lambda: not learn.primary.isHidden() and learn.primary.isEnabled(), timeout=LONG)
    qtbot.mouseClick(learn.primary, Qt.MouseButton.LeftButton)
    assert question(dock).text().startswith("Training in 'first': ")
    question(dock).defaultButton().click()
    qtbot.waitUntil(lambda: not learn.findChildren(QMessageBox), timeout=LONG)
    assert session.run is None and [each.name for each in runs_folder.iterdir()] == ["first"]
    qtbot.mouseClick(learn.primary, Qt.MouseButton.LeftButton)
    (start,) = [each for each in question(dock).buttons() if each.text() == "Start anyway"]
    start.click()
    second = session.run
    assert second is not None and learn.client.state == "starting" and len(lines(dock)) == 1
    dock.show_step("annotate")
    assert lines(dock)[1].startswith(f"Learning in '{second.path.name}' is starting")
    assert len(session.work.others(None)) == 2 and len(session.work.others(second)) == 1

    # One goes, the other stays, and what became of it is told until it was seen.
    press(qtbot, dock, "Show the training")
    assert session.run.path == first.path and dock.step == "learn"
    assert [line.split(" in ")[0] for line in lines(dock)] == ["Learning"]
    dock.show_step("annotate")
    press(qtbot, dock, "Stop the training")
    assert "is stopping" in lines(dock)[0]
    qtbot.waitUntil(lambda: find(second) is not None, timeout=LONG)
    find(second).kill()
    qtbot.waitUntil(lambda: session.work.others(None) == [], timeout=LONG)
    assert not first.is_active and not second.is_active
    stopped, killed = (line.split("'")[2] for line in lines(dock))
    assert stopped == " stopped" and killed.startswith(" broke off: the worker was killed")
    press(qtbot, dock, "Hide this line on the training")
    press(qtbot, dock, "Show the learning")
    assert lines(dock) == [] and dock.step == "learn" and session.run.path == second.path
    qtbot.waitUntil(lambda: learn.client.state == "died", timeout=LONG)


def test_work_of_a_shell_is_found_and_dozens_are_counted(make_dock: Any, qtbot: Any, runs_folder: Path) -> None:
    dock = make_dock()
    qtbot.waitUntil(lambda: not dock.session.background.is_busy, timeout=LONG)
    with ExitStack() as held:
        for number in range(6):
            run = Run.create(runs_folder / f"shell-{number}")
            update_config(run, search={})
            held.enter_context(run.locked())
            run.report(Started(step="search"))
            run.report(Epoch(step="search", epoch=1, seconds=1e5, seconds_left=3e5))
        dock.session.work.look()
        qtbot.waitUntil(lambda: "".join(lines(dock)).count("left") == 4, timeout=LONG)
        qtbot.waitUntil(lambda: lines(dock)[-1] == "and 2 more", timeout=LONG)
        line = lines(dock)[0]
        assert line.startswith("Search in 'shell-") and "under way, 25%, " in line and line.endswith(" left"), line
    qtbot.waitUntil(lambda: dock.session.work.others(None) == [], timeout=LONG)
    assert "broke off" in lines(dock)[0]
