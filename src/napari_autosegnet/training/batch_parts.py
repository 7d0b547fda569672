"""Gradients of a batch whose parts are computed side by side, by a thread each.

Batch norm and the loss see the whole batch, and the parts are the same for any number of threads. So the result is,
too, and it is that of the batch in one piece but for how sums are rounded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from napari_autosegnet.networks.batch_norm import Exchange
from napari_autosegnet.training.threads import WorkerThreads, stay_single_threaded

Result = TypeVar("Result")

#: Into how many parts a batch is divided. More would keep more cores busy, but small parts cost more in all.
PARTS = 2


class BatchParts:
    """Computes gradients by parts of batches, on CPUs; other devices take batches whole.

    Parameters
    ----------
    threads : WorkerThreads
        No more than these compute at a time.
    """

    def __init__(self, threads: WorkerThreads) -> None:
        self._running = threading.Semaphore(threads.count)
        # They wait for each other, so each part has a thread of its own, however few compute at a time.
        self._others: ThreadPoolExecutor | None = None
        if threads.on_cpu:
            self._others = ThreadPoolExecutor(PARTS - 1, "part of a batch", stay_single_threaded)

    def add_gradients(
        self,
        parameters: Sequence[Tensor],
        images: Tensor,
        predict: Callable[[Tensor], Tensor],
        loss: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Add the gradients of a loss to the ``grad`` of those parameters that it depends on.

        Parameters
        ----------
        parameters : sequence of Tensor
            All that `predict` may depend on.
        images : Tensor
            ``(n, c, y, x)``.
        predict : callable
            From images to logits; does the same operations for any part of a batch.
        loss : callable
            From the logits of all images to a scalar.

        Returns
        -------
        Tensor
            The loss, without its graph.
        """
        if self._others is None or len(images) < PARTS:
            value = loss(predict(images))
            value.backward()  # type: ignore[no-untyped-call]
            return value.detach()
        parts = torch.tensor_split(images, PARTS)
        exchange = Exchange(PARTS, self._running)
        learned = [value for value in parameters if value.requires_grad]

        def forward(part: int) -> Tensor:
            with exchange.computing(part):
                return predict(parts[part])

        def backward(part: int) -> tuple[Tensor | None, ...]:
            with exchange.computing(part):
                # As a scalar: with gradients given, torch imports sympy at the first call, for most of a second.
                weighted = (logits[part] * of_logits[part]).sum()
                return torch.autograd.grad(weighted, learned, allow_unused=True)

        logits = self._each(forward)
        whole = torch.cat([each.detach() for each in logits]).requires_grad_()
        value = loss(whole)
        of_logits = torch.tensor_split(torch.autograd.grad(value, whole)[0], PARTS)
        for parameter, gradients in zip(learned, zip(*self._each(backward), strict=True), strict=True):
            for gradient in gradients:
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        return value.detach()

    def _each(self, compute: Callable[[int], Result]) -> list[Result]:
        """The results of all parts, the first of which is computed here."""
        assert self._others is not None
        others = [self._others.submit(compute, part) for part in range(1, PARTS)]
        try:
            first = compute(0)
        except threading.BrokenBarrierError:
            for other in others:
                other.result()  # raises what broke it
            raise
        return [first, *(other.result() for other in others)]
