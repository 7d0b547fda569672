"""Several trainings side by side, a thread each, and more of them than threads in turn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from typing import TypeVar

from napari_autosegnet.training.threads import in_own_thread

Player = TypeVar("Player")

#: Seconds after which the calling thread looks up: signals reach it only then on some systems.
_LOOKS_UP = 0.5


def take_turns(
    players: Iterable[Player],
    turn: Callable[[Player], bool],
    *,
    had: Callable[[Player], float],
    side_by_side: int,
) -> None:
    """Let everybody have turns until nobody wants another one.

    The calling thread takes part. After an error nobody begins a turn, and it is raised when all turns have ended.

    Parameters
    ----------
    players : iterable
    turn : callable
        Called with a player; returns whether that one wants another turn.
    had : callable
        How much a player has had. Of those who wait, the one with the least comes next.
    side_by_side : int
        Turns at a time.
    """
    waiting, lock, failed = list(players), threading.Lock(), False

    def play() -> None:
        nonlocal failed
        while True:
            with lock:
                if failed or not waiting:
                    return
                player = min(waiting, key=had)
                waiting.remove(player)
            try:
                goes_on = turn(player)
            except BaseException:
                failed = True
                raise
            with lock:
                if goes_on:
                    waiting.append(player)

    others: list[Future[None]] = [in_own_thread(play) for _ in range(side_by_side - 1)]
    try:
        play()
    finally:
        while wait(others, timeout=_LOOKS_UP).not_done:
            pass
    for other in others:
        other.result()
