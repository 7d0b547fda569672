"""Tasks for many workers, with dask.distributed to carry them and their outcome, and nothing else.

A bounded window of tasks is under way. Workers may join, leave and die at any time: dask hands their tasks to others.

A task that fails is tried again when all others are done, alone, so that it takes no other task down with it. Workers
that die take tasks down that only waited there, so such a death counts against a task only where it was alone.
"""

from __future__ import annotations

import math
import queue
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Note, Report
from napari_autosegnet.inference.distributed.cluster_work import (
    ClusterJob,
    Outcome,
    Task,
    describe_worker,
    stop_here,
    work,
)
from napari_autosegnet.inference.distributed.local_workers import THREADS
from napari_autosegnet.inference.distributed.workers import Workers
from napari_autosegnet.interruption import ShouldStop

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
