"""Text that comes from files and names, put in order and made safe to show: some characters are orders, too."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence

#: Control characters, surrogates, line separators, and format characters such as those that turn the direction of text.
_STEERING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
#: Format characters without which some scripts and emoji read wrongly.
_JOINERS = frozenset({"\u200c", "\u200d"})


def printable(text: object) -> str:
    r"""The text on one line, with every character that steers a terminal or hides written out, such as ``\x1b``."""
    return "".join(_written_out(char) if _steers(char) else char for char in str(text))


def escaped(text: object) -> str:
    """The text for a label that understands HTML: `printable`, and no markup."""
    return html.escape(printable(text))


def counted(count: int, word: str) -> str:
    """``1 section``, ``1,240 sections``."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def listed(items: Sequence[object], most: int) -> str:
    """The first few, and how many there are besides: ``a, b and 3 more``."""
    more = len(items) - most
    return ", ".join(map(str, items[:most])) + (f" and {more} more" if more > 0 else "")


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key by which ``slice2`` comes before ``slice10``."""
    parts = re.split(r"(\d+)", text.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def _steers(char: str) -> bool:
    return not char.isprintable() and char not in _JOINERS and unicodedata.category(char) in _STEERING


def _written_out(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
