"""The dock: four steps from an opened stack to a segmented one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer
from qtpy.QtGui import QCloseEvent, QShowEvent
from qtpy.QtWidgets import (
    QApplication,
    QButtonGroup,
    QComboBox,
    QFileDialog,
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

from napari_autosegnet.errors import UserError
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.annotate_step import AnnotateStep
from napari_autosegnet.widgets.apply_step import ApplyStep, is_model_folder
from napari_autosegnet.widgets.layers import Session
from napari_autosegnet.widgets.message_line import emphasised
from napari_autosegnet.widgets.retrain_step import RetrainStep
from napari_autosegnet.widgets.run_list import RunEntry, find_runs, step_of
from napari_autosegnet.widgets.search_step import SearchStep

if TYPE_CHECKING:
    import napari.viewer

STEPS = ("annotate", "search", "retrain", "apply")
TITLES = {"annotate": "1 Annotate", "search": "2 Search", "retrain": "3 Retrain", "apply": "4 Apply"}
_NEXT = {"search": "Next: retrain the network", "retrain": "Next: apply the network"}
_NO_RUN = "new run"
_OTHER = "open another folder ..."


class AutoSegNetDock(QWidget):
    """Annotate, Search, Retrain and Apply.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        Given by napari.
    parent : QWidget, optional

    Attributes
    ----------
    session : Session
        What the steps share.
    steps : dict of str to QWidget
        By their names in `STEPS`.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        # Without a parent, so that it outlives the widgets that have to let go of it.
        self.session = Session(napari_viewer)
        self._released = False
        self._moved = QTimer(self)
        self._moved.setSingleShot(True)
        self._moved.timeout.connect(self._watch_window)
        self._window: QWidget | None = None
        self._listed: list[RunEntry] = []

        self.annotate_step = AnnotateStep(self.session)
        self.search_step = SearchStep(self.session)
        self.retrain_step = RetrainStep(self.session)
        self.apply_step = ApplyStep(self.session)
        self.steps: dict[str, QWidget] = dict(
            zip(STEPS, (self.annotate_step, self.search_step, self.retrain_step, self.apply_step), strict=True)
        )

        self.run_box = QComboBox()
        self.run_box.setToolTip("A run is a folder that keeps annotation, search, network and curves")
        self.run_box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.run_box.activated.connect(self._on_run_chosen)
        run_row = QHBoxLayout()
        run_row.addWidget(QLabel("Run"))
        run_row.addWidget(self.run_box, 1)

        self.step_buttons: dict[str, QPushButton] = {}
        self._group = QButtonGroup(self)
        step_row = QHBoxLayout()
        step_row.setSpacing(2)
        for index, name in enumerate(STEPS):
            button = QPushButton(TITLES[name])
            button.setCheckable(True)
            button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            button.setStyleSheet("QPushButton { padding: 4px 1px; } QPushButton:checked { font-weight: bold; }")
            self._group.addButton(button, index)
            self.step_buttons[name] = button
            step_row.addWidget(button, 1)
        self._group.idClicked.connect(lambda index: self.show_step(STEPS[index]))

        self.pages = QStackedWidget()
        for name in STEPS:
            step_layout = self.steps[name].layout()
            if step_layout is not None:
                step_layout.setContentsMargins(2, 6, 6, 6)
            self.pages.addWidget(_scrolling(self.steps[name]))
        self.next_button = emphasised(QPushButton())
        self.next_button.clicked.connect(self._on_next)

        # Or else napari adds a stretch below.
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.addLayout(run_row)
        layout.addLayout(step_row)
        layout.addWidget(self.pages, 1)
        layout.addWidget(self.next_button)

        self.session.step_finished.connect(self._on_step_finished)
        self.session.run_changed.connect(self._on_run_changed)
        self.search_step.panel.changed.connect(self._show_next)
        self.retrain_step.panel.changed.connect(self._show_next)
        self.apply_step.volume.client.state_changed.connect(lambda _: self._show_next())
        application = QApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self.release)
        self._show_runs([])
        self.show_step("annotate")
        self._look_for_runs(then=self._attach)

    def sizeHint(self) -> QSize:  # noqa: N802
        """Wide enough for the class table; the height is the window's business."""
        return QSize(370, 560)

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        """Small windows scroll, but only up and down."""
        widest = max(step.minimumSizeHint().width() for step in self.steps.values())
        bar = self.style().pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent) if self.style() else 0
        margins = self.contentsMargins()
        return QSize(min(420, max(300, widest + bar + 16 + margins.left() + margins.right())), 240)

    # ------------------------------------------------------------ steps

    @property
    def step(self) -> str:
        """Name of the step that is shown."""
        return STEPS[self.pages.currentIndex()]

    def show_step(self, name: str) -> None:
        """Show a step."""
        self.pages.setCurrentIndex(STEPS.index(name))
        self.step_buttons[name].setChecked(True)
        if name == "apply":
            self.apply_step.refresh()
        self._show_next()

    def _on_step_finished(self, name: str) -> None:
        if name == "annotate":
            self.show_step("search")
        elif name == "apply":
            self.show_step("retrain")
        else:  # Finished in the background: whoever paints is not sent elsewhere.
            self.apply_step.refresh()
            self._show_next()
            self._look_for_runs()

    def _show_next(self) -> None:
        name, run = self.step, self.session.run
        there = run is not None and {
            "search": run.architecture_file.is_file() and not self.search_step.client.active,
            "retrain": (run.model_folder / "model.json").is_file() and not self.retrain_step.client.active,
        }.get(name, False)
        self.next_button.setText(_NEXT.get(name, ""))
        self.next_button.setVisible(bool(there))

    def _on_next(self) -> None:
        self.show_step(STEPS[STEPS.index(self.step) + 1])

    # ------------------------------------------------------------ runs

    def open(self, path: Path) -> None:
        """Go on with a run folder, or use a model folder."""
        if is_model_folder(path):
            self.apply_step.set_model(path)
            self.show_step("apply")
            return
        run = Run(path)
        self.session.run = run
        self.show_step(step_of(run))

    def _look_for_runs(self, then: Callable[[list[RunEntry]], None] | None = None) -> None:
        folder = self.session.runs_folder

        def take(found: list[RunEntry]) -> None:
            self._show_runs(found)
            if then is not None:
                then(found)

        self.session.background.call(lambda: find_runs(folder), take)

    def _attach(self, found: list[RunEntry]) -> None:
        """Go on with what is under way, perhaps since before napari was closed."""
        networks = [entry for entry in found if entry.active and entry.kind == "network"]
        segmentations = [entry for entry in found if entry.active and entry.kind == "segmentation"]
        if networks and self.session.run is None:
            self.open(networks[0].path)
        if segmentations and not self.apply_step.volume.client.active:
            with contextlib.suppress(UserError):
                self.apply_step.volume.attach(Run(segmentations[0].path))

    def _show_runs(self, found: list[RunEntry]) -> None:
        self._listed = [entry for entry in found if entry.kind == "network"]
        run = self.session.run
        if run is not None and all(entry.path != run.path for entry in self._listed):
            self._listed.insert(0, RunEntry(run.path, "network", False, 0.0))
        self.run_box.clear()
        self.run_box.addItem(_NO_RUN)
        for entry in self._listed:
            self.run_box.addItem(f"{entry.path.name} (working)" if entry.active else entry.path.name)
            self.run_box.setItemData(self.run_box.count() - 1, str(entry.path), Qt.ItemDataRole.ToolTipRole)
        self.run_box.addItem(_OTHER)
        self._show_chosen_run()

    def _show_chosen_run(self) -> None:
        run = self.session.run
        index = next((at for at, entry in enumerate(self._listed, 1) if run and entry.path == run.path), 0)
        self.run_box.setCurrentIndex(index)

    def _on_run_changed(self, run: Run | None) -> None:
        self._show_runs(self._listed)
        self._look_for_runs()
        self._show_next()

    def _on_run_chosen(self, index: int) -> None:
        if index == self.run_box.count() - 1:
            folder = QFileDialog.getExistingDirectory(self, "Run folder", str(self.session.runs_folder))
            if folder:
                self.open(Path(folder))
            self._show_chosen_run()
        elif index == 0:
            self.session.run = None
        else:
            self.open(self._listed[index - 1].path)

    # ------------------------------------------------------------ the end

    def release(self) -> None:
        """Let go of the viewer, threads and timers; workers go on."""
        if self._released:
            return
        self._released = True
        if self._window is not None:
            self._window.removeEventFilter(self)
        for let_go in (
            self.annotate_step.release,
            self.search_step.shutdown,
            self.retrain_step.shutdown,
            self.apply_step.release,
            self.session.close,
        ):
            let_go()

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
            self._moved.start(0)  # the dock widget itself is not in the window yet
        elif was_moved and self._window is not None:
            self.release()
            self.deleteLater()
        return super().event(event)

    def closeEvent(self, event: QCloseEvent | None) -> None:  # noqa: N802
        """Release everything."""
        self.release()
        super().closeEvent(event)


def _scrolling(step: QWidget) -> QScrollArea:
    """A page that scrolls when the window is too small for it."""
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setWidget(step)
    return area
