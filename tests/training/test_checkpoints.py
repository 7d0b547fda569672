"""What a checkpoint gives back is what was put in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_autosegnet.training.checkpoints import copied, read_checkpoint, write_checkpoint

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
