"""The dock: three steps from an opened stack to a segmented one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtGui import QCloseEvent, QShowEvent
from qtpy.QtWidgets import (
    QApplication,
    QButtonGroup,
    QDockWidget,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QStackedWidget,
    QStyle,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import qdebounced

from napari_autosegnet.errors import UserError
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.annotate.annotate_step import AnnotateStep
from napari_autosegnet.widgets.annotate.axes_question import AxesQuestion
from napari_autosegnet.widgets.forms.buttons import emphasized, push_button
from napari_autosegnet.widgets.forms.form_rows import FOCUS_STYLE, named, tab_as_laid_out
from napari_autosegnet.widgets.forms.message_line import MessageLine, sentence
from napari_autosegnet.widgets.jobs.run_list import RunEntry, step_of
from napari_autosegnet.widgets.jobs.running_work import RunningWork
from napari_autosegnet.widgets.layers.class_colors import prepare_colors
from napari_autosegnet.widgets.learn.run_images import RunImages
from napari_autosegnet.widgets.run_box import RunBox, why_not_a_run
from napari_autosegnet.widgets.session import Session

if TYPE_CHECKING:
    import napari.viewer

    from napari_autosegnet.widgets.apply.apply_step import ApplyStep
    from napari_autosegnet.widgets.jobs.run_client import RunClient
    from napari_autosegnet.widgets.learn.learn_step import LearnStep

STEPS = ("annotate", "learn", "apply")
TITLES = {"annotate": "1 Annotate", "learn": "2 Learn", "apply": "3 Apply"}
_TIPS = {
    "annotate": "Paint some strokes of every class",
    "learn": "Find and train a network on what is painted",
    "apply": "Segment images and correct the result",
}


class AutoSegNetDock(QWidget):
    """Annotate, Learn, and Apply.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        Given by napari.
    parent : QWidget, optional

    Attributes
    ----------
    session : Session
        What the steps share.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        # Without a parent, so that it outlives the widgets that have to let go of it.
        self.session = Session(napari_viewer)
        self._released = False
        self._watch_window_soon = qdebounced(self._watch_window, timeout=0)
        self._window: QWidget | None = None

        self.run_box = RunBox(self.session)
        self.run_box.chosen.connect(self.open)
        run_row = QHBoxLayout()
        run_row.addWidget(QLabel("Run"))
        run_row.addWidget(self.run_box, 1)

        self.message = MessageLine()
        self.images = RunImages(self.session)
        self.images.loaded.connect(self._on_images)
        self.running = RunningWork(self.session.work, self._shows_job)
        self.running.asked_for.connect(self._show_job)
        self.axes_question = AxesQuestion(self.session)

        self.step_buttons: dict[str, QPushButton] = {}
        self._group = QButtonGroup(self)
        step_row = QHBoxLayout()
        step_row.setSpacing(2)
        for index, name in enumerate(STEPS):
            button = QPushButton(TITLES[name])
            button.setToolTip(_TIPS[name])
            button.setCheckable(True)
            button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            button.setStyleSheet("QPushButton { padding: 4px 1px; } QPushButton:checked { font-weight: bold; }")
            self._group.addButton(button, index)
            self.step_buttons[name] = button
            step_row.addWidget(button, 1)
        self._group.idClicked.connect(lambda index: self.show_step(STEPS[index]))

        self.pages = QStackedWidget()
        self._areas = {name: named(_scrolling(), TITLES[name], "The arrow keys scroll") for name in STEPS}
        for area in self._areas.values():
            self.pages.addWidget(area)
        self._steps: dict[str, QWidget] = {}
        self.next_button = emphasized(
            push_button("Next: apply the model", "Go to step 3; nothing starts yet", lambda: self._go_to("apply"))
        )

        self.setStyleSheet(FOCUS_STYLE)
        # Or else napari adds a stretch below.
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.addLayout(run_row)
        layout.addWidget(self.message)
        layout.addWidget(self.images)
        layout.addWidget(self.running)
        layout.addWidget(self.axes_question)
        layout.addLayout(step_row)
        layout.addWidget(self.pages, 1)
        layout.addWidget(self.next_button)

        self.session.step_finished.connect(self._on_step_finished)
        self.session.run_changed.connect(self._on_run_changed)
        application = QApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self.release)
        self.show_step("annotate")
        self.run_box.look(then=self._attach)
        # The dock opens at once with its first step; the others are made when nothing else is to be done.
        self._prepare_soon = qdebounced(self._prepare, timeout=150)
        self._prepare_soon()

    def sizeHint(self) -> QSize:  # noqa: N802
        """Wide enough for the class table; the height is the window's business."""
        return QSize(370, 560)

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        """Small windows scroll, but only up and down."""
        widest = max((step.minimumSizeHint().width() for step in self._steps.values()), default=0)
        style = self.style()
        bar = 0 if style is None else style.pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent)
        margins = self.contentsMargins()
        return QSize(min(420, max(300, widest + bar + 16 + margins.left() + margins.right())), 240)

    def bring_to_front(self) -> None:
        """Show the dock where it was hidden or lies behind another one."""
        frame = self.parentWidget()
        if isinstance(frame, QDockWidget):
            frame.show()
            frame.raise_()

    # ------------------------------------------------------------ steps

    @property
    def annotate_step(self) -> AnnotateStep:
        """The first step."""
        step = self._make("annotate")
        assert isinstance(step, AnnotateStep)
        return step

    @property
    def learn_step(self) -> LearnStep:
        """The second step; it is made when it is asked for."""
        return cast("LearnStep", self._make("learn"))

    @property
    def apply_step(self) -> ApplyStep:
        """The last step; it is made when it is asked for."""
        return cast("ApplyStep", self._make("apply"))

    def _make(self, name: str) -> QWidget:
        if name not in self._steps:
            step: Any = _step_class(name)(self.session)
            if name != "annotate":
                step.panel.changed.connect(self._show_next)
            self._steps[name] = step
            layout = step.layout()
            if layout is not None:
                layout.setContentsMargins(2, 6, 6, 6)
            self._areas[name].setWidget(step)
            tab_as_laid_out(step)
            self.updateGeometry()
        return self._steps[name]

    def _prepare(self) -> None:
        """Make the steps that nobody asked for yet, one by one; what takes long of it is done in the thread."""
        missing = [name for name in STEPS if name not in self._steps]
        if missing:
            name = missing[0]
            self.session.background.call(lambda: _step_class(name), lambda _: self._make_later(name))
        else:
            # What napari compiles for its first labels would stop the window when the first result comes.
            self.session.background.call(lambda: prepare_colors(np.uint8), lambda _: None)

    def _make_later(self, name: str) -> None:
        if not self._released:
            self._make(name)
            self._prepare_soon()

    @property
    def step(self) -> str:
        """Name of the step that is shown."""
        return STEPS[self.pages.currentIndex()]

    def show_step(self, name: str) -> None:
        """Show a step."""
        self._make(name)
        self.pages.setCurrentIndex(STEPS.index(name))
        self.step_buttons[name].setChecked(True)
        for button in self.step_buttons.values():
            # Tab comes to the step that is shown, the arrow keys to the others; Qt takes the one that it came to first.
            stop = Qt.FocusPolicy.StrongFocus if button.isChecked() else Qt.FocusPolicy.ClickFocus
            button.setFocusPolicy(stop)
        if name == "apply":
            self.apply_step.refresh()
        self.running.refresh()
        self._show_next()

    def _shows_job(self, client: RunClient) -> bool:
        """Whether the step in sight shows the job of a client."""
        place = _step_of_job(client)
        if place != self.step:
            return False
        if place == "apply":
            return self.apply_step.volume.client.attached_to(client.run)
        return self.session.run is not None and client.attached_to(self.session.run)

    def _show_job(self, client: RunClient) -> None:
        self.message.clear()
        place = _step_of_job(client)
        if place != "apply":
            self.session.run = client.run
        elif not self.apply_step.volume.client.attached_to(client.run):
            try:
                self.apply_step.volume.attach(client.run)
            except UserError as error:
                self.message.say(sentence(error), "error")
                return
        self.show_step(place)

    def _on_step_finished(self, name: str) -> None:
        if name in ("annotate", "apply"):
            self._go_to("learn")
        else:  # Finished in the background: whoever paints is not sent elsewhere.
            self.apply_step.refresh()
            self._show_next()
            self.run_box.look()

    def _show_next(self) -> None:
        run = self.session.run
        there = self.step == "learn" and run is not None and run.has_model
        self.next_button.setVisible(there and not self.learn_step.client.active)

    def _go_to(self, name: str) -> None:
        """Show a step whose button was pressed on a page that goes with it; the keyboard goes to its beginning."""
        self.show_step(name)
        self.step_buttons[name].setFocus()

    # ------------------------------------------------------------ runs

    def open(self, path: Path) -> None:
        """Go on with a run folder, or use a model folder; a folder with something else in it is refused."""
        self.message.clear()
        if (path / "model.json").is_file():  # a model itself, not a run
            self.apply_step.set_model(path)
            self.show_step("apply")
            return
        problem = why_not_a_run(path)
        if problem:
            self.message.say(problem, "error")
            return
        run = Run(path)
        self.session.run = run
        self.show_step(step_of(run))

    def _attach(self, entries: list[RunEntry]) -> None:
        """Go on with what is under way, perhaps since before napari was closed."""
        networks = [entry for entry in entries if entry.active and entry.kind == "network"]
        segmentations = [entry for entry in entries if entry.active and entry.kind == "segmentation"]
        if networks and self.session.run is None:
            self.open(networks[0].path)
        if segmentations and not self.apply_step.volume.client.active:
            with contextlib.suppress(UserError):
                self.apply_step.volume.attach(Run(segmentations[0].path))
        self.session.work.follow([entry.path for entry in entries if entry.active])

    def _on_images(self, run: Run) -> None:
        self.session.annotation.follow_layers()  # now, so that they are known to be there and not counted yet
        self.learn_step.strokes.follow(run)

    def _on_run_changed(self, run: Run | None) -> None:
        self.running.refresh()
        self._show_next()

    # ------------------------------------------------------------ the end

    def release(self) -> None:
        """Let go of the viewer, threads and timers; workers continue."""
        if self._released:
            return
        self._released = True
        if self._window is not None:
            self._window.removeEventFilter(self)
            self._window = None
        self._prepare_soon.cancel()
        if "learn" in self._steps:
            self.learn_step.release()
        if "apply" in self._steps:
            self.apply_step.release()
        self.annotate_step.release()
        self.session.close()

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802
        """Note the window."""
        super().showEvent(event)
        self._watch_window()

    def _watch_window(self) -> None:
        """Watch the window, which tells nobody inside that it closes."""
        window = self.window()
        if window is not self._window and window is not self and not self._released:
            if self._window is not None:
                self._window.removeEventFilter(self)
            self._window = window
            if window is not None:
                window.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Release everything when the window is closed by a program; see `closeEvent` for the rest."""
        closes = watched is self._window and event is not None and event.type() == QEvent.Type.Close
        # A person may still say no when napari asks; `aboutToQuit` comes later then.
        if closes and event is not None and not event.spontaneous():
            self.release()
        return super().eventFilter(watched, event)

    def event(self, event: QEvent | None) -> bool:
        """Notice when napari takes the widget out of its dock."""
        was_moved = event is not None and event.type() == QEvent.Type.ParentChange
        if was_moved and self.parent() is not None:
            self._watch_window_soon()  # the dock widget itself is not in the window yet
        elif was_moved and (self._window is not None or self._released):
            self.release()
            self.deleteLater()
        return super().event(event)

    def closeEvent(self, event: QCloseEvent | None) -> None:  # noqa: N802
        """Release everything."""
        self.release()
        super().closeEvent(event)


def _step_class(name: str) -> Callable[[Session], QWidget]:
    """The class of a step, imported here, so that the dock opens before they are."""
    match name:
        case "annotate":
            return AnnotateStep
        case "learn":
            from napari_autosegnet.widgets.learn.learn_step import LearnStep

            return LearnStep
        case _:
            from napari_autosegnet.widgets.apply.apply_step import ApplyStep

            return ApplyStep


def _step_of_job(client: RunClient) -> str:
    """The step that shows the job of a client."""
    return "apply" if client.job_step == "predict" else "learn"


def _scrolling() -> QScrollArea:
    """A page that scrolls when the window is too small for it."""
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    return area
