"""The film strip of the tutorial: a real napari, driven by clicks and keys alone, with the seconds on each picture.

::

    xvfb-run -a -s "-screen 0 1700x1100x24" python docs/first_minutes.py \
        --image raw.tif --labels membranes.tif --name medulla

From an empty viewer: a stack is opened, strokes of its classes are painted, a network learns from them and from a
correction, and a volume is segmented. The labels are where a person knows the strokes to go; napari does not see them.
Seconds mean something on a quiet computer only. The medulla's images are by FlyEM, HHMI Janelia (CC BY 3.0 US).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import binary_erosion
from screenshots import Array, Window, folder_of_runs, lines
from strip import Strip

if TYPE_CHECKING:
    from napari_autosegnet.data.annotations import LabelMapping
    from napari_autosegnet.widgets.dock import AutoSegNetDock

#: Pixels of the window, and of a picture on the strip.
SIZE, SHOWN = (1280, 800), (768, 480)
#: Pixels of a stroke, and strokes of each class.
LENGTH, STROKES = 16, 6
#: Width of the brush.
BRUSH = 3


class Desk(Window):
    """An empty napari, and a clock."""

    def __init__(self, out: Path, runs: Path) -> None:
        self.strip = Strip(font_size=22)
        super().__init__(out, runs, ())

    # ------------------------------------------------------------ clock and pictures

    def seconds(self, there: float | None = None) -> float:
        return (time.perf_counter() if there is None else there) - self._began

    def show(self, what: str, there: float | None = None, ring: Array | None = None) -> None:
        """Take a picture of what was there at a time, or is there now, with a ring around points of the image."""
        from qtpy.QtCore import QPoint

        line = f"{self.seconds(there):.0f} s: {what}"
        whole = Image.fromarray(self.viewer.screenshot(canvas_only=False, flash=False)).convert("RGB")
        if ring is not None:
            corner = self.canvas.mapTo(self.viewer.window._qt_window, QPoint(0, 0))
            places = self.on_canvas(ring) + np.array([corner.y(), corner.x()])
            (y, x), radius = places.mean(axis=0), np.ptp(places, axis=0).max() / 2 + 12
            ImageDraw.Draw(whole).ellipse((x - radius, y - radius, x + radius, y + radius), outline="white", width=4)
        self.strip.add(whole.resize(SHOWN, Image.Resampling.LANCZOS), line)
        print(line, flush=True)

    # ------------------------------------------------------------ menus and files

    def open_dock(self) -> AutoSegNetDock:
        """From napari's menu, when the clock begins."""
        self.viewer.window.resize(*SIZE)
        self.pause(0.5)
        self._began = time.perf_counter()
        return self.open_dock_by_menu()

    def open_file(self, path: Path) -> None:
        """By *File > Open File(s)*, whose dialog takes the path."""
        from qtpy.QtCore import Qt, QTimer
        from qtpy.QtTest import QTest
        from qtpy.QtWidgets import QApplication, QDialogButtonBox, QFileDialog, QLineEdit

        QApplication.setAttribute(Qt.ApplicationAttribute.AA_DontUseNativeDialogs)
        QApplication.clipboard().setText(str(path))

        def answer() -> None:
            opened = [each for each in QApplication.topLevelWidgets() if isinstance(each, QFileDialog)]
            dialogs = [each for each in opened if each.isVisible()]
            if not dialogs:
                QTimer.singleShot(100, answer)
                return
            # Pasted, because the list of completions takes what is typed after the first slash.
            line = dialogs[0].findChild(QLineEdit, "fileNameEdit")
            QTest.keyClick(line, Qt.Key.Key_V, Qt.KeyboardModifier.ControlModifier)
            button = dialogs[0].findChild(QDialogButtonBox).button(QDialogButtonBox.StandardButton.Open)
            QTimer.singleShot(300, lambda: QTest.mouseClick(button, Qt.MouseButton.LeftButton))

        QTimer.singleShot(100, answer)
        self.choose("File", "Open File(s)")


def shoot(desk: Desk, image: Path, truth: Callable[[int], Array], mapping: LabelMapping, budget: str) -> None:
    """From an empty viewer to a volume that is segmented."""
    from qtpy.QtWidgets import QApplication, QLineEdit

    def names(events: list[Any]) -> list[str]:
        return [event.event for event in events]

    dock, viewer = desk.dock, desk.viewer
    annotate = dock.annotate_step
    live = annotate.live
    desk.open_file(image)
    there = desk.wait(lambda: annotate.new_button.isEnabled() or dock.axes_question.isVisible())
    if dock.axes_question.isVisible():
        desk.click(dock.axes_question.buttons["zyx"])
    desk.show("a stack is opened", there)

    desk.click(annotate.new_button)
    painted = viewer.layers.selection.active
    for row, each in enumerate(mapping.classes):
        if row >= annotate.table.rowCount():
            desk.click(annotate.add_button)
        desk.name_class(row, each.name)
    desk.take_brush(painted, BRUSH)
    section = viewer.dims.current_step[0]
    right = truth(section)
    planned = [lines(right == value, STROKES, value, LENGTH) for value in range(1, len(mapping.classes) + 1)]
    for number in range(STROKES):
        for value, own in enumerate(planned, start=1):
            before = np.count_nonzero(painted.data[section] == value)
            desk.press(str(value))
            desk.drag(own[number])
            if np.count_nonzero(painted.data[section] == value) == before:
                sys.exit("the mouse did not paint")
            if (number, value) == (0, 2):
                stroked = time.perf_counter()
                there = desk.wait(lambda: live.layer is not None and live.layer.visible, 60)
                desk.show(f"live labels, {there - stroked:.1f} s after the first stroke of the second class", there)
    desk.wait(lambda: not live.is_busy and not dock.session.annotation.is_counting)
    desk.show(f"live labels after {STROKES} strokes of each class")

    desk.click(annotate.next_button)
    learn = dock.learn_step
    told: list[Any] = []
    learn.client.reported.connect(told.append)
    desk.write(learn.form.findChild(QLineEdit, "budget"), budget)
    desk.click(learn.primary)
    started = time.perf_counter()
    desk.wait(lambda: learn.client.active)
    desk.show("Learn is pressed", started)
    there = desk.wait(lambda: learn.preview.layer is not None or not learn.client.active)
    desk.show(f"a network's first labels, {there - started:.0f} s after Learn", there)

    shown = np.asarray(learn.preview.layer.data)
    shown = shown.reshape(shown.shape[-2:])
    value = painted.selected_label
    # Where it is wrong beyond doubt: borders between classes are as wide as who labeled them thought.
    wrong = binary_erosion(right == value, iterations=2) & (shown != value)
    mistakes = next((found for length in (LENGTH, 12, 8, 4) if (found := lines(wrong, 1, 0, length))), [])
    if not mistakes:
        sys.exit("no mistake to correct: the network is right")
    desk.drag(mistakes[0])
    desk.show("a correction is painted (in the ring)", ring=mistakes[0])
    # Taken, then learned from for an epoch, then seen.
    seen = 0
    for kind in ("labels", "epoch", "preview"):
        there = desk.wait(lambda seen=seen, kind=kind: kind in names(told[seen:]) or not learn.client.active)
        seen += names(told[seen:]).index(kind) + 1
    desk.show("the network has learned from it", there, ring=mistakes[0])
    desk.click(learn.panel.stop)
    desk.wait(lambda: not learn.client.active)
    print("learning:", learn.client.state, learn.client.reason)

    desk.click(dock.next_button)
    step = dock.apply_step
    desk.wait(lambda: step.model is not None and step.stack_button.isEnabled())
    desk.click(step.stack_button)
    dialog = next(each for each in QApplication.topLevelWidgets() if type(each).__name__ == "ApplyDialog")
    desk.pause(0.3)
    desk.click(dialog.start_button)
    volume = step.volume
    desk.wait(lambda: volume.layer is not None or not volume.client.active)
    desk.wait(lambda: np.asarray(volume.layer.data[section]).any() or not volume.client.active, 60)
    desk.pause(0.5)
    desk.show("the volume fills in")
    desk.wait(lambda: not volume.client.active)
    print(f"volume: {volume.client.state} after {desk.seconds():.0f} s")


def main() -> None:
    """Parse the command line and take the pictures."""
    from napari_autosegnet.data.annotations import parse_classes
    from napari_autosegnet.data.images import open_labels

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--image", type=Path, required=True, help="a stack")
    parser.add_argument("--labels", type=Path, required=True, help="its labels")
    parser.add_argument("--name", help="what the stack is called in the pictures; else as its file")
    parser.add_argument("--classes", default="255:membrane,0:cell", help="classes of the labels")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images", help="folder of the pictures")
    parser.add_argument("--budget", default="5 min", help="time to learn")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    labels, mapping = open_labels(given.labels), parse_classes(given.classes)
    with folder_of_runs() as runs:
        image = runs / f"{given.name or given.image.stem}{given.image.suffix}"
        image.symlink_to(given.image.absolute())
        desk = Desk(given.out, runs)
        try:
            shoot(desk, image, lambda z: mapping.target(labels.section(z)[0]), mapping, given.budget)
        finally:
            desk.strip.save(given.out / "first-minutes.png", columns=2, colors=256)
            desk.dock.learn_step.client.cancel()
            desk.pause(2)
            desk.viewer.close()


if __name__ == "__main__":
    main()
