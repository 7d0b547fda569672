"""Buttons with their tool tips, and the row of buttons below a dialog."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtWidgets import QDialog, QDialogButtonBox, QPushButton


def push_button(text: str, tip: str, action: Callable[..., object]) -> QPushButton:
    """A button that does something, and says what."""
    made = QPushButton(text)
    made.setToolTip(tip)
    made.clicked.connect(action)
    return made


def emphasized(button: QPushButton) -> QPushButton:
    """The button in bold: the one that is next."""
    font = button.font()
    font.setBold(True)
    button.setFont(font)
    return button


def dialog_buttons(
    dialog: QDialog, text: str, tip: str, action: Callable[[], object]
) -> tuple[QDialogButtonBox, QPushButton]:
    """The row below a dialog: *Cancel*, and the button, returned beside it, that does what the dialog is for."""
    row = QDialogButtonBox()
    cancel = row.addButton(QDialogButtonBox.StandardButton.Cancel)
    if cancel is not None:
        cancel.setToolTip("Nothing is done")
    main = QPushButton(text)
    main.setToolTip(tip)
    main.setDefault(True)
    row.addButton(main, QDialogButtonBox.ButtonRole.AcceptRole)
    row.accepted.connect(action)
    row.rejected.connect(dialog.reject)
    return row, main
