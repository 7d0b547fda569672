"""What the steps with a worker have in common: they follow the run, say what is next, and start a job."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable

from qtpy.QtCore import Qt
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget
from superqt.utils import qdebounced

from napari_autosegnet.errors import UserError
from napari_autosegnet.jobs.job_file import Job, Step
from napari_autosegnet.presets import Preset
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.forms.message_line import MessageLine
from napari_autosegnet.widgets.jobs.job_panel import JobPanel
from napari_autosegnet.widgets.jobs.run_client import STEP_NAMES, RunClient
from napari_autosegnet.widgets.jobs.running_work import ask_to_compete
from napari_autosegnet.widgets.session import Session

#: What the presets are for, in the order of the box.
PRESET_WORDS: dict[Preset, str] = {
    "fast": "fast (for a laptop)",
    "standard": "standard (for a graphics card)",
    "paper": "paper (large, needs hours on a graphics card)",
}


class JobStep(QWidget):
    """A step of the dock whose work is done by a worker.

    Parameters
    ----------
    session : Session
        State that the steps share.
    step : str
        Step of its jobs.
    parent : QWidget, optional
    """

    def __init__(self, session: Session, step: Step, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session = session
        self.client = RunClient(step=step, parent=self)
        self.panel = JobPanel(self.client)
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.words.setTextFormat(Qt.TextFormat.RichText)
        self.primary = QPushButton()
        font = self.primary.font()
        font.setBold(True)
        self.primary.setFont(font)
        self.primary.clicked.connect(self._press_primary)
        self.secondary = QPushButton()
        self.secondary.clicked.connect(self._press_secondary)
        self.buttons = QWidget()
        column = QVBoxLayout(self.buttons)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.primary)
        column.addWidget(self.secondary)
        self.problem = MessageLine()
        self.is_starting_anew = False
        self._actions: list[Callable[[], None] | None] = [None, None]
        self._is_open = True
        self._refresh_later = qdebounced(self.refresh, timeout=0)
        session.run_changed.connect(self._on_run)
        session.problem_changed.connect(self._refresh_soon)
        session.classes_changed.connect(self._refresh_soon)
        self.panel.changed.connect(self._refresh_soon)
        self.client.finished.connect(self._on_finished)
        self.client.busy_changed.connect(self._refresh_soon)

    def begin(self, *widgets: QWidget) -> None:
        """Put the step's widgets below each other, and show the session's run."""
        layout = QVBoxLayout(self)
        for widget in widgets:
            layout.addWidget(widget)
        layout.addStretch(1)
        self._on_run(self.session.run)
        self.refresh()

    def shutdown(self) -> None:
        """Let go of the run and the viewer; a worker goes on by itself."""
        if self._is_open:
            self._is_open = False
            self._refresh_later.cancel()
            self.client.close()
            self.panel.close_activity()

    def closeEvent(self, event: QCloseEvent | None) -> None:  # noqa: N802
        """Free what the step holds."""
        self.shutdown()
        super().closeEvent(event)

    # -- for the steps to fill in ----------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Say what is needed or next, and offer it."""
        raise NotImplementedError

    def show_run(self, run: Run | None) -> None:
        """Another run was chosen: forget what was shown of the one before."""
        raise NotImplementedError

    def clear(self) -> None:
        """Show nothing of an earlier job."""
        raise NotImplementedError

    def on_finished(self) -> None:
        """A job ended well."""
        raise NotImplementedError

    # -- shared ----------------------------------------------------------------------------------------------------

    @property
    def run(self) -> Run | None:
        """The session's run."""
        return self.session.run

    def offer(
        self,
        primary: tuple[str, Callable[[], None]] | None,
        secondary: tuple[str, Callable[[], None]] | None = None,
        *,
        enabled: bool = True,
    ) -> None:
        """Show one or two buttons."""
        for index, (button, what) in enumerate(((self.primary, primary), (self.secondary, secondary))):
            button.setVisible(what is not None)
            self._actions[index] = None if what is None else what[1]
            if what is not None:
                button.setText(what[0])
        self.primary.setEnabled(enabled)
        self.buttons.setVisible(primary is not None or secondary is not None)

    @property
    def other_step(self) -> str | None:
        """Why nothing can be started in the run: another step works in it."""
        step = self.client.busy_with
        if step is None or self.client.active:
            return None
        return f"The {STEP_NAMES.get(step, step)} is working in this run. Wait until it is done, or stop it."

    def complain(self, text: str) -> None:
        """Show one line on what was wrong with the last press of a button; none when empty."""
        self.problem.say(text[:1].upper() + text[1:], "error")

    def start(self, run: Run, job: Callable[[], Job]) -> None:
        """Start a job in a run, which becomes the session's; asked first where it would compete with another one."""

        def begin() -> None:
            self.is_starting_anew = False
            self.session.run = run
            if not self.client.attached_to(run):
                self.client.attach(run)
            self.clear()
            self.client.start(job)
            self.session.work.follow_start(self.client)

        self._unless_it_competes(run, begin)

    def ask_anew(self) -> None:
        """Offer the settings of a new job beside the ended one."""
        self.is_starting_anew = True

    def go_on(self) -> None:
        """Go on with the job that ended before it was done."""

        def begin() -> None:
            self.client.go_on(self.session.device)
            self.session.work.follow_start(self.client)

        self._unless_it_competes(self.client.run, begin)

    def _unless_it_competes(self, run: Run, begin: Callable[[], None]) -> None:
        others = self.session.work.others(run)
        if others:
            ask_to_compete(others, self, lambda: self._try(begin))
        else:
            begin()

    def new_run(self) -> Run:
        """A run named after the first image, or the current one when nothing was ever done in it."""
        run = self.run
        if run is not None and not run.config_file.exists() and not run.events_file.exists():
            return run
        pairs = self.session.pairs()
        return Run(self.session.new_run_folder(pairs[0].image.name if pairs else "run"))

    def _press_primary(self) -> None:
        self._press(0)

    def _press_secondary(self) -> None:
        self._press(1)

    def _press(self, index: int) -> None:
        action = self._actions[index]
        if action is not None:
            self._try(action)

    def _try(self, action: Callable[[], None]) -> None:
        self.complain("")
        try:
            action()
        except UserError as error:
            self.complain(str(error))
        self.refresh()

    def _refresh_soon(self) -> None:
        if self._is_open:
            self._refresh_later()

    def _on_run(self, run: Run | None) -> None:
        if not self._is_open:
            return
        self.complain("")
        self.is_starting_anew = False
        self.show_run(run)
        self.panel.forget()
        if run is None:
            self.client.detach()
        elif not self.client.attached_to(run):
            self.client.attach(run)
        self._refresh_soon()

    def _on_finished(self) -> None:
        self.on_finished()


def likely_preset() -> Preset:
    """The preset that this computer can be expected to manage."""
    has_card = shutil.which("nvidia-smi") is not None or sys.platform == "darwin"
    return "standard" if has_card else "fast"
