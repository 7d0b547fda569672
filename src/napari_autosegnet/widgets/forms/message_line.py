"""What a step says: one line on what is wrong or going on, labels that wrap, and words made sentences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QSizePolicy

from napari_autosegnet.errors import UserError
from napari_autosegnet.plain_text import escaped, printable
from napari_autosegnet.quality import Quality

Kind = Literal["info", "error", "good"]

#: Borders that can be told apart on the dark and on the light theme.
_COLORS: dict[Kind, str] = {"info": "#56b4e9", "error": "#d55e00", "good": "#009e73"}


class MessageLine(QLabel):
    """A wrapped line with a colored edge; hidden while it has nothing to say."""

    def __init__(self) -> None:
        super().__init__()
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

    def attempt(self, action: Callable[[], object]) -> None:
        """Do what a button asks for, and say why not, if not."""
        self.clear()
        try:
            action()
        except UserError as error:
            self.say(capitalized(error), "error")


def wrapped_label(text: str = "") -> QLabel:
    """A label whose text goes on in the next line where the dock is too narrow for it."""
    label = QLabel(text)
    label.setWordWrap(True)
    return label


def tool_tip(text: object) -> str:
    """Text for a tool tip, which Qt would take for HTML where it looks like it."""
    return f"<qt>{escaped(text)}</qt>"


def in_html(quality: Quality) -> str:
    """A quality as rich text, what speaks against it in bold."""
    return escaped(sentence(quality.sentence())).replace("Warning:", "<b>Warning:</b>")


def capitalized(text: object) -> str:
    """Words that begin with a capital; else they are as they were."""
    words = str(text)
    return words[:1].upper() + words[1:]


def sentence(text: object) -> str:
    """Words with a capital and a full stop; nothing where there are none."""
    words = str(text or "").strip()
    return capitalized(words) + ("" if words.endswith((".", "!")) or not words else ".")
