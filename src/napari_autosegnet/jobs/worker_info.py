"""Which process works, or worked last, on a run: ``RUN/worker.json``, and what it printed: ``RUN/logs/worker.log``."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_autosegnet.errors import UserError
from napari_autosegnet.files import write_atomically
from napari_autosegnet.jobs.job_file import Step
from napari_autosegnet.processes import identity
from napari_autosegnet.run import Run


class WorkerInfo(BaseModel):
    """Which process works, or worked last, on a run.

    ``identity`` tells it from others of the same number (see `napari_autosegnet.processes.identity`). The folder may
    come from somebody else, so nothing is done to the process before this was compared.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    pid: int = Field(gt=1, lt=2**31)  # 1 is the system, 0 and below mean groups of processes
    identity: str | None
    started: float
    step: Step
    host: str


def info_file(run: Run) -> Path:
    return run.file("worker.json")


def log_file(run: Run) -> Path:
    return run.file("logs", "worker.log")


def write_info(run: Run, pid: int, step: Step) -> None:
    """Write down who works on the run, which has to be held."""
    info = WorkerInfo(pid=pid, identity=identity(pid), started=time.time(), step=step, host=socket.gethostname())
    write_atomically(info_file(run), info.model_dump_json())


def read_info(run: Run) -> WorkerInfo | None:
    """Who works or worked last on the run; None when nobody did or the file is damaged."""
    with suppress(OSError, ValidationError, UserError):
        return WorkerInfo.model_validate_json(info_file(run).read_bytes())
    return None
