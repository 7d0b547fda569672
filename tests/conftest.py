"""Fixtures that several rooms share."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from napari_autosegnet.training import precision


def pytest_collection_finish() -> None:
    """What was imported stays: nobody has to look for garbage in it after every viewer that a test closes."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets, which are not part of the repository."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the shared data sets are not beside this checkout")
    return folder


@pytest.fixture
def matrix_units(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    """Makes torch say that the CPU multiplies matrices in bfloat16, or that it does not."""

    def say(value: bool) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": value}, raising=False)
        precision.has_matrix_units.cache_clear()

    yield say
    monkeypatch.undo()
    precision.has_matrix_units.cache_clear()


@pytest.fixture
def use_threads() -> Iterator[Callable[[int], None]]:
    """Sets how many threads torch may use, more than there are cores as well."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
