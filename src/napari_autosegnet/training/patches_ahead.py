"""Training patches that are made while the network learns on those before."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from napari_autosegnet.data.patches import Labeler
from napari_autosegnet.training.threads import Task, WorkerThreads, single_threaded

#: Images (n, c, y, x) and class indices (n, y, x), -1 where not annotated.
Batch = tuple[Tensor, Tensor]


class PatchStream(Protocol):
    """Where training patches come from."""

    class_frequencies: Tensor

    def sample(self, count: int, generator: torch.Generator) -> Batch:
        """Images (n, c, y, x) and class indices (n, y, x), -1 where not annotated, on the device."""
        ...


@runtime_checkable
class TeachableStream(PatchStream, Protocol):
    """Patches that also show what a teacher says of what nobody annotated, as classes K..2K-1."""

    def taught_by(self, label: Labeler, *, most: int, seed: int) -> TeachableStream:
        """The same, with what a network says in place of that."""
        ...


class PatchesAhead:
    """Batches of random patches, one after the other; the next one is made ahead.

    Parameters
    ----------
    patches : PatchStream
        Several may draw from one at a time.
    count : int
        Patches of a batch.
    seed : int
    threads : WorkerThreads
        Who makes them.

    Attributes
    ----------
    source : PatchStream
        Where they come from.
    state : Tensor
        State of a random generator from which the next batch that is taken is drawn. Set it to continue from there.
    """

    def __init__(self, patches: PatchStream, count: int, seed: int, threads: WorkerThreads) -> None:
        self.source = patches
        self._count = count
        self._threads = threads
        self._state = torch.Generator().manual_seed(seed).get_state()
        self._next: Task[tuple[Batch, Tensor]] | None = None

    @property
    def state(self) -> Tensor:
        return self._state

    @state.setter
    def state(self, value: Tensor) -> None:
        self._state = value.cpu()
        self._next = None  # drawn from another state

    def change(self, source: PatchStream) -> None:
        """Draw patches from another source from here on."""
        self.source = source
        self._next = None

    def take(self) -> Batch:
        """The next batch."""
        batch, self._state = (self._next or self._begin()).result()
        self._next = self._begin()
        return batch

    def _begin(self) -> Task[tuple[Batch, Tensor]]:
        before = self._state
        return self._threads.submit(lambda: self._made(before))

    @single_threaded()
    def _made(self, state: Tensor) -> tuple[Batch, Tensor]:
        """A batch that is drawn from a state, and the state after it."""
        generator = torch.Generator()
        generator.set_state(state)
        return self.source.sample(self._count, generator), generator.get_state()
