"""How long napari's event loop is blocked while a network learns and somebody paints, scrolls and switches steps.

::

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/responsiveness.py --seconds 20 --json result.json

A timer of 5 ms notes how late it comes; what it is late is the time in which nothing else could happen either.
Beside it stands the time that the GUI's own thread used of the processor between two ticks: what napari and the
dock did themselves, whatever else the machine was busy with (without a graphics card napari draws there, too).
The same is done four times: napari alone, with the dock, with live labels, too, and with a network that learns in
the worker. Live labels of a slice are also timed alone: from a stroke to the labels, the first time and later.

With ``--model RUN/model`` the time from a click on "Segment the slice in view" to the layer is measured, too: of the
first slice, for which torch and the model are loaded, and of ten more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TICK = 5  # milliseconds
#: Milliseconds between two things that are done: a stroke's part, a turn of the wheel, a click.
PACE = 30
TARGET = 50


class Clock:
    """Collects the lateness of a timer."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.late: list[float] = []
        self.used: list[float] = []
        self._last, self._last_used = time.perf_counter(), time.thread_time()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(TICK)
        self._timer.timeout.connect(self._tick)

    def _tick(self) -> None:
        now, used = time.perf_counter(), time.thread_time()
        self.late.append(max(0.0, 1000 * (now - self._last) - TICK))
        self.used.append(1000 * (used - self._last_used))
        self._last, self._last_used = now, used

    def run(self, seconds: float, action: Callable[[int], None]) -> dict[str, float]:
        """Do something again and again; percentiles of the lateness in milliseconds."""
        from qtpy.QtCore import QEventLoop, QTimer

        loop, count = QEventLoop(), 0
        actor, errors = QTimer(), []

        def act() -> None:
            nonlocal count
            try:
                action(count)
            except Exception as error:
                errors.append(error)
                loop.quit()
            count += 1

        actor.setInterval(PACE)
        actor.timeout.connect(act)
        self.late.clear()
        self.used.clear()
        self._last, self._last_used = time.perf_counter(), time.thread_time()
        self._timer.start()
        actor.start()
        QTimer.singleShot(int(1000 * seconds), loop.quit)
        loop.exec()
        actor.stop()
        self._timer.stop()
        if errors:
            raise errors[0]
        late, used = np.array(self.late), np.array(self.used)
        return {
            "ticks": len(late),
            "actions": count,
            "p50": float(np.percentile(late, 50)),
            "p99": float(np.percentile(late, 99)),
            "max": float(late.max()),
            "used_p99": float(np.percentile(used, 99)),
            "used_max": float(used.max()),
            "share": float(used.sum() / 1000 / seconds),
        }


def measure(clock: Clock, viewer: Any, dock: Any, seconds: float) -> dict[str, dict[str, float]]:
    """Paint, scroll and switch steps."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    labels = viewer.layers["annotation"]
    viewer.layers.selection.active = labels
    labels.brush_size = 10
    generator = np.random.default_rng(0)

    def paint(number: int) -> None:
        section = int(viewer.dims.current_step[0])
        angle = number / 12
        y, x = 256 + 150 * np.sin(angle), 256 + 150 * np.cos(1.3 * angle)
        labels.paint((section, y, x), 1 + number // 50 % 3)

    def scroll(number: int) -> None:
        viewer.dims.set_current_step(0, number % 30)

    def zoom(number: int) -> None:
        viewer.scene.camera.zoom *= 1.05 if number // 20 % 2 else 1 / 1.05

    def switch(number: int) -> None:
        if number % 10 == 0:
            buttons = list(dock.step_buttons.values())
            button = buttons[int(generator.integers(len(buttons)))]
            QTest.mouseClick(button, Qt.MouseButton.LeftButton)

    actions: dict[str, Callable[[int], None]] = {
        "nothing": lambda _: None,
        "painting": paint,
        "scrolling": scroll,
        "zooming": zoom,
    }
    if dock is not None:
        actions["switching steps"] = switch
    results = {name: clock.run(seconds, action) for name, action in actions.items()}
    if dock is not None:
        dock.show_step("annotate")
    return results


def live_labels(viewer: Any, dock: Any, side: int) -> list[float]:
    """Seconds from a stroke to the labels of a slice of blobs: the first one, and those after it."""
    from qtpy.QtTest import QTest
    from skimage.data import binary_blobs

    blobs = binary_blobs(side, rng=0)
    noise = np.random.default_rng(0).normal(0, 25, blobs.shape)
    image = viewer.add_image(np.clip(90 + 80 * blobs + noise, 0, 255).astype(np.uint8), name="blobs")
    labels = viewer.add_labels(np.zeros(blobs.shape, np.uint8), name="strokes")
    dock.show_step("annotate")
    live = dock.annotate_step.live
    live.box.setChecked(True)
    QTest.qWait(1500)
    labels.brush_size = 5
    taken: list[float] = []
    rows, columns = np.nonzero(blobs)
    inside = (int(rows[len(rows) // 2]), int(columns[len(rows) // 2]))
    rows, columns = np.nonzero(~blobs)
    outside = (int(rows[len(rows) // 2]), int(columns[len(rows) // 2]))
    labels.paint(outside, 1)
    QTest.qWait(500)
    for number in range(8):
        before = None if live.layer is None else live.layer.data
        began = time.perf_counter()
        labels.paint((inside[0] + number, inside[1]), 2)
        while live.layer is None or live.layer.data is before:
            QTest.qWait(2)
        taken.append(time.perf_counter() - began)
        while live.is_busy:
            QTest.qWait(20)
        QTest.qWait(300)
    live.box.setChecked(False)
    viewer.layers.remove(labels)
    viewer.layers.remove(image)
    return taken


def slices(viewer: Any, dock: Any, model: Path) -> list[float]:
    """Seconds from a click to the layer, section after section."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    step = dock.apply_step
    dock.show_step("apply")
    step.set_model(model)
    while not step.slices.slice_button.isEnabled():
        QTest.qWait(20)
    taken: list[float] = []
    for section in range(11):
        viewer.dims.set_current_step(0, section)
        QTest.qWait(300)
        began = time.perf_counter()
        QTest.mouseClick(step.slices.slice_button, Qt.MouseButton.LeftButton)
        while not step.slices.slice_button.isEnabled():
            QTest.qWait(2)
        taken.append(time.perf_counter() - began)
        assert np.asarray(viewer.layers["segmentation of the slice"].data[section]).any(), "the slice has no labels"
    viewer.layers.remove("segmentation of the slice")
    return taken


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=20, help="per thing that is done")
    parser.add_argument("--window", default="1400x900", help="pixels; software that draws takes longer for larger ones")
    parser.add_argument("--live-side", type=int, default=1024, help="pixels of the slice that gets live labels")
    parser.add_argument("--model", type=Path, help="measures the slice in view with it, too")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    import napari
    from napari.plugins import _initialize_plugins
    from napari.settings import get_plugin_settings
    from qtpy.QtTest import QTest

    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as runs:
        generator = np.random.default_rng(0)
        stack = generator.integers(0, 255, (30, 512, 512), np.uint8)
        annotation = np.zeros((30, 512, 512), np.uint8)
        annotation[:, 100:200], annotation[:, 200:300], annotation[:, 300:400] = 1, 2, 3
        viewer = napari.Viewer()
        viewer.window.resize(*map(int, arguments.window.split("x")))
        viewer.add_image(stack, name="stack")
        viewer.add_labels(annotation, name="annotation")
        QTest.qWait(1000)
        # napari does this when it is started as a program.
        _initialize_plugins()
        get_plugin_settings()
        clock = Clock()
        results["napari alone"] = measure(clock, viewer, None, arguments.seconds)

        began, used = time.perf_counter(), time.process_time()
        from napari_autosegnet.widgets import session
        from napari_autosegnet.widgets.dock import AutoSegNetDock

        preferences = session.Preferences(runs_folder=Path(runs), device="cpu")
        session.read_preferences = lambda: preferences  # type: ignore[attr-defined]
        dock = AutoSegNetDock(viewer)
        viewer.window.add_dock_widget(dock, name="AutoSegNet")
        results["opening the dock (s)"] = time.perf_counter() - began
        results["opening the dock (s of the processor)"] = time.process_time() - used
        dock.annotate_step.live.box.setChecked(False)
        QTest.qWait(2000)
        results["with the dock"] = measure(clock, viewer, dock, arguments.seconds)

        if arguments.model is not None:
            results["slice in view (s)"] = slices(viewer, dock, arguments.model)

        results["live labels (s)"] = live_labels(viewer, dock, arguments.live_side)

        dock.annotate_step.live.box.setChecked(True)
        QTest.qWait(3000)
        results["live labels"] = measure(clock, viewer, dock, arguments.seconds)

        learn = dock.learn_step
        dock.show_step("learn")
        QTest.qWait(500)
        learn.primary.click()
        client = learn.client
        events: list[str] = []
        client.reported.connect(lambda event: events.append(event.event))
        end = time.monotonic() + 300
        while "epoch" not in events and client.state not in ("failed", "died") and time.monotonic() < end:
            QTest.qWait(100)
        results["learning"] = client.state
        dock.show_step("annotate")
        results["live labels, learning"] = measure(clock, viewer, dock, arguments.seconds)
        results["epochs meanwhile"] = events.count("epoch")
        client.cancel()
        while client.active:
            QTest.qWait(50)
        viewer.close()
    results["machine"] = {
        "window": arguments.window,
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
    opening, used = results["opening the dock (s)"], results["opening the dock (s of the processor)"]
    print(f"opening the dock, with its imports: {opening:.3f} s, {used:.3f} s of the processor")
    if arguments.model is not None:
        first, *others = results["slice in view (s)"]
        print(f"slice in view: first {first:.2f} s, then {np.median(others):.2f} s (at most {max(others):.2f} s)")
    first, *others = results["live labels (s)"]
    print(f"live labels of {arguments.live_side}^2: first {first:.2f} s, then {np.median(others):.2f} s")
    print(f"learning: {results['learning']}, {results['epochs meanwhile']} epochs meanwhile")
    print(f"load {results['machine']['load']:.1f} on {results['machine']['cores']} cores; milliseconds")
    print(f"{'':28}{'doing':18}{'late p50':>10}{'p99':>8}{'max':>8}{'used p99':>12}{'max':>8}{'share':>8}")
    for state in ("napari alone", "with the dock", "live labels", "live labels, learning"):
        for name, row in results[state].items():
            mark = "" if row["p99"] < TARGET else "  above the target"
            late = f"{row['p50']:10.1f}{row['p99']:8.1f}{row['max']:8.1f}"
            print(f"{state:28}{name:18}{late}{row['used_p99']:12.1f}{row['used_max']:8.1f}{row['share']:8.0%}{mark}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
