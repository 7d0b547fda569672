"""What is painted while a fit runs is handed over to it, a moment after the last stroke."""

from __future__ import annotations

import time
from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_autosegnet.errors import UserError
from napari_autosegnet.jobs.more_labels import hand_over_labels
from napari_autosegnet.quality import listed
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.forms.background import Background
from napari_autosegnet.widgets.forms.message_line import sentence
from napari_autosegnet.widgets.jobs.run_client import RunClient
from napari_autosegnet.widgets.session import Session

#: Seconds after the last stroke; and between two hand-overs, in times of what the last one took.
_REST, _TIMES = 1.5, 10.0


class NewStrokes(QObject):
    """Watches the annotation, and hands it over when it has changed.

    Only to runs whose annotation it is: those that were started here, or whose images and annotation were loaded.

    Parameters
    ----------
    session : Session
    client : RunClient
        Of the run.
    parent : QObject, optional

    Attributes
    ----------
    said : Signal(str)
        Why something that was painted is not learned from.
    """

    said = Signal(str)

    def __init__(self, session: Session, client: RunClient, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._client = client
        # Of its own: in a large stack it takes long, and nothing else may wait for that.
        self._background = Background(self)
        self._run: Run | None = None
        self._known: tuple[Any, ...] | None = None
        self._not_before = 0.0
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._hand_over)
        session.annotation.counts_changed.connect(self._look)
        session.labeled_images.changed.connect(self._look)
        client.state_changed.connect(self._look)

    def close(self) -> None:
        """Let go of the session and the thread."""
        self._timer.stop()
        self._background.close()

    def follow(self, run: Run) -> None:
        """What is painted from now on is for this run, which has what is there now."""
        self._run, self._known = run, None if self._session.annotation.is_counting else self._annotation()
        self.said.emit("")

    @property
    def _is_wanted(self) -> bool:
        client = self._client
        return (
            client.state in ("working", "paused")
            and client.job_step == "fit"
            and self._run is not None
            and client.attached_to(self._run)
        )

    def _annotation(self) -> tuple[Any, ...]:
        """What tells one state of the annotation from another: pixels of each value and section of each layer."""
        layers = [pair.labels for pair in self._session.annotation.pairs()]
        return tuple(
            (id(layer), value, self._session.annotation.counts(layer).of(value).tobytes())
            for layer in layers
            for value in self._session.annotation.counts(layer).values
            if value
        )

    def _look(self, state: object = None) -> None:
        if self._known is None and not self._session.annotation.is_counting:
            self._known = self._annotation()
        now = self._annotation()
        # Of layers that were closed the run keeps what it has.
        if self._is_wanted and now and now != self._known:
            self._timer.start(int(1000 * max(_REST, self._not_before - time.monotonic())))

    def _hand_over(self) -> None:
        run, now = self._run, self._annotation()
        if run is None or not self._is_wanted or not now or now == self._known:
            return
        if self._background.is_busy or self._session.annotation.is_counting:
            self._timer.start(int(1000 * _REST))
            return
        names, session = [each.name for each in self._session.annotation.classes], self._session

        def work() -> tuple[str, float]:
            began = time.monotonic()
            added = _added_classes(run, names)
            data = session.labeled_images.export(run)
            hand_over_labels(run, data.images, data.labels)
            words = ""
            if added:
                words = (
                    f"{listed(added)} came after the start: a network keeps the classes that it began with, so what "
                    "is painted so is not learned. To have it, stop and learn again."
                )
            return words, time.monotonic() - began

        def done(result: tuple[str, float]) -> None:
            words, seconds = result
            self._known = now
            self._not_before = time.monotonic() + _TIMES * seconds
            self.said.emit(words)
            self._look()

        def refuse(text: str) -> None:  # tried again when something changes
            self.said.emit(sentence(f"the new strokes are not learned from: {text}"))

        self._background.call(work, done, refuse)


def _added_classes(run: Run, names: list[str]) -> list[str]:
    """Classes that came after a run began, in quotes.

    Raises
    ------
    UserError
        When those that it began with are not what they were.
    """
    from napari_autosegnet.jobs.configuration import RunConfiguration

    data = RunConfiguration.load(run).data
    mapping = None if data is None else data.mapping
    if mapping is None or any(value != number for value, number in mapping.values.items()):
        raise UserError("the run was not begun in napari; add them when it is done")
    began_with = [each.name for each in mapping.classes]
    if names[: len(began_with)] != began_with:
        raise UserError(
            f"it began with the classes {', '.join(began_with)}; give them these names and this order again, or learn "
            "again in a new run"
        )
    return [f"'{name}'" for name in names[len(began_with) :]]
