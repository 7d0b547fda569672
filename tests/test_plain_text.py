"""Text that is safe to show."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_autosegnet.plain_text import escaped, listed, natural_key, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zellkern ü 細胞 نواة", "Zellkern ü 細胞 نواة"),
        ("क\u200dष 👩\u200d🔬", "क\u200dष 👩\u200d🔬"),  # joiners belong to the words
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("run\nerror: faked", r"run\nerror: faked"),
        ("a\rb\x00\x7f\x9b", r"a\rb\x00\x7f\x9b"),
        ("exe.\u202efdp", r"exe.\u202efdp"),
        ("one\u2028two", r"one\u2028two"),
        ("no \udcff UTF-8", r"no \udcff UTF-8"),
    ],
)
def test_characters_that_steer_are_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_what_is_printable_stays_so(text: str) -> None:
    shown = printable(text)
    assert printable(shown) == shown and len(shown.splitlines()) <= 1
    shown.encode()  # a terminal takes it


def test_markup_is_text_in_a_label() -> None:
    assert escaped('<img src="x">&\n') == r"&lt;img src=&quot;x&quot;&gt;&amp;\n"


def test_a_long_list_says_how_much_more_there_is() -> None:
    assert (listed([1, 2], 2), listed("abcde", 2), listed([], 2)) == ("1, 2", "a, b and 3 more", "")


def test_natural_key() -> None:
    names = ["a10", "a2", "b1", "a2b", "10", "9", "a1\u00b2"]
    assert sorted(names, key=natural_key) == ["9", "10", "a1\u00b2", "a2", "a2b", "a10", "b1"]
