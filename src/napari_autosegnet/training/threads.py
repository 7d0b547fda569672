"""Threads that are given whole pieces of a training's work on the CPU.

No operation is shared by several threads: how sums are rounded would depend on how many there are, a training makes
more of every such difference, and threads that meet at the end of each small operation wait for the slowest, which on
a busy computer takes longer than no threads at all. So a seed gives the same result, to the last bit, for any number
of threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Generic, TypeVar

import torch

Result = TypeVar("Result")


class Task(Generic[Result]):
    """A piece of work that a thread does, or whoever needs its result before a thread has begun it."""

    def __init__(self, work: Callable[[], Result], pool: ThreadPoolExecutor | None) -> None:
        self._work: list[Callable[[], Result]] = [work]
        self._future: Future[Result] = Future() if pool is None else pool.submit(self._do)
        if pool is None:
            self.help()

    def _do(self) -> Result:
        # Taken away, as what it holds on to may be large.
        return self._work.pop()()

    def help(self) -> None:
        """Do the work here, unless a thread has begun it."""
        if self._future.cancel():
            self._future = Future()
            self._future.set_result(self._do())

    def result(self) -> Result:
        """What the work gave, or the error that it raised."""
        self.help()
        return self._future.result()

    def give_up(self) -> None:
        """Leave the work undone, unless a thread has begun it."""
        if self._future.cancel():
            self._work.clear()


class WorkerThreads:
    """As many threads as torch may use, the calling one counted; each does its operations alone.

    Several threads may call at a time, see `shared_by`.

    Parameters
    ----------
    device : torch.device
        Anything but a CPU does its own work in parallel: then the calling thread is the only one.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.on_cpu = device.type == "cpu"
        self.count = torch.get_num_threads() if self.on_cpu else 1
        self._pool = _single_threads(self.count - 1)

    @contextmanager
    def shared_by(self, callers: int) -> Iterator[None]:
        """Within this so many threads call, and fewer are left to help them: none on as many cores."""
        if callers == 1:
            yield
            return
        before = self.count, self._pool
        self.count = max(1, self.count - callers + 1)
        self._pool = _single_threads(self.count - 1)
        try:
            yield
        finally:
            if self._pool is not None:
                self._pool.shutdown()
            self.count, self._pool = before

    def submit(self, work: Callable[[], Result]) -> Task[Result]:
        """Have a piece of work done, the first in line first; without other threads it is done here and now."""
        return Task(work, self._pool)

    def map(self, work: Callable[..., Result], *arguments: Sequence[object]) -> list[Result]:
        """As the built-in `map`, with the help of all threads; results come in order."""
        return finished([self.submit(partial(work, *values)) for values in zip(*arguments, strict=True)])


def finished(tasks: Sequence[Task[Result]]) -> list[Result]:
    """Results of all tasks; threads begin with the first ones, so the calling thread helps from the end."""
    for task in reversed(tasks):
        task.help()
    return [task.result() for task in tasks]


@contextmanager
def single_threaded() -> Iterator[None]:
    """Within this, or in a function so decorated, the calling thread does torch's operations alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_own_thread(work: Callable[[], Result]) -> Future[Result]:
    """Begin a piece of work in a thread of its own, which does torch's operations alone."""
    pool = _single_threads(1)
    assert pool is not None
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return future


def _single_threads(count: int) -> ThreadPoolExecutor | None:
    """So many threads that run already; None for none."""
    if count < 1:
        return None
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, "training", _stay_single_threaded)
    started = threading.Barrier(count)
    list(pool.map(lambda _: started.wait(), range(count)))
    # The number is each thread's own, but the last one set is that of threads yet to come.
    torch.set_num_threads(before)
    return pool


def _stay_single_threaded() -> None:
    # Asking first: a thread's first operation would set its number to the process's.
    torch.get_num_threads()
    torch.set_num_threads(1)
