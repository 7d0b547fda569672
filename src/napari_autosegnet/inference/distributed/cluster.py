"""The blocks of a volume on many workers, with dask.distributed as a dispatcher.

dask carries tasks to the workers and their outcome back, nothing else: a bounded window of tasks is under way, each
one block; the worker has opened model, image and store by their paths, and writes the block itself. The ledger is
written here, after a worker said that the block's data is on the disk. So workers may join, leave and die at any time
(dask hands their tasks to others), and so may this process: the next one continues from the ledger.

A block that fails is tried again when all others are done, alone, so that it takes no other block down with
it; what still fails is reported by its place, and the rest is finished. Workers that die take blocks down that only
waited there, so such a death counts against a block only where it was alone.
"""

from __future__ import annotations

import dataclasses
import math
import queue
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_autosegnet.addresses import absolute
from napari_autosegnet.errors import StoppedError, UserError
from napari_autosegnet.events import DeviceChosen, Note, Report, silent
from napari_autosegnet.inference.compute.applied_model import AppliedModel
from napari_autosegnet.inference.compute.precision import HALF
from napari_autosegnet.inference.distributed.cluster_work import (
    ClusterJob,
    Outcome,
    Task,
    describe_worker,
    stop_here,
    work,
)
from napari_autosegnet.inference.distributed.local_workers import THREADS
from napari_autosegnet.inference.distributed.workers import Workers, WorkerSource, cores_per_worker, workers
from napari_autosegnet.inference.job import VolumeJob, VolumeRequest, complete, open_ledger
from napari_autosegnet.inference.output.ledger import Ledger, Status, locked
from napari_autosegnet.inference.output.output import disk_error, outer_places
from napari_autosegnet.inference.output.picture_output import FileOutput, PngOutput
from napari_autosegnet.inference.output.progress import PredictionSummary, Progress
from napari_autosegnet.inference.output.pyramid import PyramidProgress
from napari_autosegnet.inference.volume import check_hope, summarize
from napari_autosegnet.interruption import ShouldStop, never_stop

if TYPE_CHECKING:
    from distributed import Client, Future

#: Seconds between two looks at what is asked for: a stop, or workers that are missing.
_POLL = 0.1
_COUNT_EVERY = 2.0
_REFILL_EVERY = 60.0
#: Seconds that workers get to end their tile after a stop, and to answer that they were told.
_END_WITHIN = 30.0
_ANSWER_WITHIN = 3.0
#: Seconds for a worker to say how a task ended.
_RESULT_WITHIN = 0.5

_WORKER_DIED = "its worker died each time (out of memory, or a crash)"

#: Notes a finished task and names those that it made possible.
Finish = Callable[[Outcome], Iterable[Task]]
#: Notes a failed attempt, its reason, and whether it was the last.
Fail = Callable[[Task, str, bool], None]


def predict_on_workers(
    request: VolumeRequest,
    source: WorkerSource,
    *,
    device: str = "auto",
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> PredictionSummary:
    """Apply a model to a volume on several workers; continues where an earlier run of the same job ended.

    Same events and same result as `napari_autosegnet.inference.volume.predict_volume`; ``block`` says which worker
    did it, too.

    Raises
    ------
    UserError
        When the extra ``cluster`` is missing, no worker can be had, things do not fit together, or the disk is
        full. Blocks that keep failing stand in the summary's ``failed``.
    StoppedError
        When asked to stop before there was a worker.
    """
    started = time.monotonic()
    request = _absolute(request)
    threads = cores_per_worker(source.workers) if source.is_local else None
    with workers(source, (request.out or request.image).parent) as cluster:
        dispatcher = Dispatcher(cluster, should_stop, report)
        if not dispatcher.wait_for_workers():
            raise StoppedError("stopped before any worker came")
        kinds = dispatcher.describe(device)
        report(DeviceChosen(name=", ".join(sorted({kind["device"] for kind in kinds}))))
        # Here the model only plans.
        model, job = request.open("cpu", report)
        if job.settings.precision == "auto" and not job.predictor.exact:
            offered = [name for name in HALF if all(name in kind["precisions"] for kind in kinds)]
            job.predictor.may_use(offered, now=all(kind["device"] != "cpu" for kind in kinds))
        if not source.is_local and isinstance(job.output, FileOutput | PngOutput):
            raise UserError("several machines cannot write into one file; give --out with .zarr")
        if not (source.is_local and all(kind["device"] == "cpu" for kind in kinds)):
            # What is fastest here need not be there.
            job.settings = job.settings.model_copy(update={"engine": job.predictor.engine, "tile": job.predictor.tile})
        with locked(*outer_places(job.output)):
            try:
                with _torch_threads(threads):
                    ledger = open_ledger(job, model, report)  # measures what computes fastest, as the workers will
                fixed = job.settings.model_copy(update={"engine": job.predictor.engine, "tile": job.predictor.tile})
                about = ClusterJob(
                    uuid.uuid4().hex,
                    dataclasses.replace(
                        request, settings=fixed, precision=job.predictor.precision, scale=job.survey.scale
                    ),
                    device,
                    threads,
                    model.fingerprint,
                )
                run = _ClusterRun(about, job, ledger, dispatcher, report)
                stopped = not run.labels()
                instances = None
                if not stopped and not run.progress.failed:
                    if job.settings.instances:
                        instances = run.instances(model, should_stop)
                        stopped = instances is None
                    complete(job, ledger)
            except OSError as error:
                raise disk_error(error, job.output.path) from error
    return summarize(job, ledger, run.progress, started, stopped=stopped, instances=instances, report=report)


class _ClusterRun:
    """The stages of one job, one after the other."""

    def __init__(
        self, about: ClusterJob, job: VolumeJob, ledger: Ledger, dispatcher: Dispatcher, report: Report
    ) -> None:
        self._about = about
        self._job = job
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._report = report
        self.progress = Progress(job.plan, ledger.finished(), report)

    def labels(self) -> bool:
        """Compute all blocks and their pyramid; False when asked to stop."""
        job, ledger, progress = self._job, self._ledger, self.progress
        progress.tell_plan(job.predictor)
        pyramid = PyramidProgress(job.output.pyramid, ledger)

        def finish(outcome: Outcome) -> Iterable[Task]:
            task = outcome.task
            status: Status = "skipped" if outcome.status == "skipped" else "done"
            ledger.record(task.number, status, level=task.level, files=outcome.files, blank=outcome.blank)
            if not task.level:
                progress.finish(job.plan[task.number], status, outcome.seconds, worker=outcome.worker)
            ready = pyramid.ready(task.level, task.number)
            return [] if ready is None else [Task("labels", *ready)]

        def fail(task: Task, reason: str, last: bool) -> None:
            if task.level:
                _give_up(task, reason, last)
            else:
                progress.fail(job.plan[task.number], reason, last=last)
                check_hope(progress)

        tasks = [Task("labels", 0, index) for index in progress.pending]
        if not self._dispatcher.run(self._about, tasks, finish, fail, job.settings.retries):
            return False
        if progress.failed:
            return True  # lower levels would keep the holes
        for level in range(1, len(job.output.pyramid.levels)):
            rest = [Task("labels", level, number) for number in pyramid.missing(level)]
            if not self._dispatcher.run(self._about, rest, finish, fail, job.settings.retries):
                return False
        return True

    def instances(self, model: AppliedModel, should_stop: ShouldStop) -> Path | None:
        """Number the objects; None when asked to stop."""
        from napari_autosegnet.inference.instances.run import Done, InstanceRun

        run = InstanceRun(self._job, model, self._ledger, self._report)

        def do(
            stage: Literal["seeds", "instances"],
            level: int,
            numbers: Iterable[int],
            done: Done,
        ) -> bool:
            def finish(outcome: Outcome) -> Iterable[Task]:
                done(outcome.task.number, outcome.seconds, outcome.files)
                return []

            tasks = [Task(stage, level, number) for number in numbers]
            return self._dispatcher.run(self._about, tasks, finish, _give_up, self._job.settings.retries)

        return run.number(do, should_stop)


class Dispatcher:
    """Keeps a bounded window of tasks under way.

    Parameters
    ----------
    workers : Workers
        A connected client.
    should_stop : ShouldStop
        Asked many times a second.
    report : Report
        Is told ``note`` and ``warning``.
    """

    def __init__(self, workers: Workers, should_stop: ShouldStop, report: Report) -> None:
        self._client = workers.client
        self._scheduler = workers.scheduler
        self._refill = workers.refill
        self._should_stop = should_stop
        self._report = report
        self._outcomes: queue.SimpleQueue[tuple[Task, Future[Any]]] = queue.SimpleQueue()
        self._under_way: dict[Task, Future[Any]] = {}
        self._threads = 0
        self._workers: set[str] = set()
        self._counted = -math.inf
        self._refilled = time.monotonic()

    @contextmanager
    def _asking(self) -> Iterator[Client]:
        """The client, for a question to the scheduler; whatever comes of it but an answer means that it is gone."""
        try:
            yield self._client
        except Exception as error:
            # A client that gave up says so by an error of its own.
            if isinstance(error, (OSError, RuntimeError, TimeoutError)) or not self._is_connected:
                raise self._gone() from error
            raise

    @property
    def _is_connected(self) -> bool:
        return self._client.status in ("running", "connecting")

    def _gone(self) -> UserError:
        return UserError(
            f"the dask scheduler at {self._scheduler} is gone; start it again and give the same command (with its "
            "address, if that is another one): it continues from here"
        )

    def wait_for_workers(self) -> bool:
        """Wait for the first worker; False when asked to stop before."""
        told = False
        while not self._count():
            if self._should_stop():
                return False
            if not told:
                self._report(Note(text="waiting for the first worker"))
                told = True
            time.sleep(_POLL)
        return True

    def describe(self, device: str) -> list[dict[str, Any]]:
        """Device and arithmetic of every worker that is there by now."""
        with self._asking() as client:
            answers = client.run(describe_worker, device, on_error="return")
        for address, answer in answers.items():
            if isinstance(answer, BaseException):
                raise UserError(
                    f"worker {address} cannot take part "
                    f"({type(answer).__name__}: {' '.join(str(answer).split())[:200]}); "
                    "install the same napari-autosegnet there, or choose another --device"
                )
        return list(answers.values())

    def _count(self) -> dict[str, int]:
        """Threads of each worker, by its address."""
        with self._asking() as client:
            threads: dict[str, int] = client.nthreads()
        return threads

    def run(self, about: ClusterJob, tasks: Iterable[Task], finish: Finish, fail: Fail, retries: int) -> bool:
        """Do all tasks and those that ``finish`` adds; False when asked to stop.

        ``finish`` is called here for every task that was done, whose data is on the disk by then, and ``fail`` for
        every attempt that failed, with whether it was the last.
        """
        waiting, failed = deque(tasks), deque[Task]()
        attempts: Counter[Task] = Counter()
        alone: Task | None = None
        while waiting or self._under_way or failed:
            if self._should_stop():
                self._stop(about, finish)
                return False
            while waiting and len(self._under_way) < self._window():
                self._submit(about, waiting.popleft())
            if failed and not self._under_way:
                # Alone: a block that kills its worker would count against its neighbors.
                alone = failed.popleft()
                self._submit(about, alone)
            ended = self._next()
            if ended is None:
                continue
            task, result = ended
            if isinstance(result, Outcome):
                waiting.extendleft(self._settle(result, finish))
            elif result is None:
                waiting.append(task)  # lost on its way: that is no attempt
            elif result == _WORKER_DIED and task != alone:
                failed.append(task)  # it or a neighbor did it: that is no attempt either
            else:
                attempts[task] += 1
                last = attempts[task] > retries
                fail(task, result, last)
                if not last:
                    failed.append(task)
        return True

    def _window(self) -> int:
        """Tasks under way at most: one per thread and one that waits for it."""
        now = time.monotonic()
        if now - self._counted > _COUNT_EVERY:
            threads = self._count()
            self._threads = sum(min(count, THREADS) + 1 for count in threads.values())
            self._workers = set(threads)
            self._counted = now
        if now - self._refilled > _REFILL_EVERY:
            self._refill()
            self._refilled = now
        return max(2, self._threads)

    def _submit(self, about: ClusterJob, task: Task) -> None:
        # Lower levels first: they are few, and their data is still in the page cache.
        with self._asking() as client:
            future = client.submit(
                work,
                about,
                task,
                key=f"{task.stage}-{task.level}-{task.number}-{uuid.uuid4().hex}",
                priority=task.level,
                pure=False,
            )
        self._under_way[task] = future
        future.add_done_callback(lambda done: self._outcomes.put((task, done)))

    def _next(self) -> tuple[Task, Outcome | str | None] | None:
        """The next task that ended, and how: an outcome, or why it failed, or None when it was lost on its way."""
        try:
            task, future = self._outcomes.get(timeout=_POLL)
        except queue.Empty:
            if not self._is_connected:
                raise self._gone() from None
            return None
        if self._under_way.get(task) is not future:
            return None  # given up before
        try:
            ending = self._ending(future)
        except TimeoutError:
            self._outcomes.put((task, future))
            return None
        del self._under_way[task]
        return task, ending

    def _ending(self, future: Future[Any]) -> Outcome | str | None:
        """As `_outcome_of`; a connection that breaks meanwhile is that to the scheduler."""
        try:
            return _outcome_of(future)
        except TimeoutError:
            raise
        except Exception as error:
            if isinstance(error, OSError) or not self._is_connected:
                raise self._gone() from error
            raise

    def _settle(self, outcome: Outcome, finish: Finish) -> list[Task]:
        for note in outcome.notes:
            self._report(Note(text=f"worker {outcome.worker}: {note}"))
        if outcome.status == "refused":
            raise UserError(f"worker {outcome.worker}: {outcome.text}")
        return [] if outcome.status == "stopped" else list(finish(outcome))

    def _stop(self, about: ClusterJob, finish: Finish) -> None:
        """End within one tile; what is computed by then is kept."""
        told = _Told()
        began = time.monotonic()
        while self._under_way:
            alive = self._tell_to_stop(about.key, told)
            try:
                task, future = self._outcomes.get(timeout=_POLL)
            except queue.Empty:
                seconds = time.monotonic() - began
                # Nobody answers for a worker that died or was stopped itself, nor for those that came in their place.
                answered = seconds > _ANSWER_WITHIN or told.begun.keys() >= alive
                if seconds > _END_WITHIN or (answered and not told.awaited & self._under_way.keys()):
                    break
                continue
            if self._under_way.pop(task, None) is future:
                with suppress(TimeoutError):  # then it is computed again another time
                    result = self._ending(future)
                    if isinstance(result, Outcome) and result.status in ("done", "skipped"):
                        finish(result)
        with suppress(OSError, RuntimeError):
            self._client.cancel(list(self._under_way.values()))
        self._under_way.clear()

    def _tell_to_stop(self, key: str, told: _Told) -> set[str]:
        """Tell all workers to end that were not told before; who of those that had something to do is there.

        Workers that came in a dead one's place are told, too, so that they begin nothing.
        """
        try:
            here = set(self._client.nthreads())
        except (OSError, RuntimeError, TimeoutError):
            return set()

        def tell(worker: str) -> None:
            with suppress(Exception):  # it may be ending by itself
                told.begun[worker] = frozenset(self._client.run(stop_here, key, workers=[worker])[worker])

        for worker in here - told.workers:
            # Not in this thread: dask tries for a minute to reach a worker that has died just now.
            threading.Thread(target=tell, args=(worker,), name="stop", daemon=True).start()
        told.workers |= here
        return here & self._workers


@dataclass
class _Told:
    """The workers that were told to stop, and what those that answered had begun by then."""

    workers: set[str] = field(default_factory=set)
    begun: dict[str, frozenset[Task]] = field(default_factory=dict)

    @property
    def awaited(self) -> set[Task]:
        return set().union(*list(self.begun.values()))


def _outcome_of(future: Future[Any]) -> Outcome | str | None:
    """How a task ended; TimeoutError where the worker that knows it does not answer, because it was stopped itself."""
    if future.status == "finished":
        outcome: Outcome = future.result(timeout=_RESULT_WITHIN)
        return outcome
    if future.status != "error":
        return None
    error = future.exception()
    text = " ".join(str(error).split())
    if type(error).__name__ == "KilledWorker":
        return _WORKER_DIED
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def _give_up(task: Task, reason: str, last: bool) -> None:
    """A failure that leaves nothing to continue with."""
    if last:
        raise UserError(f"block {task.number} of {task.stage}, level {task.level}, keeps failing: {reason}")


@contextmanager
def _torch_threads(count: int | None) -> Iterator[None]:
    """So many threads for a while; as they are with None."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _absolute(request: VolumeRequest) -> VolumeRequest:
    """Paths as every worker can follow them."""
    return dataclasses.replace(
        request,
        model=request.model.absolute(),
        image=absolute(request.image),
        out=None if request.out is None else request.out.absolute(),
        mask=None if request.mask is None else absolute(request.mask),
    )
