"""Windows on a screen that several processes of the tests share."""

from __future__ import annotations

from typing import Any


def activate(window: Any, qtbot: Any) -> None:
    """Give a window the keyboard; another process may take it away meanwhile."""

    def is_active() -> bool:
        window.activateWindow()
        return bool(window.isActiveWindow())

    qtbot.waitUntil(is_active, timeout=30_000)
