"""State of a job, its progress with the time left, and the buttons to pause, stop and cancel it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QMainWindow, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_autosegnet.duration import format_duration
from napari_autosegnet.event_words import labels_taken, under_way
from napari_autosegnet.events import (
    DeviceChosen,
    Epoch,
    Event,
    LabelsTaken,
    Note,
    RoundBegun,
    Started,
    Stopped,
    WarningRaised,
)
from napari_autosegnet.plain_text import escaped
from napari_autosegnet.widgets.forms.buttons import emphasized, push_button
from napari_autosegnet.widgets.forms.message_line import MessageLine, sentence, wrapped_label
from napari_autosegnet.widgets.jobs.run_client import RunClient

_STEPS = 1000
_NAMES = {"fit": "Learning", "search": "Search", "train": "Training", "predict": "Segmentation"}
_DEVICES = {"cpu": "the processor (CPU)", "cuda": "the graphics card (CUDA)", "mps": "the Apple graphics chip (MPS)"}
#: What a button that takes back results asks before it does.
_ENDINGS = {
    "fit": "Ends the learning now, without a new result",
    "search": "Ends the search now, without a result",
    "train": "Ends the training now; an older model stays as it is",
    "predict": "Ends the segmentation now; finished blocks are kept",
}


class JobPanel(QWidget):
    """Shows one client's job and sends what its buttons ask for.

    Parameters
    ----------
    client : RunClient
        Of one step.
    keeps_best : bool
        Whether an orderly stop keeps a result, so that there are two ways to end the job.
    """

    #: Something changed that a step may want to show otherwise.
    changed = Signal()

    def __init__(self, client: RunClient, *, keeps_best: bool = True) -> None:
        super().__init__()
        self.client = client
        self._device = ""
        self._phase = ""
        self._where = ""
        self._memory = 0
        self.status = wrapped_label()
        self.bar = QProgressBar()
        self.bar.setRange(0, _STEPS)
        self.bar.setTextVisible(True)
        self.bar.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.note = MessageLine()
        self.pause = self._button("Pause", "Lets other programs have the computer; nothing is lost", self._toggle_pause)
        self.stop = emphasized(self._button("Stop, keep the best", "Ends it after the current step", client.stop))
        self.cancel = self._button("Cancel", "", client.cancel)
        self.stop.setVisible(keeps_best)
        self._keeps_best = keeps_best
        self._buttons = QWidget()
        row = QHBoxLayout(self._buttons)
        row.setContentsMargins(0, 0, 0, 0)
        for button in (self.stop, self.pause, self.cancel):
            row.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.status, self.bar, self._buttons, self.note):
            layout.addWidget(widget)
        client.reported.connect(self._take)
        client.state_changed.connect(self._on_state)
        self._clock = QTimer(self)
        self._clock.setInterval(500)
        self._clock.timeout.connect(self._show_progress)
        self._activity = _Activity(self)
        # Also when the panel goes while a job is under way.
        self.destroyed.connect(self._activity.close)
        self._on_state(client.state)

    @property
    def _step(self) -> str:
        step = self.client.job_step
        return step if step in _NAMES else "fit"

    def forget(self) -> None:
        """Show nothing of an earlier run."""
        self._device = self._where = self._phase = ""
        self._memory = 0
        self.note.clear()
        self._on_state(self.client.state)

    def release(self) -> None:
        """Take the job out of napari's activity dock."""
        self._clock.stop()
        self._activity.close()

    def _button(self, text: str, tip: str, action: Callable[[], None]) -> QPushButton:
        return push_button(text, tip, lambda: self._press(action))

    def _press(self, action: Callable[[], None]) -> None:
        action()
        self._on_state(self.client.state)

    def _toggle_pause(self) -> None:
        if self.client.state == "paused" or self.client.pause_asked:
            self.client.resume()
        else:
            self.client.pause()

    def _take(self, event: Event) -> None:
        match event:
            case Started():
                self._phase = ""
                self.note.clear()
            case DeviceChosen(name=name):
                self._device = name
            case Note(text=text):
                self.note.say(sentence(text))
            case WarningRaised(text=text):
                self.note.say("Warning: " + sentence(text), "error")
            case LabelsTaken():
                self.note.say(sentence(labels_taken(event)), "good")
            case RoundBegun():
                self._phase = under_way(event) or ""
            case Epoch():
                self._memory = event.memory or 0
        if isinstance(event, Stopped) and self.client.state == "stopping":
            self._where = "writing the result"
        elif where := under_way(event):
            self._where = ", ".join(filter(None, (self._phase, where))) if isinstance(event, Epoch) else where
        if self.client.active:
            self._show_progress()

    def _on_state(self, state: str) -> None:
        active = self.client.active
        self._buttons.setVisible(active)
        self.bar.setVisible(active)
        self.setVisible(state != "idle")
        self.cancel.setToolTip(_ENDINGS[self._step])
        can_end = active and state != "stopping"
        for button in (self.pause, self.stop, self.cancel):
            button.setEnabled(can_end)
        self.cancel.setEnabled(active and not self.client.cancelled)
        waiting = self.client.pause_asked
        self.pause.setText("Resume" if state == "paused" or waiting else "Pause")
        if active:
            self._clock.start()
            self._show_progress()
        else:
            self._clock.stop()
            self._activity.close()
            self.status.setText(self._ended(state))
            if state in ("failed", "died") and self.client.reason:
                self.note.say(sentence(self.client.reason), "error")
            elif state in ("finished", "stopped"):
                self.note.clear()
        self.changed.emit()

    def _ended(self, state: str) -> str:
        name = _NAMES[self._step]
        match state:
            case "finished":
                return f"<b>{name} finished.</b>"
            case "stopped" if self.client.reason == "cancelled":
                return f"<b>{name} cancelled.</b>"
            case "stopped":
                return f"<b>{name} stopped.</b>" + (" The best so far was kept." if self._keeps_best else "")
            case "failed":
                return f"<b>{name} failed.</b>"
            case "died":
                return f"<b>{name} broke off.</b>"
            case _:
                return ""

    def _show_progress(self) -> None:
        state = self.client.state
        name = _NAMES[self._step]
        words = {
            "starting": f"{name} is starting ...",
            "working": f"{name} under way",
            "paused": f"{name} paused",
            "stopping": f"{name} is ending ..." if self.client.cancelled else f"{name} is stopping ...",
        }
        text = f"<b>{words.get(state, '')}</b>"
        if self.client.pause_asked:
            text += " (will pause after the current step)"
        if self._where and not self.client.cancelled:
            text += f" &nbsp;{escaped(self._where)}"
        if self._device and state in ("working", "paused"):
            device = _DEVICES.get(self._device.partition(":")[0], self._device)
            memory = f", {self._memory / 2**30:.1f} GB of memory" if self._memory else ""
            text += f"<br>on {escaped(device)}{memory}"
        self.status.setText(text)
        fraction = self.client.fraction
        left = self.client.seconds_left
        self.bar.setRange(0, 0 if fraction is None else _STEPS)
        if fraction is not None:
            self.bar.setValue(round(fraction * _STEPS))
        time_left = "" if left is None else f"{format_duration(left)} left"
        percent = "" if fraction is None else f"{fraction:.0%}"
        self.bar.setFormat("   ".join(part for part in (percent, time_left) if part))
        self._activity.show(name, fraction, paused=state == "paused")


class _Activity:
    """The job in napari's activity dock."""

    def __init__(self, panel: QWidget) -> None:
        self._panel = panel
        self._progress: Any = None
        self._busy = False
        self._shown = (0, "")

    def show(self, name: str, fraction: float | None, *, paused: bool) -> None:
        # napari takes some 25 ms to draw its bar, so it gets only what changed; the time left it reckons itself.
        # It handles events meanwhile, and one of them may come back here.
        done = 0 if fraction is None else int(100 * fraction)
        words = f"{name}, paused" if paused else name
        if self._busy or (self._progress is not None and (done, words) == self._shown):
            return
        self._busy, before = True, self._shown
        self._shown = (done, words)
        try:
            if self._progress is None:
                from napari.utils import progress

                self._progress, before = progress(total=100, desc=name), (0, name)
                hold_spinner(self._panel.window())
            bar = self._progress
            if done > bar.n:
                bar.update(done - bar.n)
            if words != before[1]:
                bar.set_description(words)
        finally:
            self._busy = False

    def close(self) -> None:
        if self._progress is not None:
            self._progress.close()
            self._progress = None


def hold_spinner(window: QWidget | None) -> None:
    """Stop the turning wheel in the status bar of napari's window.

    Every one of its pictures has the whole window drawn anew, canvas included: without a graphics card that is
    100 ms, ten times a second, for as long as the job takes.
    """
    bar = window.statusBar() if isinstance(window, QMainWindow) else None
    for label in () if bar is None else bar.findChildren(QLabel):
        movie = label.movie()
        if movie is not None:
            movie.setPaused(True)
