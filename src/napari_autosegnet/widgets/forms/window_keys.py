"""Keys that work wherever the focus is in napari's window, while a part of the dock is in sight."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qtpy.QtCore import QEvent, QObject
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QWidget


class WindowKeys(QObject):
    """Gives keys to napari's window, which Qt asks also while the dock floats in one of its own.

    Parameters
    ----------
    part : QWidget
        While it is hidden the keys are napari's own.
    actions : mapping of str to callable
        What each key does, such as ``Shift+F3``.
    """

    def __init__(self, part: QWidget, actions: Mapping[str, Callable[[], object]]) -> None:
        super().__init__(part)
        self._part = part
        self._shortcuts = [QShortcut(QKeySequence(keys), part) for keys in actions]
        for shortcut, action in zip(self._shortcuts, actions.values(), strict=True):
            shortcut.activated.connect(action)
            shortcut.setEnabled(False)
        part.installEventFilter(self)

    def release(self) -> None:
        """Let go of napari's window."""
        self._part.removeEventFilter(self)
        for shortcut in self._shortcuts:
            shortcut.setEnabled(False)
            shortcut.setParent(self._part)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Follow the part as it is shown and hidden."""
        if event is not None and event.type() == QEvent.Type.Show:
            window = self._part.window()
            while window is not None and (frame := window.parentWidget()) is not None:
                window = frame.window()
            for shortcut in self._shortcuts:
                shortcut.setParent(window)
                shortcut.setEnabled(True)
        elif event is not None and event.type() == QEvent.Type.Hide and not event.spontaneous():
            for shortcut in self._shortcuts:
                shortcut.setEnabled(False)
        return super().eventFilter(watched, event)
