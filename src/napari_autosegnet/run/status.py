"""Where a run stands, folded from its events: what lists, docks and progress bars show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from napari_autosegnet.events import (
    ArchitectureFound,
    End,
    Epoch,
    Event,
    Paused,
    ProgressMade,
    QualityMeasured,
    Resumed,
    Started,
    Step,
)
from napari_autosegnet.quality import Quality

State = Literal["new", "interrupted", "finished", "stopped", "failed"]


def step_after(event: Event, step: Step | None) -> Step | None:
    """The step that an event belongs to: the one that it names, or that of the events before."""
    named = event.step if isinstance(event, Started | End | Epoch | QualityMeasured) else None
    return named or step


@dataclass
class RunStatus:
    """Where the last job of a run stands, as far as its events tell.

    Attributes
    ----------
    of
        Only jobs of this step count; all by default.
    last_step
        Step of the last event, whether it counts or not.
    step
        Step of the last event that counts.
    started
        When the job started.
    begun
        Whether the job told anything.
    end
        The event with which it ended, if that is the last one.
    epoch, score, quality
        The last epoch, the best score, and what was measured at the end.
    time
        Of the last event that counts.
    """

    of: Step | None = None
    last_step: Step | None = None
    step: Step | None = None
    started: datetime | None = None
    begun: bool = False
    end: End | None = None
    paused: bool = False
    epoch: int | None = None
    score: float | None = None
    quality: Quality | None = None
    time: datetime | None = None
    _done_of_total: tuple[int, int] | None = None
    _total_seconds: float = 0.0
    _seconds_left: float | None = None
    _left_since: datetime | None = None

    @classmethod
    def after(cls, events: Iterable[Event]) -> RunStatus:
        """The status after these events."""
        status = cls()
        for event in events:
            status.add(event)
        return status

    @property
    def state(self) -> State:
        """How the last job ended; ``interrupted`` where it did not say, which may mean that it still works."""
        if self.end is not None:
            return self.end.event
        return "interrupted" if self.begun else "new"

    def seconds_left(self, now: datetime) -> float | None:
        """Time that the job still needs, as far as it is known; it stands still in a pause."""
        if self._seconds_left is None or self.paused or self._left_since is None:
            return self._seconds_left
        return max(0.0, self._seconds_left - (now - self._left_since).total_seconds())

    def fraction(self, now: datetime) -> float | None:
        """Fraction of the job that is done; None while nobody knows."""
        left = self.seconds_left(now)
        if left is not None and self._total_seconds > 0:
            return min(1.0, max(0.0, 1 - left / self._total_seconds))
        if self._done_of_total is None:
            return None
        done, total = self._done_of_total
        return done / max(1, total)

    def begin_job(self) -> None:
        """Forget the job before, but not what was reached."""
        self.started, self.begun, self.end, self.paused = None, False, None, False
        self._done_of_total, self._total_seconds, self._seconds_left, self._left_since = None, 0.0, None, None

    def add(self, event: Event) -> bool:
        """Take the next event into account; returns whether it counts."""
        self.last_step = step_after(event, self.last_step)
        if self.of not in (None, self.last_step):
            return False
        if self.last_step != self.step:
            self.step, self.epoch, self.score, self.quality = self.last_step, None, None, None
        self.time = event.time or self.time
        if isinstance(event, End):
            self.end = event
            return True
        if isinstance(event, Started):
            self.begin_job()
            self.started = event.time
        self.begun, self.end = True, None
        self._add_pause(event)
        self._add_progress(event)
        self._add_score(event)
        return True

    def _add_pause(self, event: Event) -> None:
        if isinstance(event, Paused):
            if event.time is not None:
                self._seconds_left = self.seconds_left(event.time)
            self.paused = True
        elif isinstance(event, Resumed):
            self.paused, self._left_since = False, event.time

    def _add_progress(self, event: Event) -> None:
        if isinstance(event, Epoch | ProgressMade):
            self._seconds_left, self._left_since = event.seconds_left, event.time
        if isinstance(event, Epoch) and event.seconds is not None and event.seconds_left is not None:
            self._total_seconds = event.seconds + event.seconds_left
        if isinstance(event, ProgressMade) and event.total is not None:
            self._done_of_total = (event.done, event.total)

    def _add_score(self, event: Event) -> None:
        if isinstance(event, Epoch):
            self.epoch = event.epoch
            if event.epoch == 1:  # a job that began again, with more labels
                self.score, self.quality = None, None
            scores = (event.mean_iou, event.best_reward, event.reward)
            score = next((each for each in scores if each is not None), None)
            self.score = max((each for each in (self.score, score) if each is not None), default=None)
        elif isinstance(event, ArchitectureFound) and event.score is not None:
            self.score = event.score
        elif isinstance(event, QualityMeasured):
            self.quality = event.quality
