"""Lines on stdout and stderr; what comes from names and files in them steers no terminal and fakes no line."""

from __future__ import annotations

import sys

from napari_autosegnet.plain_text import printable


def print_line(line: object = "") -> None:
    """A line of a command's result."""
    print(printable(line), flush=True)


def print_note(line: object) -> None:
    """A line on what happens, beside the result."""
    print(printable(line), file=sys.stderr, flush=True)
