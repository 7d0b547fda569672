"""What a checkpoint gives back is what was put in."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Event
from napari_autosegnet.training.checkpoints import (
    copied,
    has_checkpoint,
    read_checkpoint,
    remove_checkpoint,
    write_checkpoint,
)

CPU = torch.device("cpu")
TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return (
            isinstance(other, torch.Tensor)
            and one.dtype == other.dtype
            and one.shape == other.shape
            and torch.equal(one, other)
        )
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


tensors = st.builds(
    lambda shape, dtype, turned: (torch.rand(shape) * 9).to(dtype).transpose(0, -1 if turned else 0),
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
    st.sampled_from(TYPES),
    st.booleans(),
)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | tensors
keys = st.text(max_size=5) | st.integers(0, 9)
states = st.dictionaries(
    keys, st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))
)


@given(states)
@settings(max_examples=60, deadline=None)
def test_round_trip(tmp_path_factory: Any, state: dict[Any, Any]) -> None:
    path = tmp_path_factory.mktemp("round") / "checkpoint.pt"
    write_checkpoint(path, state)
    assert same(state, read_checkpoint(path, CPU))
    assert same(state, copied(state))


def test_tensors_are_their_own_and_keep_the_memory_format(tmp_path: Path) -> None:
    weights = torch.rand(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    scalar = torch.tensor(7.0)
    write_checkpoint(tmp_path / "a.pt", {"weights": weights, "scalar": scalar, "again": [weights]})
    found = read_checkpoint(tmp_path / "a.pt", CPU)
    assert found["weights"].is_contiguous(memory_format=torch.channels_last)
    assert found["scalar"].shape == () and found["scalar"] == 7
    found["weights"].zero_()
    assert torch.equal(found["again"][0], weights)


def test_copies_do_not_follow(tmp_path: Path) -> None:
    weights = torch.ones(2, requires_grad=True)
    kept = copied({"a": [weights], "b": 1})
    with torch.no_grad():
        weights.zero_()
    assert kept["a"][0].tolist() == [1, 1] and not kept["a"][0].requires_grad


def test_many_small_tensors_take_a_moment(tmp_path: Path) -> None:
    state = {str(number): torch.zeros(3) for number in range(2000)}
    write_checkpoint(tmp_path / "a.pt", state)
    # A file of 2000 tensors has an entry for each, of 64 bytes and more.
    assert (tmp_path / "a.pt").stat().st_size < 400_000
    assert len(read_checkpoint(tmp_path / "a.pt", CPU)) == 2000


# Damage


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_any_bit_that_flips_is_seen(tmp_path: Path) -> None:
    """Each of 64 places: header, pickle, numbers, directory; torch itself sees a part of them."""
    path = tmp_path / "training.pt"
    write_checkpoint(path, {"epoch": 3, "weights": torch.rand(200)})
    whole = path.read_bytes()
    for bit in np.linspace(0, 8 * len(whole) - 1, 64).astype(int):
        path.write_bytes(whole)
        flip(path, int(bit))
        with pytest.raises(UserError, match=r"training\.pt is damaged .*; start a new run"):
            read_checkpoint(path, CPU)
    path.write_bytes(whole)
    assert read_checkpoint(path, CPU)["epoch"] == 3


def test_the_one_before_takes_the_place_of_a_damaged_one(tmp_path: Path) -> None:
    path, notes = tmp_path / "training.pt", []

    def report(event: Event) -> None:
        notes.append((event.event, event.text))

    for epoch in (1, 2, 3):
        write_checkpoint(path, {"epoch": epoch})
    flip(path, 8 * 1000)
    assert read_checkpoint(path, CPU, report) == {"epoch": 2}
    assert notes == [
        ("note", "the last checkpoint is damaged (its checksum does not fit): went back to the one before it")
    ]
    # A crash while the next one is written must not cost both.
    assert read_checkpoint(path, CPU) == {"epoch": 2}
    write_checkpoint(path, {"epoch": 3})
    assert read_checkpoint(path, CPU) == {"epoch": 3}


@pytest.mark.parametrize("crash_at", [0, 1])
def test_a_crash_between_the_renames_leaves_one(crash_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "training.pt"
    for epoch in (1, 2):
        write_checkpoint(path, {"epoch": epoch})
    real, count = os.replace, 0

    def replace(source: Path, target: Path) -> None:
        nonlocal count
        if count == crash_at:
            raise KeyboardInterrupt
        count += 1
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(path, {"epoch": 3})
    monkeypatch.undo()
    assert has_checkpoint(path) and read_checkpoint(path, CPU) == {"epoch": 2}


def test_what_is_removed_does_not_come_back(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    for epoch in (1, 2):
        write_checkpoint(path, {"epoch": epoch})
    remove_checkpoint(path)
    assert not has_checkpoint(path) and list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="there is no checkpoint"):
        read_checkpoint(path, CPU)


def test_a_compressed_checkpoint_is_not_inflated(tmp_path: Path) -> None:
    """Few bytes would become gigabytes; torch reads such a file."""
    path = tmp_path / "training.pt"
    write_checkpoint(path, {"weights": torch.zeros(2**22)})
    squeezed = tmp_path / "squeezed"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    content = squeezed.read_bytes()
    digest = hashlib.sha256(content).hexdigest().encode()
    path.write_bytes(b"napari-autosegnet/checkpoint 1 " + digest + b"\n" + content)
    assert path.stat().st_size < 2**20
    with pytest.raises(UserError, match="it is compressed"):
        read_checkpoint(path, CPU)
