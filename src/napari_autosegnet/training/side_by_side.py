"""Parts of a batch side by side on the cores of a CPU.

The operations of a searched network are many and small, and cores that share each of them gain little.
Here each core works on a part of the batch of its own instead. Batch norm then sees a part at a time, as it
does when gradients are added up because a batch does not fit in memory.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

Result = TypeVar("Result")

#: Images (n, c, y, x) and class indices (n, y, x), -1 where not annotated.
Part = tuple[Tensor, Tensor]


class SideBySide:
    """Threads that each do a part of the work on the CPU; results come in order, whatever the threads' timing.

    Parameters
    ----------
    batch_size : int
        Images that come at once; they are divided into as many equal parts as there are threads for.
    device : torch.device
        Anything but a CPU works on all parts itself: there is one part.
    """

    def __init__(self, batch_size: int, device: torch.device) -> None:
        threads = torch.get_num_threads() if device.type == "cpu" else 1
        self.count = next(n for n in range(min(threads, batch_size), 0, -1) if batch_size % n == 0)
        # Looking for them among all modules takes longer than some of the operations.
        self._parameters: WeakKeyDictionary[nn.Module, list[nn.Parameter]] = WeakKeyDictionary()
        self._pool: ThreadPoolExecutor | None = None
        if self.count > 1:
            self._pool = ThreadPoolExecutor(self.count, "part", _use_threads, (threads // self.count,))
            started = threading.Barrier(self.count)
            list(self._pool.map(lambda _: started.wait(), range(self.count)))
            # The number is each thread's own, but the last one set is that of threads yet to come.
            torch.set_num_threads(threads)

    def map(self, work: Callable[..., Result], *arguments: Sequence[object]) -> Iterator[Result]:
        """As the built-in `map`, in threads."""
        return map(work, *arguments) if self._pool is None else self._pool.map(work, *arguments)

    def divide(self, images: Tensor, targets: Tensor) -> list[Part]:
        """Equal parts of a batch."""
        size = -(-len(images) // self.count)
        return list(zip(torch.split(images, size), torch.split(targets, size), strict=True))

    def replicas(self, network: nn.Module) -> list[nn.Module]:
        """The network, and copies that share its weights but have batch norm statistics and modes of their own."""
        found = [network]
        for _ in range(self.count - 1):
            replica = copy.deepcopy(network)
            for shared, own in zip(network.parameters(), replica.parameters(), strict=True):
                own.data = shared.data
            found.append(replica)
        return found

    def accumulate(
        self, networks: Sequence[nn.Module], parts: Sequence[Part], loss: Callable[[nn.Module, Part], Tensor]
    ) -> Tensor:
        """Set the gradients of the first network's weights, summed over the parts; returns the sum of the losses.

        Parameters
        ----------
        networks : sequence of nn.Module
            One per part: `replicas`, or the same one where it keeps nothing between calls.
        parts : sequence of Part
            At most as many as networks.
        loss : callable
            Loss (a scalar with its graph) of a network on a part.
        """

        def work(network: nn.Module, part: Part) -> tuple[Tensor, tuple[Tensor | None, ...]]:
            value = loss(network, part)
            # Not `backward`: where weights are shared it would add to the same gradients at the same time.
            return value.detach(), torch.autograd.grad(value, self._parameters[network], allow_unused=True)

        for network in networks[: len(parts)]:
            if network not in self._parameters:
                self._parameters[network] = list(network.parameters())
        total: Tensor | None = None
        for value, gradients in self.map(work, networks[: len(parts)], parts):
            first = total is None
            total = value if total is None else total + value
            for parameter, gradient in zip(self._parameters[networks[0]], gradients, strict=True):
                if first:
                    parameter.grad = gradient
                elif gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        assert total is not None
        return total


def _use_threads(count: int) -> None:
    # Asking first: a thread's first operation would set its number to the process's.
    torch.get_num_threads()
    torch.set_num_threads(count)


def annotated_share(part: Part, batch: Tensor) -> Tensor:
    """Share of a batch's annotated pixels (targets (n, y, x)) that a part has: the weight of its mean loss."""
    return (part[1] >= 0).sum() / (batch >= 0).sum().clamp_min(1)
