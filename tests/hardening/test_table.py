"""The table of reliability names tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@cache
def names_in(file: str) -> set[str]:
    """The names of the tests in a file; none if there is no such file."""
    path = ROOT / file
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def missing(text: str) -> list[str]:
    """What ``text`` names as ``tests/FILE.py::test`` and is not there."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    return [f"{file}::{name}" for file, name in named if name not in names_in(file)]


def test_every_test_that_is_named_exists() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert len(re.findall(r"`tests/", text)) > 40
    assert missing(text) == []
    # A row that names no test would be a promise alone.
    rows = [row for row in text.splitlines() if row.startswith("|") and not re.match(r"\|(---|\s*(fault|file)\s)", row)]
    assert [row for row in rows if "`tests/" not in row] == []


def test_the_check_sees_a_name_that_is_wrong() -> None:
    assert missing("`tests/hardening/test_table.py::test_nothing`, `tests/nowhere.py::test_x`") == [
        "tests/hardening/test_table.py::test_nothing",
        "tests/nowhere.py::test_x",
    ]
