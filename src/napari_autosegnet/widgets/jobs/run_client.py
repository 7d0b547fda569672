"""What a dock knows of a run: it follows the run's events, and asks for start, pause, stop.

Nothing here waits: files are read in small pieces by a timer, written and processes started in a thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from qtpy.QtCore import QObject, QTimer, Signal

from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Event, Failed, Finished, LearningStep, Note, Paused, Resumed, Step, Stopped
from napari_autosegnet.jobs.configuration import RunConfiguration
from napari_autosegnet.jobs.fit import FitJob
from napari_autosegnet.jobs.job_file import Job, read_job
from napari_autosegnet.jobs.search import SearchJob
from napari_autosegnet.jobs.train import TrainJob
from napari_autosegnet.jobs.worker_info import read_info
from napari_autosegnet.run import Request, Run, RunStatus
from napari_autosegnet.run.event_tail import EventTail
from napari_autosegnet.widgets.jobs.job_ending import can_be_continued, died_before_it_began, ending, note_cancelled
from napari_autosegnet.widgets.jobs.worker_process import WorkerProcess, find, launch

State = Literal["idle", "starting", "working", "paused", "stopping", "finished", "stopped", "failed", "died"]

#: States in which somebody works on the run.
ACTIVE: frozenset[State] = frozenset({"starting", "working", "paused", "stopping"})

STEP_NAMES = {"fit": "learning", "search": "search", "train": "training", "predict": "segmentation"}

_INTERVAL, _INTERVAL_BEHIND, _INTERVAL_CANCELLING = 200, 10, 50  # milliseconds
_SECONDS_PER_TICK = 0.006
_SECONDS_UNTIL_KILL = 1.0
_SECONDS_BETWEEN_LOCKS = 1.0


class RunClient(QObject):
    """Follows one run folder; all signals come in the GUI thread.

    Parameters
    ----------
    step : str, optional
        Only the jobs of this step; all by default.
    parent : QObject, optional

    Attributes
    ----------
    reported : Signal(object)
        An `Event` of the run, those of the past first.
    state_changed : Signal(str)
        The new `State`.
    finished : Signal()
        A job ended well.
    caught_up : Signal()
        All events of the past were reported.
    state : State
    reason : str
        Why the job failed, died or stopped, in one line; empty otherwise.
    cancelled : bool
        Whether the last job was cancelled here.
    process : WorkerProcess or None
        The worker, when it runs on this computer.
    """

    reported = Signal(object)
    state_changed = Signal(str)
    finished = Signal()
    caught_up = Signal()

    def __init__(self, *, step: Step | None = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.step = step
        self._threads: ThreadPoolExecutor | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(_INTERVAL)
        self._timer.timeout.connect(self._tick)
        self.state: State = "idle"
        self.reason = ""
        self._forget(None)

    def _forget(self, run: Run | None) -> None:
        self._run = run
        self._tail = None if run is None else EventTail(run.events_file)
        self._caught_up = False
        self.process: WorkerProcess | None = None
        self._starting: Future[WorkerProcess] | None = None
        self._writing: Future[None] | None = None
        self._status = RunStatus(self.step)
        self._wanted: set[Request] = set()
        self.cancelled = False
        self._kill_at: float | None = None
        self._job_step: str | None = None
        self._resumable = False
        self._never_began = False
        self._next_lock = 0.0

    # -- what is known ---------------------------------------------------------------------------------------------

    @property
    def run(self) -> Run:
        """The run that is followed.

        Raises
        ------
        UserError
            When there is none.
        """
        if self._run is None:
            raise UserError("no run is open; start a search, or open a run folder")
        return self._run

    def attached_to(self, run: Run) -> bool:
        """Whether this run is followed."""
        return self._run is not None and self._run.path == run.path

    @property
    def active(self) -> bool:
        """Whether somebody works on the run."""
        return self.state in ACTIVE

    @property
    def can_resume(self) -> bool:
        """Whether `continue_run` has something to continue."""
        return self._resumable and not self.active

    @property
    def pause_asked(self) -> bool:
        """Whether a pause was asked for that has not come yet."""
        return "pause" in self._wanted

    @property
    def seconds_left(self) -> float | None:
        """Time left as far as it is known; it stands still in a pause."""
        return self._status.seconds_left(datetime.now(UTC)) if self.active else None

    @property
    def fraction(self) -> float | None:
        """Fraction of the job that is done; None while nobody knows."""
        return self._status.fraction(datetime.now(UTC))

    @property
    def job_step(self) -> str | None:
        """Step of the job that works, or worked last; None while it is not known."""
        return self.step or self._job_step

    # -- what can be asked for -------------------------------------------------------------------------------------

    def attach(self, run: Run) -> None:
        """Follow a run from its first event on, and whoever works on it now."""
        if self._starting is not None and not self._starting.done() and self.attached_to(run):
            return
        # A job that is starting in another run starts nevertheless, and is found there later.
        self._forget(run)
        self._set_state("idle")
        self._timer.setInterval(_INTERVAL_BEHIND)
        self._timer.start()

    def join(self, other: RunClient) -> None:
        """Follow the job that another client just started, from before its first sign of life on."""
        self.attach(other.run)
        if other._starting is not None:
            self._starting, self._job_step = other._starting, other.job_step
            self._set_state("starting")

    def detach(self) -> None:
        """Follow no run any more; a worker keeps working."""
        self._timer.stop()
        self._forget(None)
        self._set_state("idle")

    def start(self, job: Job | Callable[[], Job], step: Step | None = None) -> None:
        """Start a worker.

        Parameters
        ----------
        job
            The job, or a function that makes it, which is called in a thread.
        step
            Of the job, where that is a function.

        Raises
        ------
        UserError
            When somebody works on the run already.
        """
        if self.active:
            raise UserError("this run is being worked on already; wait, or stop it first")
        run = self.run
        self._status.begin_job()
        self._wanted, self._kill_at, self.process = set(), None, None
        self.cancelled = self._never_began = False
        self._job_step = step if callable(job) else job.step

        def begin() -> WorkerProcess:
            Run.create(run.path)
            return launch(run, job() if callable(job) else job)

        self._starting = self._pool().submit(begin)
        self._set_state("starting")
        self._timer.start()

    def continue_run(self, device: str = "auto", open_files: Sequence[Path] = ()) -> None:
        """Start a worker that continues where the last job of this step ended.

        What it learns from and is gone is looked for among ``open_files``.
        """
        run = self.run

        def resumed(job: type[FitJob] | type[SearchJob] | type[TrainJob], step: LearningStep) -> Job:
            learned_from = RunConfiguration.load(run).learned_from(step)
            moved = {} if learned_from is None else learned_from.data.found_among(open_files)
            return job(resume=True, device=device, **moved)

        match self.job_step or read_job(run).step:
            case "fit":
                self.start(lambda: resumed(FitJob, "fit"), "fit")
            case "search":
                self.start(lambda: resumed(SearchJob, "search"), "search")
            case "train":
                self.start(lambda: resumed(TrainJob, "train"), "train")
            case _:
                self.start(lambda: read_job(self.run), "predict")

    def pause(self) -> None:
        """Ask for a pause after the current step."""
        if self.state in ("starting", "working"):
            self._wanted.add("pause")
            self._ask("pause")

    def resume(self) -> None:
        """End a pause."""
        self._wanted.discard("pause")
        run = self.run
        self._write(lambda: run.withdraw("pause"))

    def stop(self) -> None:
        """Ask for an orderly end; what is best so far is kept."""
        if self.active:
            self._wanted = {"stop"}
            self._ask("stop")
            self._set_state("stopping")

    def cancel(self) -> None:
        """End the job without a new result; the process is gone within two seconds."""
        if not self.active:
            return
        self.cancelled = True
        self._wanted = {"cancel"}
        self._kill_at = time.monotonic() + _SECONDS_UNTIL_KILL
        run, starting = self.run, self._starting
        known = self.process

        def ask() -> None:
            run.request("cancel")
            process = known or (starting.result() if starting is not None else find(run))
            if process is not None:
                process.ask_to_end()

        self._write(ask)
        self._set_state("stopping")
        self._timer.setInterval(_INTERVAL_CANCELLING)

    def close(self) -> None:
        """Stop following; a worker keeps working."""
        self._timer.stop()
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None

    # -- what the timer does ---------------------------------------------------------------------------------------

    def _tick(self) -> None:
        if self._run is None:
            return
        if self._starting is not None and self._starting.done():
            self._note_start()
        if self._writing is not None and self._writing.done():
            error, self._writing = self._writing.exception(), None
            if error is not None:
                self.reported.emit(Note(text=str(error)))
        behind = self._read()
        if not behind:
            self._settle()
        fast = _INTERVAL_CANCELLING if self._kill_at is not None else _INTERVAL
        self._timer.setInterval(_INTERVAL_BEHIND if behind else fast)

    def _note_start(self) -> None:
        assert self._starting is not None
        error = self._starting.exception()
        if error is None:
            self.process = self._starting.result()
        self._starting = None
        if error is not None:
            self.reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            self._never_began = True
            self._end("failed")

    def _read(self) -> bool:
        """Report new events for some milliseconds; returns whether there are more."""
        return self._tail is not None and self._tail.read(self._take, _SECONDS_PER_TICK)

    def _take(self, event: Event) -> None:
        counts = self._status.add(event)
        last_step = self._status.last_step
        if self.process is None and self._starting is None:
            self._job_step = last_step
        if not counts:
            return
        self._note(event)
        self.reported.emit(event)

    def _note(self, event: Event) -> None:
        match event:
            case Finished() | Failed() | Stopped():
                pass
            case Paused():
                self._wanted.discard("pause")
                if self.state in ("starting", "working"):
                    self._set_state("paused")
            case Resumed():
                if self.state == "paused":
                    self._set_state("working")
            # In the past nobody knows yet whether somebody still works.
            case _ if self._caught_up and self.state not in ("working", "paused", "stopping"):
                self._set_state("working")

    def _settle(self) -> None:
        """Compare the state with whether somebody works on the run."""
        if self._starting is not None:
            return
        first = not self._caught_up
        if not first and not self.active:
            return
        if first and self._never_began:
            self._caught_up = True
            self.caught_up.emit()
            return
        alive = self._is_alive()
        if alive:
            if first:
                self._set_state("paused" if self._status.paused else "working" if self._status.begun else "starting")
            elif self.state == "starting" and self._status.begun:
                self._set_state("working")
            self._repeat_requests()
            self._kill_when_due()
        elif self._read():
            return  # it told something before it ended
        elif first and self.process is None and not self._status.begun and not self._died_before_it_began():
            self._set_state("idle")
        else:
            self._decide_end()
        if first:
            self._caught_up = True
            self.caught_up.emit()

    def _is_alive(self) -> bool:
        if self.process is None:
            self.process = self._find()
        if self.process is not None:
            return self.process.alive
        # Started from a shell, or on another computer: whoever works holds the lock.
        now = time.monotonic()
        if now < self._next_lock:
            return True
        self._next_lock = now + _SECONDS_BETWEEN_LOCKS
        return self.step in (None, self._status.last_step) and self.run.is_active

    def _find(self) -> WorkerProcess | None:
        info = read_info(self.run)
        if info is None or self.step not in (None, info.step):
            return None
        process = find(self.run)
        if process is not None:
            self._job_step = info.step
        return process

    def _died_before_it_began(self) -> bool:
        return died_before_it_began(self.run, self.step, self._status.started)

    def _repeat_requests(self) -> None:
        """A job that begins withdraws what was asked for before it."""
        for what in self._wanted:
            if self._writing is None and not self.run.requested(what):
                self._ask(what)

    def _kill_when_due(self) -> None:
        if self._kill_at is not None and self.process is not None and time.monotonic() > self._kill_at:
            self.process.kill()

    def _decide_end(self) -> None:
        exit_status = None if self.process is None else self.process.exit_status
        run, step, end = self.run, self.step or self._status.step, self._status.end
        state, self.reason = ending(run, end, exit_status, cancelled=self.cancelled)
        if end is None and self.cancelled:  # else whoever did it writes it down
            self._write(lambda: note_cancelled(run, step))
        self._end(state)
        if state == "finished":
            self.finished.emit()

    def _end(self, state: State) -> None:
        self.process, self._kill_at = None, None
        self._wanted = set()
        self._resumable = state != "finished" and can_be_continued(self.run, self.step, self._status.step)
        self._set_state(state)

    def _set_state(self, state: State) -> None:
        if state in ACTIVE or state in ("idle", "finished"):
            self.reason = ""
        if state != self.state:
            self.state = state
            self.state_changed.emit(state)

    def _ask(self, what: Request) -> None:
        run = self.run
        self._write(lambda: run.request(what))

    def _write(self, action: Callable[[], None]) -> None:
        self._writing = self._pool().submit(action)

    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(1, thread_name_prefix="run-client")
        return self._threads
