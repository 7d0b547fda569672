"""What is painted while a fit runs is handed over to it, a moment after the last stroke."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_autosegnet.addresses import absolute
from napari_autosegnet.errors import UserError
from napari_autosegnet.jobs.configuration import RunConfiguration
from napari_autosegnet.jobs.more_labels import hand_over_labels
from napari_autosegnet.quality import listed
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.forms.background import Background
from napari_autosegnet.widgets.forms.message_line import sentence
from napari_autosegnet.widgets.jobs.run_client import RunClient
from napari_autosegnet.widgets.layers.notes import note, notes
from napari_autosegnet.widgets.session import Session

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_autosegnet.widgets.annotation.annotation_export import ExportedData

#: Seconds after the last stroke; and between two hand-overs, in times of what the last one took.
_REST, _TIMES = 1.5, 10.0
#: In the notes of an annotation layer: the run that has it, and the state in which it was handed over last. It lies in
#: the layer, so that it is known whichever dock is open.
_HANDED = "handed_over"


class NewStrokes(QObject):
    """Watches the annotation, and hands it over when it has changed.

    Only to runs whose annotation it is: those that were started with it, or whose images and annotation were loaded.

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
        #: Has the annotation that is there, which is noted as soon as it is counted.
        self._followed: Run | None = None
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
        self._followed = run
        self.said.emit("")
        self._look()

    def _painted(self) -> list[tuple[Labels, tuple[Any, ...]]]:
        """Annotation layers, and what tells one state of them from another: pixels of each value and section."""
        annotation = self._session.annotation
        layers = [pair.labels for pair in annotation.pairs()]
        counts = [annotation.counts(layer) for layer in layers]
        states = [tuple((value, each.of(value).tobytes()) for value in each.values if value) for each in counts]
        return list(zip(layers, states, strict=True))

    def _new(self) -> Run | None:
        """The fit at work, where something was painted that it does not have; of closed layers it keeps what it has."""
        if self._client.state not in ("working", "paused") or self._client.job_step != "fit":
            return None
        run, painted = self._client.run, self._painted()
        changed = any(notes(layer).get(_HANDED, (str(run.path), ())) != (str(run.path), now) for layer, now in painted)
        return run if changed and any(now for _, now in painted) else None

    def _is_of(self, run: Run) -> bool:
        """Whether annotation that is open is that of a run."""
        return any(notes(layer).get(_HANDED, ("", ()))[0] == str(run.path) for layer, _ in self._painted())

    def _look(self, state: object = None) -> None:
        if self._session.annotation.is_counting:
            return  # asked again when that changes
        if self._followed is not None:
            _note_handed_over(self._painted(), self._followed)
            self._followed = None
        run = self._new()
        if run is None:
            return
        if self._is_of(run):
            self._timer.start(int(1000 * max(_REST, self._not_before - time.monotonic())))
        else:
            self.said.emit(_ANOTHER)

    def _hand_over(self) -> None:
        if self._background.is_busy or self._session.annotation.is_counting:
            self._timer.start(int(1000 * _REST))
            return
        run, painted = self._new(), self._painted()
        if run is None or not self._is_of(run):
            return
        names, session = [each.name for each in self._session.annotation.classes], self._session

        def work() -> tuple[str, float]:
            began = time.monotonic()
            added = _added_classes(run, names)
            data = session.labeled_images.export(run)
            hand_over_labels(run, data.images, data.labels)
            words = " ".join(filter(None, (_words_on_classes(added), _words_on_images(run, data))))
            return words, time.monotonic() - began

        def done(result: tuple[str, float]) -> None:
            words, seconds = result
            _note_handed_over(painted, run)
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


def _words_on_classes(added: list[str]) -> str:
    if not added:
        return ""
    return (
        f"{listed(added)} came after the start: a network keeps the classes that it began with, so what is painted so "
        "is not learned. To have it, stop and learn again."
    )


def _words_on_images(run: Run, handed: ExportedData) -> str:
    """What to say of images that the run did not begin with, whose labels it leaves out."""
    data = RunConfiguration.load(run).data
    known = set() if data is None else set(data.images)
    names = zip(handed.names, handed.images, strict=True)
    others = [f"'{name}'" for name, image in names if absolute(image) not in known]
    if not others:
        return ""
    return f"The run did not begin with {listed(others)}, so strokes there are not learned. To have them, learn again."


def _note_handed_over(painted: list[tuple[Labels, tuple[Any, ...]]], run: Run) -> None:
    for layer, state in painted:
        note(layer, **{_HANDED: (str(run.path), state)})


_ANOTHER = (
    "New strokes are not learned from: the run began with other annotation than what is open. To paint for it, close "
    "the images and press 'Load the run's images'."
)
