"""What a long function told while it ran."""

from __future__ import annotations

from napari_autosegnet.events import Event, SomeEvent


class Events:
    """A report that remembers."""

    def __init__(self) -> None:
        self.all: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.all.append(event)

    def of(self, kind: type[SomeEvent]) -> list[SomeEvent]:
        """The events of a kind, in order."""
        return [event for event in self.all if isinstance(event, kind)]
