"""One job in a process of its own: ``python -m napari_autosegnet.worker RUN`` does what ``RUN/job.json`` says.

::

    RUN/job.json            step and arguments: a `jobs.job_file.Job`
        worker.json         who works, or worked last, on it: a `jobs.worker_info.WorkerInfo`
        logs/worker.log     what the process printed, when a dock started it
        preview/            input.npz, the slice that somebody looks at, and what the network makes of it

The process shares nothing with whoever started it but the folder, and outlives it. SIGTERM asks for a
clean shutdown, as a stop request does; a cancel request ends it without a new result.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from napari_autosegnet.errors import UserError, is_out_of_memory
from napari_autosegnet.events import Failed, Stopped
from napari_autosegnet.interruption import clean_shutdown
from napari_autosegnet.jobs.job_file import read_job, run_job
from napari_autosegnet.jobs.worker_info import write_info
from napari_autosegnet.processes import available_cores
from napari_autosegnet.run import Run

#: Exit status of a job that ended with an error that was told.
FAILED = 2
#: Of ten parts of a busy processor, programs in front of the screen get nine.
_NICE = 10


class Cancelled(BaseException):
    """Ends a job at once, without a new result; no handler of errors takes it for one."""


def main(arguments: Sequence[str]) -> int:
    """Do the job of a run folder; the exit status is 0 after a clean shutdown and `FAILED` after an error."""
    if len(arguments) != 1:
        print("usage: python -m napari_autosegnet.worker RUN", file=sys.stderr)
        return FAILED
    run = Run(Path(arguments[0]).absolute())
    give_way()
    faulthandler.enable()
    with clean_shutdown() as interruption:

        def should_stop() -> bool:
            # Asked first: who cancels writes the request, then sends the signal.
            interrupted = interruption()
            # A prediction keeps its finished blocks either way, and has threads of its own to end.
            if run.requested("cancel") and job.step != "predict":
                raise Cancelled
            return interrupted

        told_before = len(run.events())
        try:
            # Of a run that another process works on, nothing is overwritten.
            with run.locked():
                job = read_job(run)
                write_info(run, os.getpid(), job.step)
            run_job(run, job, should_stop)
        except Cancelled:
            run.report(Stopped(step=job.step, reason="cancelled"))
            return 0
        except UserError as error:
            return _fail(run, str(error), told_before)
        except Exception as error:
            traceback.print_exc()
            return _fail(run, _in_words(error), told_before)
    return 0


def give_way() -> None:
    """Leave the processor to whoever works in front of the screen; before torch is imported."""
    # Threads that spin while they wait hold up every other program.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    cores = available_cores()
    if cores > 4:
        os.environ.setdefault("OMP_NUM_THREADS", str(cores - 1))
    if hasattr(os, "nice"):
        with suppress(OSError):
            os.nice(_NICE)
        # Linux shares the processor out among sessions first, and the worker has one of its own, where its
        # nice value counts against nobody else.
        with suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(_NICE))


def _fail(run: Run, text: str, told_before: int) -> int:
    print(f"error: {text}", file=sys.stderr, flush=True)
    told = any(isinstance(event, Failed) for event in run.events()[told_before:])
    # What another process is doing here is not to be taken for failed.
    if not told and not run.is_active:
        with suppress(UserError):
            run.report(Failed(text=text))
    return FAILED


def _in_words(error: Exception) -> str:
    """One line on an error that is not the user's."""
    line = str(error).partition("\n")[0]
    kind = type(error).__name__
    if is_out_of_memory(error):
        return (
            "too little memory was free, in the computer or on its graphics card; "
            "end other programs, or set a smaller patch size"
        )
    return f"an unexpected error, {kind}: {line}; the log has the details"


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # All that is to be kept is on disk; tearing torch down can take seconds more.
    os._exit(status)
