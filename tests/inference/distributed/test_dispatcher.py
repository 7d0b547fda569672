"""Workers that are gone, and results that do not come, without a cluster."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.distributed.cluster_work import Task
from napari_autosegnet.inference.distributed.dispatcher import Dispatcher
from napari_autosegnet.inference.distributed.workers import Workers
from remembered_events import Events

distributed = pytest.importorskip("distributed")


class Gone:
    """A client whose workers are dying: they are on the scheduler's list for some looks, and cannot be reached."""

    status = "running"

    def __init__(self, then: dict[str, int]) -> None:
        self.looks = 10**6
        self.then = then
        self.ended = threading.Event()
        self.cancelled: list[Any] = []

    def nthreads(self) -> dict[str, int]:
        self.looks -= 1
        return {"tcp://gone": 3} if self.looks >= 0 else self.then

    def run(self, *arguments: Any, **named: Any) -> None:
        self.ended.wait(60)
        raise OSError("timed out")

    def submit(self, function: Any, about: Any, task: Any, **named: Any) -> Any:
        return SimpleNamespace(add_done_callback=lambda call: None, task=task)

    def cancel(self, futures: list[Any]) -> None:
        self.cancelled += futures


@pytest.mark.parametrize("looks", [0, 1, 4])
@pytest.mark.parametrize("then", [{}, {"tcp://new": 3}])
def test_a_stop_does_not_wait_for_workers_that_are_gone(looks: int, then: dict[str, int]) -> None:
    """Nor for those that dask has started in their place."""
    client = Gone(then)
    stops = iter([False] * 3)
    dispatcher = Dispatcher(Workers(client, "tcp://its", lambda: None), lambda: next(stops, True), Events())  # type: ignore[arg-type]
    began = time.monotonic()
    tasks = [Task("labels", 0, number) for number in range(2)]

    def go(about: Any) -> bool:
        client.looks = 1 + looks  # the first one counts the workers for the tasks
        return dispatcher.run(about, tasks, lambda outcome: [], lambda *failed: None, 0)

    assert not go(SimpleNamespace(key="key"))
    client.ended.set()
    assert time.monotonic() - began < 5
    assert [future.task for future in client.cancelled] == tasks


class Silent(Gone):
    """A client whose tasks end at once; what they gave does not come."""

    def __init__(self, error: type[Exception]) -> None:
        super().__init__({})
        self.error = error

    def submit(self, function: Any, about: Any, task: Any, **named: Any) -> Any:
        def result(timeout: float) -> None:
            assert timeout < 5
            raise self.error("ConnectionPool.gather")

        future = SimpleNamespace(status="finished", result=result)
        future.add_done_callback = lambda call: call(future)
        return future


def test_a_result_that_does_not_come_holds_up_nothing_and_a_broken_connection_is_named() -> None:
    """A worker that a signal has stopped does not answer; a scheduler may die while it passes a result on."""
    tasks = [Task("labels", 0, number) for number in range(2)]

    def run(error: type[Exception], looks: int) -> bool:
        stops = iter([False] * looks)
        dispatcher = Dispatcher(Workers(Silent(error), "tcp://its", lambda: None), lambda: next(stops, True), Events())  # type: ignore[arg-type]
        return dispatcher.run(SimpleNamespace(key="key"), tasks, lambda outcome: [], lambda *failed: None, 0)  # type: ignore[arg-type]

    assert not run(TimeoutError, 20), "a stop is heard"
    with pytest.raises(UserError, match="scheduler at tcp://its is gone"):
        run(distributed.comm.CommClosedError, 20)
