from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.output.ledger import Ledger, ledger_path, locked, written_parts

PARTS = {"model": "abc", "image": {"shape": [1, 2, 3]}, "settings": {"halo": 16, "tile": 512}, "version": "1"}


def test_finished_blocks_are_remembered(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "a.ledger.jsonl", PARTS)
    ledger.record(3, "done")
    ledger.record(5, "skipped")
    ledger.record(0, "done", level=1)
    again = Ledger.open(tmp_path / "a.ledger.jsonl", PARTS)
    assert again.finished() == {3: "done", 5: "skipped"}
    assert again.finished(1) == {0: "done"} and again.finished(2) == {}


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_line_is_forgotten_and_not_glued_to_the_next(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.ledger.jsonl"
    ledger = Ledger.open(path, PARTS)
    ledger.record(1, "done")
    ledger.record(2, "done")
    os.truncate(path, path.stat().st_size - cut)
    ledger = Ledger.open(path, PARTS)
    assert ledger.finished() == {1: "done"}
    ledger.record(7, "done")
    assert Ledger.open(path, PARTS).finished() == {1: "done", 7: "done"}


def digits(line: bytes) -> Iterator[int]:
    """Where digits stand in a line of a ledger, of numbers and checksums alike."""
    return (place for place, letter in enumerate(line) if chr(letter).isdigit())


def test_a_line_that_was_changed_is_as_if_it_had_never_been_written(tmp_path: Path) -> None:
    """One digit after the other: a block is never taken for another one, and the others stay."""
    path = tmp_path / "a.ledger.jsonl"
    ledger = Ledger.open(path, PARTS)
    for block in (1, 3, 5):
        ledger.record(block, "done", files=2**block)
    header, *lines = path.read_bytes().splitlines(keepends=True)
    notes: list[str] = []
    for place in digits(lines[1]):
        changed = bytearray(lines[1])
        changed[place] = ord("9") if changed[place] != ord("9") else ord("8")
        path.write_bytes(header + lines[0] + bytes(changed) + lines[2])
        again = Ledger.open(path, PARTS)
        assert again.finished() == {1: "done", 5: "done"} and again.damaged == 1
        again.forget_lost(lambda level, block: -1, lambda event: notes.append(event.text))
    assert "damaged lines (1)" in notes[0] and len(set(notes)) == 1
    again.record(3, "done")
    assert Ledger.open(path, PARTS).finished().keys() == {1, 3, 5}


def test_a_line_of_another_ledger_says_nothing(tmp_path: Path) -> None:
    Ledger.open(tmp_path / "a", PARTS).record(1, "done")
    Ledger.open(tmp_path / "b", {**PARTS, "model": "xyz"}).record(2, "done")
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes().splitlines(True)[1])
    assert Ledger.open(tmp_path / "a", PARTS).finished() == {1: "done"}


def test_a_changed_header_is_one_line_and_gives_no_right_to_delete(tmp_path: Path) -> None:
    path = tmp_path / "a.ledger.jsonl"
    Ledger.open(path, {**PARTS, "settings": {"probabilities": False}}).record(1, "done")
    assert written_parts(path) == {"labels"}
    path.write_bytes(path.read_bytes().replace(b"false", b"true", 1))
    with pytest.raises(UserError, match="is damaged; give another --out"):
        Ledger.open(path, {**PARTS, "settings": {"probabilities": True}})
    assert written_parts(path) == {"labels"}


def test_blocks_whose_files_are_gone_are_forgotten(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "a", PARTS)
    for block in range(2000):
        ledger.record(block, "done", files=0b101)
    ledger.record(0, "done", level=1, files=0)
    now = {3: 0b001, 7: 0b000, 8: 0b111}  # of the last something more is there
    notes: list[str] = []
    ledger.forget_lost(lambda level, block: now.get(block, 0b101), lambda event: notes.append(event.text))
    assert set(range(2000)) - ledger.finished().keys() == {3, 7}
    assert ledger.is_finished(0, level=1) and notes == [
        "2 finished blocks are no longer on the disk; they are computed again"
    ]


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("model", "xyz", "another model"),
        ("image", {"shape": [1, 2, 4]}, "another image: shape differ"),
        ("settings", {"halo": 32, "tile": 512}, "halo was 16, now 32"),
        ("version", "2", "version was 1, now 2"),
    ],
)
def test_another_run_is_refused_and_says_what_differs(tmp_path: Path, part: str, value: object, said: str) -> None:
    path = tmp_path / "a.ledger.jsonl"
    Ledger.open(path, PARTS).record(1, "done")
    with pytest.raises(UserError, match=said) as raised:
        Ledger.open(path, {**PARTS, part: value})
    assert "--overwrite" in str(raised.value) and "\n" not in str(raised.value)
    assert Ledger.open(path, PARTS).finished() == {1: "done"}


@pytest.mark.parametrize("content", [b"", b"{}\n", b"\x00\xff\n", b'{"format": "other", "parts": {}}\n'])
def test_a_damaged_ledger_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.ledger.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match="--overwrite"):
        Ledger.open(path, PARTS)


def test_it_lies_beside_the_store() -> None:
    assert ledger_path(Path("/a/b.zarr")) == Path("/a/b.zarr.ledger.jsonl")


def test_two_processes_do_not_write_one_result(tmp_path: Path) -> None:
    with locked(tmp_path / "a.zarr"), pytest.raises(UserError, match="another process"), locked(tmp_path / "a.zarr"):
        pass
    with locked(tmp_path / "a.zarr"):
        pass


def test_a_result_has_one_lock_and_one_ledger_whatever_links_lead_there(tmp_path: Path) -> None:
    (tmp_path / "real" / "a.zarr").mkdir(parents=True)
    (tmp_path / "folder").symlink_to(tmp_path / "real")
    (tmp_path / "store").symlink_to(tmp_path / "folder" / "a.zarr")
    real = tmp_path / "real" / "a.zarr"
    for other in (tmp_path / "folder" / "a.zarr", tmp_path / "store", tmp_path / "real" / ".." / "real" / "a.zarr"):
        assert ledger_path(other) == ledger_path(real)
        with locked(real), pytest.raises(UserError, match="another process"), locked(other):
            pass
