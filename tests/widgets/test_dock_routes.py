"""Every way that napari has to a dock leads to one that works: some hand over a proxy in place of the viewer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")
npe2 = pytest.importorskip("npe2")

import tifffile  # noqa: E402
from qtpy.QtCore import Qt  # noqa: E402

from napari_autosegnet.run import Run  # noqa: E402
from napari_autosegnet.widgets.dock import AutoSegNetDock  # noqa: E402
from napari_autosegnet.widgets.layers.notes import role  # noqa: E402
from napari_autosegnet.widgets.preferences import PLUGIN  # noqa: E402
from small_models import small_model  # noqa: E402


def by_the_menu(viewer: Any, run: Run) -> None:
    from napari._app_model import get_app_model

    get_app_model().commands.execute_command(f"{PLUGIN}.dock").result()


def by_add_plugin_dock_widget(viewer: Any, run: Run) -> None:
    viewer.window.add_plugin_dock_widget(PLUGIN)


def by_the_reader(viewer: Any, run: Run) -> None:
    viewer.open(str(run.model_folder / "model.json"), plugin=PLUGIN)


def by_the_reader_beside_the_dock_of_a_script(viewer: Any, run: Run) -> None:
    by_a_script(viewer, run)
    by_the_reader(viewer, run)


def by_a_script(viewer: Any, run: Run) -> None:
    viewer.window.add_dock_widget(AutoSegNetDock(viewer), name="mine")


def by_the_console(viewer: Any, run: Run) -> None:
    from napari.utils._proxies import PublicOnlyProxy

    given = PublicOnlyProxy(viewer)  # what the console calls "viewer"
    given.window.add_dock_widget(AutoSegNetDock(given), name="mine")


ROUTES = (
    by_the_menu,
    by_add_plugin_dock_widget,
    by_the_reader,
    by_the_reader_beside_the_dock_of_a_script,
    by_a_script,
    by_the_console,
)


@pytest.fixture
def run(runs_folder: Path) -> Run:
    run = Run.create(runs_folder / "first")
    small_model().save(run.model_folder)
    return run


@pytest.mark.filterwarnings("error:Private attribute access")
@pytest.mark.parametrize("route", ROUTES, ids=[route.__name__ for route in ROUTES])
def test_the_steps_work_whichever_way_the_dock_was_opened(
    route: Callable[[Any, Run], None], make_napari_viewer: Callable[..., Any], npe2pm: Any, run: Run, qtbot: Any
) -> None:
    with npe2pm.tmp_plugin(manifest=npe2.PluginManifest.from_distribution(PLUGIN)):
        viewer = make_napari_viewer()
        image = viewer.add_image(np.random.default_rng(0).integers(0, 255, (2, 64, 64), np.uint8), name="stack")
        route(viewer, run)
        (dock,) = [each for each in viewer.window.dock_widgets.values() if isinstance(each, AutoSegNetDock)]
        qtbot.waitUntil(lambda: not dock.session.background.is_busy, timeout=10_000)

        # Annotate: a layer, a stroke, and it is counted.
        qtbot.mouseClick(dock.annotate_step.new_button, Qt.MouseButton.LeftButton)
        (labels,) = dock.session.layers.labels()
        assert labels in viewer.layers and labels is viewer.layers.selection.active and labels.mode == "paint"
        labels.paint((0, 20, 20), 1)
        qtbot.waitUntil(lambda: dock.session.annotation.pixels_of(1) == np.count_nonzero(labels.data), timeout=10_000)
        (pair,) = dock.session.annotation.pairs()
        assert pair.image is image and pair.labels is labels

        # Apply: the slice is segmented.
        dock.open(run.path)
        apply = dock.apply_step
        qtbot.waitUntil(lambda: apply.model is not None, timeout=10_000)
        assert dock.step == "apply" and apply.slices.slice_button.isEnabled() and apply.stack_button.isEnabled()
        qtbot.mouseClick(apply.slices.slice_button, Qt.MouseButton.LeftButton)
        qtbot.waitUntil(lambda: "preview" in [role(layer) for layer in viewer.layers], timeout=60_000)
        assert apply.message.kind != "error"
        viewer.layers.remove(labels)
        qtbot.waitUntil(lambda: dock.session.annotation.pairs() == [], timeout=10_000)


#: Runs in napari itself: presses what a person would press, and prints what came of it.
PROGRAM = """
import json, sys
import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtTest import QTest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication


def finish(**found):
    print("FOUND " + json.dumps(found), flush=True)
    import os
    os._exit(0)  # napari would ask whether to close


def press(button):
    assert button.isEnabled(), button.text()
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


def steps():
    import napari
    from napari_autosegnet.widgets.dock import AutoSegNetDock

    viewer = napari.current_viewer()
    while not (viewer and [each for each in viewer.window.dock_widgets.values() if isinstance(each, AutoSegNetDock)]):
        yield
        viewer = napari.current_viewer()
    (dock,) = [each for each in viewer.window.dock_widgets.values() if isinstance(each, AutoSegNetDock)]
    while dock.session.background.is_busy or not dock.isVisible():
        yield
    press(dock.annotate_step.new_button)
    (labels,) = dock.session.layers.labels()
    labels.paint((20, 20), 1)
    while not dock.session.annotation.pixels_of(1):
        yield
    dock.open(MODEL)
    while dock.apply_step.model is None:
        yield
    press(dock.apply_step.slices.slice_button)
    while "segmentation of the slice" not in viewer.layers:
        yield
    finish(
        layers=[layer.name for layer in viewer.layers],
        pairs=[pair.name for pair in dock.session.annotation.pairs()],
        step=dock.step,
        painted=dock.session.annotation.pixels_of(1),
    )


def advance():
    try:
        next(way)
    except BaseException:
        import traceback
        finish(error=traceback.format_exc())


way, timer = steps(), QTimer()
timer.timeout.connect(advance)
timer.start(20)
QApplication.instance().way_of_the_test = timer
"""


@pytest.mark.skipif(sys.platform == "darwin", reason="napari starts a process of its own there")
def test_napari_with_the_dock_and_files_from_the_shell(run: Run, tmp_path: Path) -> None:
    files = [tmp_path / "a.tif", tmp_path / "b.tif"]
    for file in files:
        tifffile.imwrite(file, np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    script = tmp_path / "steps.py"
    script.write_text(f"from pathlib import Path\nMODEL = Path({str(run.model_folder)!r})\n{PROGRAM}")
    (tmp_path / "settings.yaml").write_text(json.dumps({"application": {"startup_script": str(script)}}))
    done = subprocess.run(
        [sys.executable, "-m", "napari", *map(str, files), "--with", PLUGIN],
        env={**os.environ, "NAPARI_CONFIG": str(tmp_path / "settings.yaml"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert found, done.stderr
    content = json.loads(found[0].removeprefix("FOUND "))
    assert "error" not in content, content["error"]
    assert content["pairs"] == ["b / b annotation"] and content["step"] == "apply" and content["painted"] > 0
    assert "segmentation of the slice" in content["layers"]
    assert "Private attribute access" not in done.stderr
