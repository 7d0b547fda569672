"""A job in its run folder: the folder is held, requests are listened to, and how the job ended is recorded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Event, Failed, Finished, Report, Started, Step, Stopped, listeners
from napari_autosegnet.interruption import ShouldStop
from napari_autosegnet.run import Run


@contextmanager
def running(run: Run, step: Step, report: Report, should_stop: ShouldStop) -> Iterator[tuple[Report, ShouldStop]]:
    """Hold the run, listen to its requests, and record how the job ended."""
    started = time.monotonic()
    stopped = False

    def stop() -> bool:
        nonlocal stopped
        stopped = stopped or run.should_stop(should_stop)
        return stopped

    with run.locked():
        run.withdraw()
        everyone = listeners(run.report, report)
        has_started = False

        def report_started(event: Event) -> None:
            # Only now is it known that there is something to do, and that the folder is worth being kept.
            nonlocal has_started
            if not has_started:
                has_started = True
                everyone(Started(step=step))
            everyone(event)

        try:
            yield report_started, stop
        except UserError as error:
            # A run that never began is not worth a folder full of one error.
            if run.config_file.exists():
                run.report(Failed(step=step, text=str(error)))
            raise
        if stopped:
            report_started(Stopped(step=step, reason="a stop was asked for; what was best so far is kept"))
        else:
            report_started(Finished(step=step, seconds=time.monotonic() - started))
