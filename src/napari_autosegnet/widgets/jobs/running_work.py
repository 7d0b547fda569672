"""Lines at the top of the dock: what is under way elsewhere than in the step that is shown; and what asks first."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QGridLayout, QLabel, QMessageBox, QPushButton, QSizePolicy, QWidget

from napari_autosegnet.duration import format_duration
from napari_autosegnet.plain_text import escaped, printable
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.forms.buttons import push_button
from napari_autosegnet.widgets.forms.form_rows import named
from napari_autosegnet.widgets.forms.message_line import capitalized, tool_tip, wrapped_label
from napari_autosegnet.widgets.jobs.run_client import STEP_NAMES, RunClient
from napari_autosegnet.widgets.jobs.work_list import WorkList

_WORDS = {
    "starting": "is starting",
    "working": "under way",
    "paused": "paused",
    "stopping": "is stopping",
    "finished": "finished",
    "stopped": "stopped",
    "failed": "failed",
    "died": "broke off",
}
#: More jobs than this are counted, not listed: a script may start dozens.
_MAX_LINES = 4


class RunningWork(QWidget):
    """A line for each job, with buttons to see and to stop it; hidden while there is none.

    Parameters
    ----------
    work : WorkList
    is_in_sight : callable
        Whether the step that is shown shows the job of a client anyway.
    """

    #: The job of this client is asked for.
    asked_for = Signal(object)

    def __init__(self, work: WorkList, is_in_sight: Callable[[RunClient], bool]) -> None:
        super().__init__()
        self._work = work
        self._is_in_sight = is_in_sight
        self._labels: dict[RunClient, QLabel] = {}
        self._rows = QGridLayout(self)
        self._rows.setContentsMargins(0, 0, 0, 0)
        self._rows.setColumnStretch(0, 1)
        self._clock = QTimer(self)
        self._clock.setInterval(1000)
        self._clock.timeout.connect(self._show_words)
        work.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """List the jobs anew; one whose end is in sight is not listed again."""
        while (item := self._rows.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        self._labels = {}
        for client in self._work.jobs:
            if not client.active and self._is_in_sight(client):
                self._work.forget(client)
                return  # that had them listed anew
        elsewhere = [client for client in self._work.jobs if not self._is_in_sight(client)]
        for client in elsewhere[:_MAX_LINES]:
            self._add(client)
        if (more := len(elsewhere) - _MAX_LINES) > 0:
            self._rows.addWidget(QLabel(f"and {more} more"), _MAX_LINES, 0)
        self.setVisible(bool(elsewhere))
        self._show_words()
        if elsewhere:
            self._clock.start()
        else:
            self._clock.stop()

    def _add(self, client: RunClient) -> None:
        row, name = len(self._labels), job_name(client)
        label = self._labels[client] = wrapped_label()
        label.setTextFormat(Qt.TextFormat.RichText)
        label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self._rows.addWidget(label, row, 0)
        show = _button("Show", f"Show the {name}", partial(self.asked_for.emit, client))
        if client.active:
            end = _button("Stop", f"Stop the {name} after its current step; what it has done is kept", client.stop)
            end.setEnabled(client.state != "stopping")
        else:
            end = _button("Hide", f"Hide this line on the {name}", partial(self._work.forget, client))
        self._rows.addWidget(show, row, 1)
        self._rows.addWidget(end, row, 2)

    def _show_words(self) -> None:
        for client, label in self._labels.items():
            label.setText(f"<b>{escaped(capitalized(job_name(client)))}</b> {escaped(_progress(client))}")


def job_name(client: RunClient) -> str:
    """A job in words: what it does, and in which run."""
    return f"{STEP_NAMES.get(client.job_step or '', 'job')} in '{printable(client.run.path.name)}'"


def unless_it_competes(
    work: WorkList,
    run: Run | None,
    parent: QWidget,
    start: Callable[[], None],
    confirmed: Callable[[], None] | None = None,
) -> None:
    """Start a job in a run, or a new one; asked first where others are under way.

    ``confirmed`` takes the place of ``start`` after the question.
    """
    others = work.others(run)
    if not others:
        start()
        return
    lines = [f"{capitalized(job_name(client))}: {_progress(client)}." for client in others]
    box = QMessageBox(QMessageBox.Icon.Question, "Another job is under way", "\n".join(lines), parent=parent)
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setInformativeText("Jobs that run at the same time slow each other down and may run out of memory.")
    box.addButton("Start anyway", QMessageBox.ButtonRole.AcceptRole)
    box.setDefaultButton(box.addButton("Do not start", QMessageBox.ButtonRole.RejectRole))
    box.accepted.connect(confirmed or start)
    box.finished.connect(box.deleteLater)
    box.open()


def _progress(client: RunClient) -> str:
    words = _WORDS.get(client.state, "")
    fraction, left = client.fraction, client.seconds_left
    if client.active and fraction is not None:
        words += f", {fraction:.0%}"
    if left is not None:
        words += f", {format_duration(left)} left"
    if client.state in ("failed", "died") and client.reason:
        words += f": {printable(client.reason)}"
    return words


def _button(text: str, tip: str, action: Callable[[], object]) -> QPushButton:
    return named(push_button(text, tool_tip(tip), lambda: action()), tip)
