"""Calls in a thread: order, errors, and nothing kept alive by what is never delivered."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from napari_autosegnet.errors import UserError
from napari_autosegnet.widgets.forms.background import Background


class Receiver:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.given: list[Any] = []

    def take(self, value: Any) -> None:
        self.given.append(value)


def refuse() -> None:
    raise UserError("no such file")


def test_results_come_in_order_and_in_the_gui_thread(qtbot: Any) -> None:
    background, receiver, refused = Background(), Receiver(), Receiver()

    def count() -> str:
        for number in range(3):
            background.tell(receiver.take, number)
        return "done"

    background.call(count, receiver.take)
    background.call(refuse, receiver.take, refused.take)
    assert background.is_busy and receiver.given == []
    qtbot.waitUntil(lambda: not background.is_busy, timeout=10_000)
    assert receiver.given == [0, 1, 2, "done"] and refused.given == ["no such file"]
    background.close()


def test_a_call_while_torch_is_imported_is_made_again(qtbot: Any) -> None:
    background, receiver, refused = Background(), Receiver(), Receiver()
    half = UserError("partially initialized module 'torch' has no attribute 'Tensor'")
    errors: list[Exception | None] = [half, None, half, half]

    def fit() -> str:
        error = errors.pop(0)
        if error is not None:
            raise error
        return "done"

    background.call(fit, receiver.take, refused.take)
    background.call(fit, receiver.take, refused.take)
    qtbot.waitUntil(lambda: not background.is_busy, timeout=30_000)
    assert receiver.given == ["done"] and refused.given == [str(half)]
    background.close()


def test_an_unforeseen_error_is_raised_where_napari_shows_it(qtbot: Any) -> None:
    background, receiver = Background(), Receiver()
    with qtbot.captureExceptions() as raised:
        background.call(lambda: 1 / 0, receiver.take)
        qtbot.waitUntil(lambda: not background.is_busy, timeout=10_000)
        qtbot.waitUntil(lambda: bool(raised), timeout=10_000)
    assert raised[0][0] is ZeroDivisionError and receiver.given == []
    background.close()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"),
            "too little memory was free, in the computer",
        ),
        (KeyError("weights"), "an unexpected error, KeyError: 'weights'"),
    ],
)
def test_whoever_waits_is_told_of_an_unforeseen_error_too(error: Exception, line: str, qtbot: Any) -> None:
    background, receiver, refused = Background(), Receiver(), Receiver()

    def fail() -> None:
        raise error

    with qtbot.captureExceptions() as raised:
        background.call(fail, receiver.take, refused.take)
        qtbot.waitUntil(lambda: bool(raised), timeout=10_000)
    assert raised[0][1] is error and receiver.given == []
    assert len(refused.given) == 1 and refused.given[0].startswith(line)
    background.close()


def test_a_result_that_is_never_delivered_keeps_nothing_alive(qtbot: Any) -> None:
    background, receiver = Background(), Receiver()
    alive = weakref.ref(receiver)
    background.call(lambda: "late", receiver.take)
    is_later = threading.Event()
    background.call(is_later.set, lambda _: None)
    assert is_later.wait(10)  # the first result waits in Qt's queue by now
    background.close()
    del receiver
    gc.collect()
    assert alive() is None
    with qtbot.captureExceptions() as raised:
        qtbot.wait(20)  # and what Qt delivers afterwards finds nothing, and does no harm
    assert not raised
