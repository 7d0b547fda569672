"""What a long function told while it ran."""

from __future__ import annotations

from typing import Any


class Events:
    """A report that remembers."""

    def __init__(self) -> None:
        self.all: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, /, **values: Any) -> None:
        self.all.append((event, values))

    def named(self, name: str) -> list[dict[str, Any]]:
        return [values for event, values in self.all if event == name]
