"""Lines on stdout and stderr, in which names and texts from files can neither steer the terminal nor fake a line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from napari_autosegnet.plain_text import printable


def print_line(line: object = "") -> None:
    """A line on stdout, of a command's result."""
    print(printable(line), flush=True)


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Rows of a result, the first with the titles; every column as wide as its widest cell."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_note(line: object) -> None:
    """A line on stderr about what happens."""
    print(printable(line), file=sys.stderr, flush=True)
