"""Jobs that learn from the annotation, started in the session's run or in a new one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QWidget

from napari_autosegnet.errors import UserError
from napari_autosegnet.jobs.job_file import Job, Step
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.forms.message_line import capitalized
from napari_autosegnet.widgets.jobs.run_client import RunClient
from napari_autosegnet.widgets.jobs.running_work import unless_it_competes
from napari_autosegnet.widgets.layers.layer_files import source_of
from napari_autosegnet.widgets.session import Session


class LearningStart(QObject):
    """Starts and continues jobs; asked first where one would compete with another.

    Parameters
    ----------
    session : Session
    client : RunClient
        Follows the session's run.
    window : QWidget
        That a question belongs to.
    """

    #: A job begins in the session's run: that, and the step.
    begun = Signal(object, str)
    #: Why none does although the question was answered, in a line.
    refused = Signal(str)

    def __init__(self, session: Session, client: RunClient, window: QWidget) -> None:
        super().__init__(window)
        self._session = session
        self._client = client
        self._window = window

    def new_run(self) -> Run:
        """A run named after the first image, or the current one when nothing was ever done in it."""
        run = self._session.run
        if run is not None and not run.config_file.exists() and not run.events_file.exists():
            return run
        pairs = self._session.annotation.pairs()
        return Run(self._session.new_run_folder(pairs[0].image.name if pairs else "run"))

    def annotation(self) -> Callable[[Run], dict[str, Any]]:
        """Writes the annotation into a run folder, and gives a job's arguments for it; to be called in a thread."""
        session, split = self._session, self._session.labeled_images.split

        def write(run: Run) -> dict[str, Any]:
            data = session.labeled_images.export(run)
            return {
                "images": tuple(data.images),
                "labels": tuple(data.labels),
                "classes": data.classes,
                "split": split,
            }

        return write

    def start(self, run: Run, step: Step, job: Callable[[], Job]) -> None:
        """Start a job in a run, which becomes the session's.

        Raises
        ------
        UserError
            When somebody works on the run already.
        """

        def begin() -> None:
            self._session.run = run
            if not self._client.attached_to(run):
                self._client.attach(run)
            self.begun.emit(run, step)
            self._client.start(job, step)
            self._session.work.follow_start(self._client)

        self._unless_it_competes(run, begin)

    def continue_run(self) -> None:
        """Go on with the job that ended before it was done.

        Raises
        ------
        UserError
            When it cannot be continued.
        """

        def begin() -> None:
            files = (source_of(layer) for layer in self._session.viewer.layers)
            self._client.continue_run(self._session.device, [file for file in files if file is not None])
            self._session.work.follow_start(self._client)

        self._unless_it_competes(self._client.run, begin)

    def _unless_it_competes(self, run: Run, begin: Callable[[], None]) -> None:
        def confirmed() -> None:
            try:
                begin()
            except UserError as error:
                self.refused.emit(capitalized(error))

        unless_it_competes(self._session.work, run, self._window, begin, confirmed)
