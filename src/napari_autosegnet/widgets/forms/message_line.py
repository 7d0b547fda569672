"""What a step says: one line on what is wrong or going on, and a button that stands out as the next one."""

from __future__ import annotations

from typing import Literal

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QPushButton, QSizePolicy, QWidget

from napari_autosegnet.plain_text import escaped, printable
from napari_autosegnet.quality import Quality

Kind = Literal["info", "error", "good"]

#: Borders that can be told apart on the dark and on the light theme.
_COLORS: dict[Kind, str] = {"info": "#56b4e9", "error": "#d55e00", "good": "#009e73"}


class MessageLine(QLabel):
    """A wrapped line with a colored edge; hidden while it has nothing to say."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWordWrap(True)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        self.kind: Kind = "info"
        self.clear()

    def say(self, text: str, kind: Kind = "info") -> None:
        """Show a text; an empty one hides the line."""
        self.kind = kind
        self.setText(printable(text))
        self.setStyleSheet(f"QLabel {{ border-left: 3px solid {_COLORS[kind]}; padding: 2px 2px 2px 6px; }}")
        self.setVisible(bool(text))

    def clear(self) -> None:
        self.say("")


def emphasized(button: QPushButton) -> QPushButton:
    """The button in bold: the one that is next."""
    font = button.font()
    font.setBold(True)
    button.setFont(font)
    return button


def tool_tip(text: object) -> str:
    """Text for a tool tip, which Qt would take for HTML where it looks like it."""
    return f"<qt>{escaped(text)}</qt>"


def in_html(quality: Quality) -> str:
    """A quality as rich text, what speaks against it in bold."""
    return escaped(sentence(quality.sentence())).replace("Warning:", "<b>Warning:</b>")


def sentence(text: object) -> str:
    """Words with a capital and a full stop; nothing where there are none."""
    words = str(text or "").strip()
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "!")) or not words else ".")
