"""Lines on stdout and stderr; what comes from names and files in them steers no terminal and fakes no line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from napari_autosegnet.plain_text import printable


def print_line(line: object = "") -> None:
    """A line of a command's result."""
    print(printable(line), flush=True)


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Rows of a result, the first with the titles; every column as wide as its widest cell."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_note(line: object) -> None:
    """A line on what happens, beside the result."""
    print(printable(line), file=sys.stderr, flush=True)
