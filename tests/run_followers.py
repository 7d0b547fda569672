"""Clients of runs that remember what they went through."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from napari_autosegnet.events import Epoch, Event
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.jobs.run_client import RunClient

LONG = 90_000


class Follower:
    """A client, the states that it went through, and the events that it reported."""

    def __init__(self, qtbot: Any, run: Run, step: Any = "train") -> None:
        self.qtbot = qtbot
        self.states: list[str] = []
        self.events: list[Event] = []
        self.client = RunClient(step=step)
        self.client.state_changed.connect(self.states.append)
        self.client.reported.connect(self.events.append)
        self.is_caught_up = False
        self.client.caught_up.connect(self._note_caught_up)
        self.client.attach(run)

    def _note_caught_up(self) -> None:
        self.is_caught_up = True

    def until(self, *states: str) -> None:
        self.qtbot.waitUntil(lambda: self.client.state in states, timeout=LONG)

    def until_caught_up(self) -> None:
        self.qtbot.waitUntil(lambda: self.is_caught_up, timeout=LONG)

    def until_epoch(self) -> None:
        seen = len(self.events)
        self.qtbot.waitUntil(lambda: any(isinstance(e, Epoch) for e in self.events[seen:]), timeout=LONG)


EPOCH = {"event": "epoch", "step": "train", "epoch": 1, "seconds_left": 100.0}


def write_events(run: Run, *events: dict[str, Any], rest: str = "") -> None:
    run.path.mkdir(exist_ok=True)
    now = datetime.now(UTC).isoformat()
    lines = [json.dumps({"time": now} | event) + "\n" for event in events]
    run.events_file.write_text("".join(lines) + rest)
