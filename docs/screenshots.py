"""Pictures of the dock for the documentation: a real napari window, driven by clicks through the three steps.

::

    xvfb-run -a -s "-screen 0 1700x1100x24" python docs/screenshots.py
    xvfb-run -a -s "-screen 0 1700x1100x24" python docs/screenshots.py --isbi FOLDER --out /somewhere/else

By default the built-in sample is segmented, which takes some minutes, most of them for learning (``--budget``
says how long). ``--isbi`` takes a folder with ``train-volume.tif`` and
``train-labels.tif``. Every step is taken on the dark and on the light theme and in a small window.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_autosegnet.widgets.dock import AutoSegNetDock

LARGE, SMALL = (1400, 900), (1024, 700)
#: Sections of the ISBI stack that are used as annotation.
SECTIONS = 12


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
        self.wait(lambda: not self.session.is_counting and not self.session.background.is_busy)

    def open_dock(self) -> AutoSegNetDock:
        from napari_autosegnet.widgets.dock import AutoSegNetDock

        dock = AutoSegNetDock(self.viewer)
        self.viewer.window.add_dock_widget(dock, name="Segmentation (AutoSegNet)", area="right")
        return dock

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

    def take_widget(self, widget: Any, name: str) -> None:
        path = self.out / f"dock-{name}.png"
        widget.grab().save(str(path))
        print(path)

    def save(self, pixels: Any, name: str) -> None:
        from PIL import Image

        path = self.out / name
        # 256 colors are enough for a picture of a window, and a fourth of the size.
        picture = Image.fromarray(pixels).convert("RGB")
        picture.quantize(256, kmeans=2, dither=Image.Dither.NONE).save(path, optimize=True)
        print(path)


class Film(Window):
    """A window on the sample, or on ISBI 2012, through the three steps."""

    def __init__(self, out: Path, runs: Path, isbi: Path | None) -> None:
        from napari_autosegnet.widgets.files.sample_data import axons_labeled, labeled_stack

        self.isbi = isbi
        layers = axons_labeled() if isbi is None else labeled_stack(isbi)
        for data, _, kind in layers:
            if isbi is not None and kind == "labels":
                data[SECTIONS:] = 0  # as if somebody had painted the first ones
        super().__init__(out, runs, layers)
        if isbi is not None:
            self.viewer.dims.set_point(0, 5)

    def paint(self, layer: Any, points: list[tuple[float, float]], value: int) -> None:
        """A stroke with the brush, as the mouse would make it."""
        section = self.viewer.dims.current_step[0] if layer.ndim == 3 else None
        layer.selected_label = value
        layer.brush_size = 8
        with layer.block_history():
            for y, x in points:
                layer.paint((y, x) if section is None else (section if layer.data.shape[0] > 1 else 0, y, x), value)


def shoot(film: Film, budget: str) -> None:
    """Go through the three steps."""
    from qtpy.QtWidgets import QApplication, QLineEdit

    dock, session = film.dock, film.session

    if film.isbi is not None:
        for row, name in enumerate(("membrane", "cell")):
            dock.annotate_step.table.item(row, 1).setText(name)
    film.take("annotate")
    film.click(dock.annotate_step.next_button)

    learn = dock.learn_step
    client = learn.client
    film.take("learn-start")
    film.write(learn.form.findChild(QLineEdit, "budget"), budget)
    film.click(learn.primary)
    film.wait(lambda: learn.preview.layer is not None or not client.active)
    whole = client.seconds_left or 0.0
    film.wait(lambda: (client.seconds_left or 0.0) < whole / 2 or not client.active)
    film.take("learn")
    film.wait(lambda: client.state in ("finished", "failed", "died", "stopped"))
    print("learning:", client.state, client.reason)
    film.wait(lambda: learn.menu.points is not None)
    film.take("learn-done")
    if learn.preview.layer is not None:
        film.viewer.layers.remove(learn.preview.layer)

    film.click(dock.next_button)
    step = dock.apply_step
    film.wait(lambda: step.model is not None)
    film.take("apply-start", also=False)
    for layer in session.layers.labels():
        layer.visible = False
    # Now to something that was not annotated.
    if film.isbi is None:
        from napari_autosegnet.widgets.files.sample_data import axons

        film.viewer.layers[0].visible = False
        ((pixels, about, _),) = axons()
        film.viewer.layers.selection.active = film.viewer.add_image(pixels, **about)
    else:
        film.viewer.dims.set_point(0, 20)
    film.pause(0.5)
    for attempt in ("first", "again"):
        began = time.perf_counter()
        film.click(step.slices.slice_button)
        while step.slices.progress.is_under_way:
            film.pause(0.01)
        print(f"slice, {attempt} time: {time.perf_counter() - began:.2f} s")
    film.pause(0.3)
    film.take("apply-slice")
    film.click(step.slices.place_button)
    film.wait(lambda: not step.slices.progress.is_under_way and not session.background.is_busy)
    film.take("apply-uncertain")
    film.viewer.reset_view()
    for layer in list(film.viewer.layers):
        if layer.name in ("uncertainty", "least certain place"):
            film.viewer.layers.remove(layer)
    for layer in session.layers.labels():
        layer.visible = False

    film.click(step.stack_button)
    dialog = next(widget for widget in QApplication.topLevelWidgets() if type(widget).__name__ == "ApplyDialog")
    film.pause(0.3)
    film.take_widget(dialog, "apply-dialog")
    film.click(dialog.start_button)
    film.wait(lambda: step.volume.layer is not None or not step.volume.client.active)
    film.pause(1)
    film.take("apply-stack", also=False)
    film.wait(lambda: not step.volume.client.active)
    print("stack:", step.volume.client.state, step.volume.client.reason)
    film.pause(0.5)
    for layer in list(film.viewer.layers):
        if layer.name == "segmentation of the slice":
            film.viewer.layers.remove(layer)
    result = step.volume.layer
    if result is not None:
        film.viewer.layers.selection.active = result
        film.paint(result, [(200 + t, 180 + t) for t in range(0, 60, 2)], 2)
        film.paint(result, [(300, 200 + t) for t in range(0, 60, 2)], 1)
        film.pause(0.6)
        film.take("apply")
        film.click(step.take_button)
        film.pause(0.5)
        film.take("apply-done")
        film.click(step.next_button)
        film.take("continue", also=False)


def main() -> None:
    """Parse the command line and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images", help="folder of the pictures")
    parser.add_argument("--isbi", type=Path, help="folder with train-volume.tif and train-labels.tif")
    parser.add_argument("--budget", default="5 min", help="time to learn")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with folder_of_runs() as runs:
        film = Film(arguments.out, runs, arguments.isbi)
        try:
            shoot(film, arguments.budget)
        finally:
            film.dock.learn_step.client.cancel()
            film.pause(2)
            film.viewer.close()


if __name__ == "__main__":
    sys.exit(main())
