"""Pictures of the tutorial in napari: a real napari window in which it is followed literally, by clicks and keys alone.

::

    xvfb-run -a -s "-screen 0 1700x1100x24" python docs/screenshots.py

It takes a quarter of an hour, most of it for learning (``--budget`` says how long). The labels that come with the
sample are where a person knows the strokes to go; napari sees them at the end only. Every step is taken on the dark and
on the light theme and in a small window.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_erosion

if TYPE_CHECKING:
    from napari_autosegnet.widgets.dock import AutoSegNetDock

LARGE, SMALL = (1400, 900), (1024, 700)
CLASSES = ("background", "myelin", "axon")
#: Width of the brush, pixels of a stroke, and strokes of each class to begin with.
BRUSH, LENGTH, STROKES = 6, 28, 12
#: Pixels between strokes.
APART = 32

Array = npt.NDArray[Any]


@contextmanager
def folder_of_runs() -> Iterator[Path]:
    """A temporary folder with a name that anybody could have, because pictures show where results lie."""
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(tempfile.gettempdir()) / "autosegnet-runs"
        runs.unlink(missing_ok=True)  # of a script that was killed
        runs.symlink_to(folder, target_is_directory=True)
        try:
            yield runs
        finally:
            runs.unlink()


class Window:
    """A napari window with the dock on some layers, and the pictures that are taken of it."""

    def __init__(self, out: Path, runs: Path, layers: Iterable[Any]) -> None:
        import napari
        from napari.layers import Layer

        from napari_autosegnet.widgets import session as session_module
        from napari_autosegnet.widgets.preferences import Preferences

        self.out = out
        # The pictures are not to show, nor to fill, the runs of whoever makes them.
        session_module.read_preferences = lambda: Preferences(runs_folder=runs, device="cpu")  # type: ignore[attr-defined]
        self.viewer = napari.Viewer()
        self.viewer.window.resize(*LARGE)
        for data, about, kind in layers:
            self.viewer.add_layer(Layer.create(data, about, kind))
        began = time.perf_counter()
        self.dock = self.open_dock()
        print(f"dock opened in {time.perf_counter() - began:.3f} s, imports included")
        self.session = self.dock.session
        self.wait(lambda: not self.session.annotation.is_counting and not self.session.background.is_busy)

    def open_dock(self) -> AutoSegNetDock:
        from napari_autosegnet.widgets.dock import AutoSegNetDock

        dock = AutoSegNetDock(self.viewer)
        self.viewer.window.add_dock_widget(dock, name="Segmentation (AutoSegNet)", area="right")
        return dock

    def open_dock_by_menu(self) -> AutoSegNetDock:
        """As a person does."""
        from napari_autosegnet.widgets.dock import AutoSegNetDock

        self.choose("Plugins", "Segmentation (AutoSegNet)")
        window = self.viewer.window._qt_window
        self.wait(lambda: window.findChild(AutoSegNetDock) is not None)
        return window.findChild(AutoSegNetDock)  # type: ignore[no-any-return]

    def pause(self, seconds: float) -> None:
        from qtpy.QtTest import QTest

        QTest.qWait(int(1000 * seconds))

    def wait(self, condition: Callable[[], bool], seconds: float = 1200) -> float:
        """Wait for something, and a moment longer; the time (of `time.perf_counter`) at which it was there."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                self.take("gave-up")
                raise TimeoutError("the dock did not come to what was waited for; see dock-gave-up.png")
            self.pause(0.02)
        there = time.perf_counter()
        self.pause(0.3)
        return there

    def click(self, button: Any) -> None:
        """Click a button as a person would; it has to be visible and enabled."""
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        if not button.isVisible() or not button.isEnabled():
            self.take("gave-up")
            raise RuntimeError(f"'{button.text()}' cannot be clicked; see dock-gave-up.png")
        QTest.mouseClick(button, Qt.MouseButton.LeftButton, pos=button.rect().center())
        self.pause(0.2)

    def write(self, line: Any, text: str) -> None:
        from qtpy.QtTest import QTest

        line.setFocus()
        line.selectAll()
        QTest.keyClicks(line, text)

    def take(self, name: str, also: bool = True) -> None:
        """Take a picture; with ``also`` one on the light theme and one in a small window."""
        ways = [("", "dark", LARGE)]
        if also:
            ways += [("-light", "light", LARGE), ("-small", "dark", SMALL)]
        for ending, theme, size in ways:
            self.viewer.theme = theme
            self.viewer.window.resize(*size)
            self.pause(0.6)
            self.save(self.viewer.screenshot(canvas_only=False, flash=False), f"dock-{name}{ending}.png")
        self.viewer.theme = "dark"
        self.viewer.window.resize(*LARGE)
        self.pause(0.2)

    def save(self, pixels: Any, name: str) -> None:
        from PIL import Image

        path = self.out / name
        # 256 colors are enough for a picture of a window, and a fourth of the size.
        picture = Image.fromarray(pixels).convert("RGB")
        picture.quantize(256, kmeans=2, dither=Image.Dither.NONE).save(path, optimize=True)
        print(path)

    # ------------------------------------------------------------ menus and tables

    def choose(self, *entries: str) -> None:
        """Click through napari's menus."""
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        menu = self.viewer.window._qt_window.menuBar()
        for entry in entries:
            found = [each for each in menu.actions() if each.text().replace("&", "").startswith(entry)]
            if not found:
                sys.exit(f"no '{entry}' among {[each.text() for each in menu.actions()]}")
            QTest.mouseClick(menu, Qt.MouseButton.LeftButton, pos=menu.actionGeometry(found[0]).center())
            self.pause(0.2)
            menu = found[0].menu()

    def name_class(self, row: int, name: str) -> None:
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest
        from qtpy.QtWidgets import QLineEdit

        table = self.dock.annotate_step.table
        place = table.visualItemRect(table.item(row, 1)).center()
        QTest.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=place)
        QTest.keyClick(table, Qt.Key.Key_F2)
        self.write(table.findChild(QLineEdit), name)
        QTest.keyClick(table.findChild(QLineEdit), Qt.Key.Key_Return)
        self.pause(0.1)

    # ------------------------------------------------------------ canvas

    @property
    def canvas(self) -> Any:
        return self.viewer.window._qt_viewer.canvas.native

    def on_canvas(self, points: Array) -> Array:
        """Where points (row, column) of the image lie on the canvas (y, x)."""
        camera = self.viewer.scene.camera
        return (points - camera.center[-2:]) * camera.zoom + [self.canvas.height() / 2, self.canvas.width() / 2]

    def press(self, keys: str) -> None:
        """Press keys while the canvas has the keyboard."""
        from qtpy.QtTest import QTest

        window = self.viewer.window._qt_window
        window.activateWindow()
        self.wait_for_focus(window)
        self.canvas.setFocus()
        for key in keys:
            QTest.keyClicks(self.canvas, key)
        self.pause(0.05)

    def take_brush(self, labels: Any, width: int) -> None:
        """The brush that is in hand, thinner."""
        while labels.brush_size > width:
            before = labels.brush_size
            self.press("[")
            if labels.brush_size == before:
                sys.exit("napari's key [ does not make the brush thinner")

    def wait_for_focus(self, window: Any) -> None:
        """Keys that the dock gives to the window work while it is the active one."""
        end = time.monotonic() + 10
        while not window.isActiveWindow() and time.monotonic() < end:
            self.pause(0.02)

    def drag(self, stroke: Array) -> None:
        """Paint along points (row, column) of the image with the brush in hand."""
        from qtpy.QtCore import QEvent, QPointF, Qt
        from qtpy.QtGui import QMouseEvent
        from qtpy.QtWidgets import QApplication

        left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
        move, down, up = QEvent.Type.MouseMove, QEvent.Type.MouseButtonPress, QEvent.Type.MouseButtonRelease
        places = self.on_canvas(stroke)
        steps = [(move, places[0], none, none), (down, places[0], left, left)]
        steps += [(move, place, none, left) for place in places[1:]]
        for kind, (y, x), button, held in [*steps, (up, places[-1], left, none)]:
            local = QPointF(x, y)
            on_screen = QPointF(self.canvas.mapToGlobal(local.toPoint()))
            event = QMouseEvent(kind, local, on_screen, button, held, Qt.KeyboardModifier.NoModifier)
            QApplication.sendEvent(self.canvas, event)
            self.pause(0.02)


def lines(where: Array, number: int, seed: int, length: int) -> list[Array]:
    """Straight strokes within a mask, far from each other; off its border and of full length where there is room."""
    generator = np.random.default_rng(seed)
    middles: list[Array] = []
    found: list[Array] = []
    for inside, size in product((binary_erosion(where, iterations=3), where), (length, length // 2)):
        for place in generator.permutation(np.argwhere(inside)):
            if len(found) == number:
                return found
            if any(np.abs(place - other).max() < APART for other in middles):
                continue
            for step in ((0, 1), (1, 0), (1, 1), (1, -1)):
                along = place + np.arange(-size // 2, size // 2 + 1)[:, np.newaxis] * np.array(step)
                is_within = (along >= 8).all() and (along < np.array(inside.shape) - 8).all()
                if is_within and inside[tuple(along.T)].all():
                    middles.append(place)
                    found.append(along[::4])
                    break
    return found


class Tutorial(Window):
    """The tutorial's walk through the three steps."""

    def __init__(self, out: Path, runs: Path) -> None:
        from napari_autosegnet.data.annotations import parse_classes
        from napari_autosegnet.data.images import open_labels
        from napari_autosegnet.data.sample import SAMPLE_CLASSES, sample_folder

        mapping = parse_classes(SAMPLE_CLASSES)
        self.first, self.other = (
            mapping.target(open_labels(sample_folder() / f"axon-sem-{name}-labels.png").section(0)[0]) for name in "ab"
        )
        super().__init__(out, runs, ())

    def open_dock(self) -> AutoSegNetDock:
        return self.open_dock_by_menu()

    def open_sample(self, name: str) -> None:
        self.choose("File", "Open Sample", "AutoSegNet", f"Axons and myelin (SEM): {name}")
        self.pause(1)

    def paint(self, planned: list[list[Array]]) -> None:
        """Strokes of each class in turn, with the keys that take its brush."""
        labels = self.viewer.layers.selection.active
        for number in range(max(map(len, planned))):
            for value, own in enumerate(planned, start=1):
                if number < len(own):
                    before = np.count_nonzero(labels.data == value)
                    self.press(str(value))
                    self.drag(own[number])
                    if np.count_nonzero(labels.data == value) == before:
                        print(f"a stroke of class {value} painted nothing new")

    def settle(self) -> None:
        live, slices = self.dock.annotate_step.live, self.dock.apply_step.slices.progress
        self.wait(lambda: not (live.is_busy or slices.is_under_way))
        self.wait(lambda: not (self.session.annotation.is_counting or self.session.background.is_busy))

    def score(self, name: str, truth: Array) -> None:
        """How much of a layer is right; for the log."""
        shown = np.asarray(self.viewer.layers[name].data).reshape(truth.shape)
        both = [(shown == value, truth == value) for value in range(1, len(CLASSES) + 1)]
        iou = [(one & other).sum() / (one | other).sum() for one, other in both]
        print(f"{name}: mean IoU {np.mean(iou):.3f}", [f"{each:.2f}" for each in iou], flush=True)


def annotate(desk: Tutorial) -> None:
    """An annotation layer, three classes, strokes."""
    step = desk.dock.annotate_step
    desk.take("empty", also=False)
    desk.open_sample("an image to paint on")
    desk.take("start", also=False)
    desk.click(step.new_button)
    desk.click(step.add_button)
    for row, name in enumerate(CLASSES):
        desk.name_class(row, name)
    desk.take("classes", also=False)
    desk.take_brush(desk.viewer.layers.selection.active, BRUSH)
    planned = [lines(desk.first == value, 3 * STROKES, value, LENGTH) for value in range(1, len(CLASSES) + 1)]
    began = time.monotonic()
    desk.paint([own[:1] for own in planned[:2]])
    desk.wait(lambda: step.live.layer is not None)
    desk.take("live", also=False)
    desk.paint([own[value < 2 : STROKES] for value, own in enumerate(planned)])
    desk.settle()
    painted = [STROKES] * len(CLASSES)
    # As the dock asks for it.
    while (
        (checked := desk.session.labeled_images.checked) is not None and checked.scarce and max(painted) < 3 * STROKES
    ):
        wanted = [2 * (name in checked.scarce) for name in CLASSES]
        desk.paint([own[at : at + more] for own, at, more in zip(planned, painted, wanted, strict=True)])
        painted = [at + more for at, more in zip(painted, wanted, strict=True)]
        desk.settle()
    print(f"painted in {time.monotonic() - began:.0f} s: {painted} strokes")
    desk.score("Live labels", desk.first)
    desk.take("annotate")
    desk.click(step.next_button)


def learn(desk: Tutorial, budget: str) -> None:
    """The button, and the networks to choose from."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QLineEdit

    step = desk.dock.learn_step
    client = step.client
    desk.take("learn-start", also=False)
    desk.write(step.form.findChild(QLineEdit, "budget"), budget)
    desk.click(step.primary)
    desk.wait(lambda: step.preview.layer is not None or not client.active)
    whole = client.seconds_left or 0.0
    desk.wait(lambda: (client.seconds_left or 0.0) < whole / 2 or not client.active)
    desk.take("learn")
    desk.wait(lambda: not client.active, 3600)
    print("learning:", client.state, client.reason)
    desk.wait(lambda: step.menu.points is not None)
    desk.pause(1)
    desk.score("training preview", desk.first)
    desk.take("learn-done")
    menu = step.menu
    points = menu.points.points()
    others = [point for point in points if point.size() < max(each.size() for each in points)]
    for point in others[:1]:
        place = menu.plot.mapFromScene(menu.points.mapToScene(point.pos()))
        QTest.mouseClick(menu.plot.viewport(), Qt.MouseButton.LeftButton, pos=place)
        desk.pause(0.5)
        desk.settle()
        desk.take("learn-chosen", also=False)
    desk.click(desk.dock.next_button)


def apply(desk: Tutorial) -> None:
    """The other image: its segmentation, and corrections where it is least certain."""
    from napari_autosegnet.widgets.apply.uncertainty import PLACE

    step = desk.dock.apply_step
    desk.wait(lambda: step.model is not None)
    desk.take("apply-start", also=False)
    desk.open_sample("another image")
    desk.take("apply-opened", also=False)
    desk.click(step.slices.slice_button)
    desk.settle()
    result = desk.viewer.layers[-1].name
    print([layer.name for layer in desk.viewer.layers])
    desk.score("segmentation of the slice", desk.other)
    desk.take("apply-slice")
    for number in range(3):
        desk.click(step.slices.place_button)
        desk.settle()
        desk.take(f"apply-uncertain{number or ''}", also=number == 0)
        place = next(iter(step.slices.places.values())).visited[-1]
        frame = np.zeros(desk.other.shape, bool)
        frame[tuple(slice(max(0, at - PLACE // 2), at + PLACE // 2) for at in place[1:])] = True
        desk.paint([lines(frame & (desk.other == value), 2, value, 10) for value in range(1, len(CLASSES) + 1)])
    desk.settle()
    desk.take("apply-corrected", also=False)
    desk.click(step.next_button)
    print(result)


def continue_learning(desk: Tutorial, budget: float) -> None:
    """With the corrections, until it is enough; and how good it is."""
    step, client = desk.dock.learn_step, desk.dock.learn_step.client
    desk.settle()
    desk.take("continue", also=False)
    desk.click(step.primary)
    desk.wait(lambda: client.active)
    desk.pause(budget)
    desk.take("continuing", also=False)
    desk.click(step.panel.stop)
    desk.wait(lambda: not client.active)
    print("continued:", client.state, client.reason)
    desk.click(desk.dock.next_button)
    desk.wait(lambda: desk.dock.apply_step.slices.slice_button.isEnabled())
    desk.click(desk.dock.apply_step.slices.slice_button)
    desk.settle()
    desk.score("segmentation of the slice", desk.other)
    desk.take("apply-again", also=False)


def main() -> None:
    """Parse the command line and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images", help="folder of the pictures")
    parser.add_argument("--budget", default="10 min", help="time to learn")
    parser.add_argument("--more", type=float, default=120, help="seconds to learn from the corrections")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with folder_of_runs() as runs:
        desk = Tutorial(given.out, runs)
        try:
            annotate(desk)
            learn(desk, given.budget)
            apply(desk)
            continue_learning(desk, given.more)
        finally:
            desk.dock.learn_step.client.cancel()
            desk.pause(2)
            desk.viewer.close()


if __name__ == "__main__":
    sys.exit(main())
