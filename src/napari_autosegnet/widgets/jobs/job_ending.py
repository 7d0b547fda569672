"""How a job of a run ended, and whether it can be continued, from what it left in the folder."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from napari_autosegnet.errors import UserError
from napari_autosegnet.events import End, Failed, Step, Stopped
from napari_autosegnet.jobs.job_file import read_job
from napari_autosegnet.jobs.worker_info import read_info
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.jobs.worker_process import cause_of_death, last_words

Ending = Literal["finished", "stopped", "failed", "died"]


def ending(run: Run, end: End | None, exit_status: int | None, *, cancelled: bool) -> tuple[Ending, str]:
    """How the last job of a run ended, and why, in one line; nobody works on it any more.

    Parameters
    ----------
    run : Run
    end : End, optional
        What the job said when it ended.
    exit_status : int, optional
        Of its process, where that ran here.
    cancelled : bool
        Whether it was cancelled here.
    """
    if end is not None:
        reason = end.text if isinstance(end, Failed) else end.reason if isinstance(end, Stopped) else ""
        return end.event, reason
    if cancelled or run.requested("cancel"):
        return "stopped", "cancelled"
    if exit_status is not None and exit_status > 0:
        return "failed", last_words(run) or f"the worker ended with status {exit_status}; its log has the details"
    return "died", cause_of_death(run, exit_status)


def note_cancelled(run: Run, step: Step | None) -> None:
    """Write down for a job that was cancelled that it was."""
    run.report(Stopped(step=step, reason="cancelled"))
    run.withdraw()  # after that line: who finds neither would take the job for dead


def died_before_it_began(run: Run, step: Step | None, started: datetime | None) -> bool:
    """Whether a worker for a step (any by default) came after the last job that said it had started."""
    info = read_info(run)
    if info is None or step not in (None, info.step):
        return False
    return started is None or info.started > started.timestamp()


def can_be_continued(run: Run, step: Step | None, last_step: Step | None) -> bool:
    """Whether the folder holds what a job of a step, or of the last one, can continue from."""
    try:
        if step == "predict":
            return read_job(run).step == "predict"
        content = run.read_config()
    except UserError:
        return False
    step = step or last_step
    return ("training" if step == "train" else step) in content
