"""JSON that is not, in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_autosegnet import json_files
from napari_autosegnet.errors import UserError
from napari_autosegnet.json_files import parse_json, read_json


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"a": 1,\n "b" 2}', "line 2, column 6"),
        (b"", "line 1, column 1"),
        (b'{"a": "\xff"}', "it is not text"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b"1" * 10_000, "a number in it is too long"),
    ],
)
def test_the_place_is_told_and_no_sentence_of_the_library(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError) as raised:
        read_json(tmp_path / "a.json", "copy it again")
    assert str(raised.value) == f"{tmp_path}/a.json is not JSON ({problem}); copy it again"


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"cannot read .*none\.json: No such file or directory; look"):
        read_json(tmp_path / "none.json", "look")
    (tmp_path / "large.json").write_text('{"a": 1}')
    monkeypatch.setattr(json_files, "MAX_BYTES", 4)
    with pytest.raises(UserError, match="too large to be read"):
        read_json(tmp_path / "large.json", "look")


def test_a_value() -> None:
    assert parse_json('{"a": [1, null]}', "here", "") == {"a": [1, None]}
