"""The worker's process as napari sees it: started, found again, ended by force.

It has a session of its own, so that it outlives napari; the run folder is all that ties them together.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from napari_autosegnet.errors import UserError
from napari_autosegnet.files import append_line
from napari_autosegnet.jobs.job_file import Job, write_job
from napari_autosegnet.jobs.worker_info import log_file, read_info, write_info
from napari_autosegnet.processes import identity
from napari_autosegnet.run import Run

#: Clocks of the system and of a process may differ by this many seconds.
_CLOCKS_DIFFER = 2.0
_SECONDS_TO_BE_GONE = 3.0
_MODULE = "napari_autosegnet.worker"
_MOST_OFTEN = "most often because programs filled the computer's memory; end other ones, then continue"
#: Kept until they have ended, so that a dock that is opened again learns how.
_children: dict[int, subprocess.Popen[bytes]] = {}


class WorkerProcess:
    """A process that does, or did, the job of a run folder.

    Parameters
    ----------
    run : Run
        The run.
    pid : int
        Its number.
    identity : str, optional
        What tells it from others of that number; not needed for a process that was started here.
    """

    def __init__(self, run: Run, pid: int, identity: str | None = None) -> None:
        self.pid = pid
        self._run = run
        self._identity = identity

    @property
    def alive(self) -> bool:
        """Whether it runs, and is a worker on this run; whatever else has its number is not it."""
        if (child := _children.get(self.pid)) is not None:
            return child.poll() is None
        if self._identity is None or identity(self.pid) != self._identity:
            return False
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            return process.status() != psutil.STATUS_ZOMBIE and _works_on(process, self._run)
        return False

    @property
    def _may_be_ended(self) -> bool:
        """Whether it is beyond doubt that the process works here: who did not start it asks for the lock, too."""
        return self.alive and (self.pid in _children or self._run.is_active)

    @property
    def exit_status(self) -> int | None:
        """As `subprocess.Popen.returncode`; None while it runs, and when somebody else started it."""
        child = _children.get(self.pid)
        return None if child is None else child.poll()

    def ask_to_end(self) -> None:
        """SIGTERM, where a process can answer that with an orderly end."""
        if os.name == "posix" and self._may_be_ended:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it and the processes that it started, now."""
        if not self._may_be_ended:
            return
        with suppress(ProcessLookupError, PermissionError, psutil.Error):
            if os.name == "posix" and os.getpgid(self.pid) == self.pid:
                os.killpg(self.pid, signal.SIGKILL)
                return
            process = psutil.Process(self.pid)
            for each in (*process.children(recursive=True), process):
                with suppress(psutil.Error):
                    each.kill()


def launch(run: Run, job: Job) -> WorkerProcess:
    """Start a worker for the job.

    Raises
    ------
    UserError
        When somebody works on the run, the folder cannot be written or the process not be started.
    """
    _wait_for_the_last(run)
    with run.locked():
        # Held only until it is written down who works on it, so that of two that are started at once one is refused.
        if find(run) is not None:
            raise UserError(f"another step is working in {run.path}; wait until it is done, or stop it")
        write_job(run, job)
        child = _spawn(run, job)
        write_info(run, child.pid, job.step)
    return WorkerProcess(run, child.pid)


def _wait_for_the_last(run: Run) -> None:
    """A worker that told its end takes a moment to be gone."""
    until = time.monotonic() + _SECONDS_TO_BE_GONE
    while find(run) is not None and not run.is_active and time.monotonic() < until:
        time.sleep(0.05)


def _spawn(run: Run, job: Job) -> subprocess.Popen[bytes]:
    log = log_file(run)
    # Windows has neither sessions nor nice.
    options: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.BELOW_NORMAL_PRIORITY_CLASS
        options = {"creationflags": flags | subprocess.CREATE_NO_WINDOW}
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        append_line(log, f"--- {job.step} {datetime.now(UTC).isoformat(timespec='seconds')}")
        with open(log, "ab") as output:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", _MODULE, str(run.path.absolute())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
                **options,
            )
    except OSError as error:
        raise UserError(f"cannot start the worker: {error.strerror or error}; see {log}") from error
    for pid in [pid for pid, other in _children.items() if other.poll() is not None]:
        del _children[pid]
    _children[child.pid] = child
    return child


def find(run: Run) -> WorkerProcess | None:
    """The process that works on the run, when it was started through a job and runs on this computer."""
    info = read_info(run)
    if info is None:
        return None
    process = WorkerProcess(run, info.pid, info.identity)
    return process if process.alive else None


def _works_on(process: psutil.Process, run: Run) -> bool:
    """Whether a process was started as a worker on this very folder."""
    words = process.cmdline()
    if words[-3:-1] != ["-m", _MODULE]:
        return False
    # It may have been started by hand, with a path as seen from its own folder.
    folder = Path(process.cwd()) / words[-1]
    return folder.exists() and run.path.exists() and folder.samefile(run.path)


def cause_of_death(run: Run, status: int | None) -> str:
    """One line on why a worker that told nothing is gone."""
    info = read_info(run)
    if status is not None and status < 0:
        return _by_signal(-status)
    if status is None and info is not None and psutil.boot_time() > info.started + _CLOCKS_DIFFER:
        return "the computer was restarted"
    last = last_words(run)
    if last:
        return last
    return f"the worker was killed, {_MOST_OFTEN}"


def _by_signal(number: int) -> str:
    if number == 9:
        return f"the worker was killed (signal 9), {_MOST_OFTEN}"
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"the worker crashed or was ended ({name}); its log has the details"


def last_words(run: Run) -> str:
    """Last line that the worker printed in its last job; empty when it printed none."""
    try:
        with open(log_file(run), "rb") as handle:
            handle.seek(0, os.SEEK_END)
            handle.seek(max(0, handle.tell() - 4096))
            lines = handle.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    lines = [line.strip() for line in lines if line.strip()]
    if not lines or lines[-1].startswith("--- "):
        return ""
    return lines[-1].removeprefix("error: ")
