"""The jobs that are under way, in whatever run: none is forgotten when the dock turns to another run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from qtpy.QtCore import QObject, QTimer, Signal

from napari_autosegnet.run import Run
from napari_autosegnet.widgets.forms.background import Background
from napari_autosegnet.widgets.jobs.run_client import RunClient
from napari_autosegnet.widgets.jobs.run_list import is_active, newest_runs

#: Milliseconds between two looks at the runs folder, where a shell may start jobs, too.
_INTERVAL = 5000
#: Of the runs in the folder the newest are looked at: one that somebody works on is new.
_MAX_RUNS = 20


class WorkList(QObject):
    """Follows the jobs that it is told of, and those that it finds.

    Parameters
    ----------
    where : callable
        Gives the folder of runs that is looked into, and a run that may lie elsewhere.
    background : Background
    parent : QObject, optional
    """

    #: A job began, went on or ended.
    changed = Signal()

    def __init__(
        self, where: Callable[[], tuple[Path, Run | None]], background: Background, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._where = where
        self._background = background
        self._clients: list[RunClient] = []
        self._jobs: list[RunClient] = []
        self._timer = QTimer(self)
        self._timer.setInterval(_INTERVAL)
        self._timer.timeout.connect(self.look)
        self._timer.start()

    def close(self) -> None:
        """Follow nothing any more; workers continue."""
        self._timer.stop()
        for client in self._clients:
            client.close()

    @property
    def jobs(self) -> list[RunClient]:
        """Clients of the jobs that are under way, or were when they were found, in the order of their beginning."""
        return list(self._jobs)

    def others(self, run: Run | None) -> list[RunClient]:
        """Clients of the jobs that are under way in other runs than this."""
        return [client for client in self._jobs if client.active and (run is None or not client.attached_to(run))]

    def follow(self, paths: Iterable[Path]) -> None:
        """Follow the jobs of runs that somebody works on."""
        for path in paths:
            client = self._client_of(Run(path))
            if not client.active:
                client.attach(Run(path))

    def follow_start(self, started: RunClient) -> None:
        """Follow the job that a client just started."""
        self._client_of(started.run).join(started)

    def forget(self, client: RunClient) -> None:
        """Follow a job no longer, as its end was seen."""
        client.close()
        self._clients.remove(client)
        self._jobs.remove(client)
        client.deleteLater()
        self.changed.emit()

    def _client_of(self, run: Run) -> RunClient:
        for client in self._clients:
            if client.attached_to(run):
                return client
        client = RunClient(parent=self)
        client.state_changed.connect(partial(self._on_state, client))
        client.caught_up.connect(partial(self._on_caught_up, client))
        self._clients.append(client)
        return client

    def _on_state(self, client: RunClient, _: str) -> None:
        if client.active and client not in self._jobs:
            self._jobs.append(client)
        if client in self._jobs:
            self.changed.emit()

    def _on_caught_up(self, client: RunClient) -> None:
        # It ended between being found and being followed: whoever lists it as under way must look again.
        if not client.active:
            self.changed.emit()

    def look(self) -> None:
        """Look for jobs that somebody else started."""
        if not self._background.is_busy:
            self._background.call(partial(active_runs, *self._where()), self.follow)


def active_runs(folder: Path, run: Run | None) -> list[Path]:
    """The runs of a folder, and this one, that somebody works on. Reads files: call it in a thread."""
    active = [entry.path for entry in newest_runs(folder, _MAX_RUNS) if entry.active]
    if run is not None and run.path not in active and is_active(run):
        active.append(run.path)
    return active
