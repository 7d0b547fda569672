"""Errors that a user can do something about."""

from __future__ import annotations

import pytest
import torch

from napari_autosegnet.errors import UserError, is_out_of_memory


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False),
    ],
)
def test_memory_that_is_out_is_known_by_its_words(error: Exception, memory: bool) -> None:
    assert is_out_of_memory(error) is memory


def test_an_error_is_one_line() -> None:
    assert str(UserError("cannot open a\nb.tif")) == "cannot open a b.tif"
