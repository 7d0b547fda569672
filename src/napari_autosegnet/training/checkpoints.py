"""Checkpoints to resume from: tensors and plain values, in one file.

A search and a training have thousands of small tensors, and `torch.save` takes longer for each than for its numbers.
So they are written as one long tensor per type.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_autosegnet.errors import UserError
from napari_autosegnet.run import replacing

#: Key of the place of a tensor: its type, first number, shape and strides.
_PLACE = "tensor at"


def copied(state: Any) -> Any:
    """A state with copies of its tensors; `copy.deepcopy` takes many times as long for many small ones."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {key: copied(value) for key, value in state.items()}
    if isinstance(state, list):
        return [copied(value) for value in state]
    return state


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Save tensors and plain values so that a crash leaves the last checkpoint or this one."""
    with replacing(path) as temporary:
        try:
            torch.save(_pack(state), temporary)
        except RuntimeError as error:
            # torch reports a full disk as a failed write of its own.
            raise OSError(28, f"could not be written ({str(error).splitlines()[0]})") from error


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Load a checkpoint; only tensors and plain values are accepted.

    Raises
    ------
    UserError
        When there is none or it is damaged.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path} to resume from; start without --resume")
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        state = _unpacked(content["state"], content["numbers"])
    except Exception as error:
        raise UserError(f"the checkpoint {path} is damaged ({type(error).__name__}); start a new run") from error
    if not isinstance(state, dict):
        raise UserError(f"the checkpoint {path} is damaged (it holds a {type(state).__name__}); start a new run")
    return state


def _pack(state: dict[str, Any]) -> dict[str, Any]:
    """A state whose tensors are places in one long tensor per type."""
    tensors: dict[str, list[Tensor]] = {}
    lengths: dict[str, int] = {}

    def place(value: Any) -> Any:
        if isinstance(value, Tensor):
            kind = str(value.dtype)
            start = lengths.get(kind, 0)
            # Weights keep the memory format that they are fast in.
            channels_last = value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last)
            kept = value.detach() if channels_last else value.detach().contiguous()
            tensors.setdefault(kind, []).append(kept)
            lengths[kind] = start + value.numel()
            return {_PLACE: [kind, start, list(value.shape), list(kept.stride())]}
        if isinstance(value, Mapping):
            return {key: place(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [place(each) for each in value]
        return value

    placed = place(state)
    numbers: dict[str, Tensor] = {}
    for kind, several in tensors.items():
        numbers[kind] = torch.empty(lengths[kind], dtype=several[0].dtype)
        start = 0
        for tensor in several:
            numbers[kind][start : start + tensor.numel()].as_strided(tensor.shape, tensor.stride()).copy_(tensor)
            start += tensor.numel()
    return {"state": placed, "numbers": numbers}


def _unpacked(value: Any, numbers: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict) and _PLACE in value:
        kind, start, shape, strides = value[_PLACE]
        count = 1
        for size in shape:
            count *= size
        return numbers[kind][start : start + count].clone().as_strided(shape, strides)
    if isinstance(value, dict):
        return {key: _unpacked(each, numbers) for key, each in value.items()}
    if isinstance(value, list):
        return [_unpacked(each, numbers) for each in value]
    return value
