"""The run folder, and what its events say: the course of its jobs, and where the last one stands."""

from napari_autosegnet.run.folder import Request, Run, find_runs, is_run
from napari_autosegnet.run.history import RunHistory
from napari_autosegnet.run.status import RunStatus

__all__ = ["Request", "Run", "RunHistory", "RunStatus", "find_runs", "is_run"]
