"""Patches made ahead are those that would be made when they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from learnable import Blobs
from napari_autosegnet.training.patches_ahead import PatchesAhead
from napari_autosegnet.training.threads import WorkerThreads

CPU = torch.device("cpu")
UseThreads = Callable[[int], None]


def stream(patches: Blobs | None = None, seed: int = 0) -> PatchesAhead:
    return PatchesAhead(patches or Blobs(), 4, seed, WorkerThreads(CPU))


def same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    return torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_they_are_those_of_one_generator(threads: int, use_threads: UseThreads) -> None:
    use_threads(threads)
    ahead, generator = stream(), torch.Generator().manual_seed(0)
    for _ in range(5):
        assert same(ahead.take(), Blobs().sample(4, generator))
        assert torch.equal(ahead.state, generator.get_state()), "the state is that of what was taken, not of more"


@pytest.mark.parametrize("threads", [1, 2])
def test_they_go_on_from_a_state(threads: int, use_threads: UseThreads) -> None:
    use_threads(threads)
    first = stream()
    first.take()
    state = first.state
    expected = [first.take() for _ in range(3)]
    for resumed in (stream(seed=7), first):
        if resumed is not first:
            resumed.take()  # and one more is under way
        resumed.state = state
        assert all(same(resumed.take(), batch) for batch in expected)


def test_the_next_batch_is_made_while_the_last_is_used(use_threads: UseThreads) -> None:
    use_threads(2)
    made, makers = threading.Semaphore(0), []

    class Watched(Blobs):
        def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            found = super().sample(count, generator)
            makers.append((threading.get_ident(), torch.get_num_threads()))
            made.release()
            return found

    ahead = stream(Watched())
    ahead.take()
    assert made.acquire(timeout=60) and made.acquire(timeout=60), "the second was not asked for"
    assert makers[1][0] != threading.get_ident()
    assert {number for _, number in makers} == {1}
