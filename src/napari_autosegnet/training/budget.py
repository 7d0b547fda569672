"""How much of its epochs and its time a search or a training has used."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Answer = TypeVar("Answer")


class Budget:
    """Epochs and seconds that may be used, and those that are.

    Parameters
    ----------
    epochs, seconds : optional
        Limits; without any there is no end.

    Attributes
    ----------
    epochs, seconds
        The limits.
    epoch : int
        Epochs done.
    """

    def __init__(self, epochs: float | None, seconds: float | None) -> None:
        self.epochs = epochs
        self.seconds = seconds
        self.epoch = 0
        self._counted = 0.0
        self._since: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds within `counting`, without those within `pausing`."""
        return self._counted if self._since is None else self._counted + time.monotonic() - self._since

    @elapsed.setter
    def elapsed(self, seconds: float) -> None:
        self._counted = seconds

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Within this, time counts."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._stop()

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Within this, inside `counting`, no time counts: somebody may have paused the run."""
        self._stop()
        try:
            yield
        finally:
            self._since = time.monotonic()

    def without(self, question: Callable[[], Answer]) -> Answer:
        """The answer to a question, whose time does not count."""
        with self.pausing():
            return question()

    def _stop(self) -> None:
        self._counted, self._since = self.elapsed, None

    @property
    def left(self) -> bool:
        return self.fraction_used() < 1

    @property
    def is_time_used(self) -> bool:
        return self.seconds is not None and self.elapsed >= self.seconds

    def fraction_used(self, epoch: float | None = None) -> float:
        """How much of the epochs or of the time is used, whichever is more; 1 is all.

        ``epoch`` is how far it is, parts of epochs included; by default the epochs done.
        """
        fractions = [0.0]
        if self.epochs is not None:
            fractions.append(_fraction(self.epoch if epoch is None else epoch, self.epochs))
        if self.seconds is not None:
            fractions.append(_fraction(self.elapsed, self.seconds))
        return max(fractions)

    @property
    def seconds_left(self) -> float | None:
        """Expected seconds to the end; None where nothing is known of it."""
        fraction = self.fraction_used()
        return max(0.0, self.elapsed * (1 / fraction - 1)) if fraction else None


def _fraction(used: float, limit: float) -> float:
    return used / limit if limit > 0 else 1.0
