"""Checkpoints to resume from: tensors and plain values, in one file with its checksum.

A search and a training have thousands of small tensors, and `torch.save` takes longer for each than for its numbers.
So they are written as one long tensor per type.

torch does not notice a bit that flipped on the disk, and a training would continue from it to other weights. So the
first line of a checkpoint holds the SHA-256 of the rest, and the checkpoint before is kept beside it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Note, Report, silent
from napari_autosegnet.files import replacing

#: Key of the place of a tensor: its type, first number, shape and strides.
_PLACE = "tensor at"
_FORMAT = b"napari-autosegnet/checkpoint 1 "
_HEADER_LENGTH = len(_FORMAT) + hashlib.sha256().digest_size * 2 + 1


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
    """Save tensors and plain values so that a crash leaves the last checkpoint or this one.

    The last one is kept as ``NAME.previous.pt``, in the place of the one before it.
    """
    previous = _previous(path)
    with replacing(path, keep=previous) as temporary, open(temporary, "wb") as handle:
        previous.unlink(missing_ok=True)  # at first, so that a disk never has to hold three
        handle.write(bytes(_HEADER_LENGTH))
        hashed = _HashedWriter(handle)
        try:
            torch.save(_pack(state), cast("BinaryIO", hashed))
        except RuntimeError as error:
            # torch reports a full disk as a failed write of its own.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        handle.seek(0)
        handle.write(_header(hashed.digest.hexdigest()))


def has_checkpoint(path: Path) -> bool:
    """Whether there is something to resume from."""
    # A crash may have come after the last one was set aside, and before the new one took its place.
    return path.is_file() or _previous(path).is_file()


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint and the one before it."""
    path.unlink(missing_ok=True)
    _previous(path).unlink(missing_ok=True)


def read_checkpoint(path: Path, device: torch.device, report: Report = silent) -> dict[str, Any]:
    """Load a checkpoint, or the one before it where it is damaged; only tensors and plain values are accepted.

    Raises
    ------
    UserError
        When there is none, or none that is whole.
    """
    if not has_checkpoint(path):
        raise UserError(f"there is no checkpoint {path} to resume from; start without --resume")
    try:
        return _read(path, device)
    except _DamagedError as problem:
        damage = problem
    try:
        state = _read(_previous(path), device)
    except _DamagedError:
        raise UserError(f"the checkpoint {path} is damaged ({damage}); start a new run") from damage
    report(Note(text=f"the last checkpoint is damaged ({damage}): went back to the one before it"))
    # The next checkpoint is written over the damaged one, not over this one.
    with suppress(OSError):
        os.replace(_previous(path), path)
    return state


class _DamagedError(Exception):
    """A file is no checkpoint, or not the one that was written."""


class _HashedWriter:
    """Passes on what is written, and takes its checksum."""

    def __init__(self, handle: BinaryIO) -> None:
        self.digest = hashlib.sha256()
        self._handle = handle

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        return self._handle.write(content)

    def flush(self) -> None:
        self._handle.flush()


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _header(digest: str) -> bytes:
    return _FORMAT + digest.encode() + b"\n"


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    if not path.is_file():
        raise _DamagedError("it is missing")
    try:
        with open(path, "rb") as handle:
            header = handle.read(_HEADER_LENGTH)
            if not header.startswith(_FORMAT):
                raise _DamagedError("it is none of this version")
            if header != _header(hashlib.file_digest(handle, "sha256").hexdigest()):
                raise _DamagedError("its checksum does not fit")
            if any(member.compress_type != zipfile.ZIP_STORED for member in zipfile.ZipFile(handle).infolist()):
                raise _DamagedError("it is compressed")
            handle.seek(_HEADER_LENGTH)
            content = torch.load(handle, map_location=device, weights_only=True)
        state = _unpacked(content["state"], content["numbers"])
    except _DamagedError:
        raise
    # Whoever wrote it, the checksum fits: a program in it, or places of tensors that do not exist.
    except Exception as error:
        raise _DamagedError("it is not what this program writes") from error
    if not isinstance(state, dict):
        raise _DamagedError("it is not what this program writes")
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
