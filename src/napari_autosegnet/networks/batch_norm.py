"""Batch norm that sees a whole batch although threads compute its parts, each on its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Exchange:
    """Where the parts of a batch tell each other what batch norm has to know of all of them.

    Each part is computed in a thread of its own, and all do the same operations in the same order.

    Parameters
    ----------
    parts : int
        In how many parts the batch is.
    running : threading.Semaphore
        As many threads compute at a time as it lets in.
    """

    def __init__(self, parts: int, running: threading.Semaphore) -> None:
        self._running = running
        self._barrier = threading.Barrier(parts)
        # Two that take turns: a part can be one exchange ahead of the others, never two.
        self._shelves: list[list[Tensor]] = [[torch.empty(0)] * parts for _ in range(2)]
        self._turns = [0] * parts

    @contextmanager
    def computing(self, part: int) -> Iterator[None]:
        """Within this, batch norm in this thread is that of a part; an error in it ends the other parts, too."""
        _here.part = _Part(self, part)
        try:
            with self._running:
                yield
        except BaseException:
            self._barrier.abort()
            raise
        finally:
            _here.part = None

    def swap(self, part: int, values: Tensor) -> Sequence[Tensor]:
        """The values of all parts, in their order.

        Raises
        ------
        threading.BrokenBarrierError
            After an error in another part.
        """
        shelf = self._shelves[self._turns[part]]
        self._turns[part] = 1 - self._turns[part]
        shelf[part] = values
        self._running.release()
        try:
            self._barrier.wait()
        finally:
            self._running.acquire()
        return shelf


class _Part:
    """A part of a batch, known to the thread that computes it."""

    def __init__(self, exchange: Exchange, number: int) -> None:
        self.exchange = exchange
        self.number = number


class _Here(threading.local):
    part: _Part | None = None


_here = _Here()


class BatchNorm(nn.BatchNorm2d):
    """Batch norm over a whole batch, of which `Exchange` may have given this thread a part.

    Where a batch has a single value per channel, which has no variance, it takes the running statistics: so in the 1x1
    bin of a pyramid with one patch per batch.
    """

    def forward(self, input: Tensor) -> Tensor:
        part = _here.part
        if not self.training or (part is None and input.numel() > input.shape[1]):
            return super().forward(input)
        if part is None:
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        result: Tensor = _OfWholeBatch.apply(input, self.weight, self.bias, self, part)  # type: ignore[no-untyped-call]
        return result

    def follow(self, mean: Tensor, variance: Tensor, count: float) -> None:
        """Let the running statistics follow those of a batch with so many values per channel."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        factor = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, factor)
        self.running_var.lerp_(variance * (count / (count - 1)), factor)


class _OfWholeBatch(torch.autograd.Function):
    """Batch norm of a part of a batch with the statistics of all of it."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor, bias: Tensor, norm: BatchNorm, part: _Part) -> Tensor:
        exact = image.float()
        own_count = image.numel() // image.shape[1]
        own = torch.stack([*torch.batch_norm_update_stats(exact, None, None, 0.0), torch.full_like(weight, own_count)])
        means, variances, counts = torch.stack(list(part.exchange.swap(part.number, own))).unbind(dim=1)
        count = float(counts[:, 0].sum())
        mean = (counts * means).sum(0) / count
        variance = (counts * (variances + (means - mean) ** 2)).sum(0) / count
        if part.number == 0:
            norm.follow(mean, variance, count)
        ctx.save_for_backward(image, weight, mean, variance)
        ctx.part, ctx.count, ctx.epsilon = part, count, norm.eps
        return functional.batch_norm(exact, mean, variance, weight, bias, False, 0.0, norm.eps).to(image.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        image, weight, mean, variance = ctx.saved_tensors
        inverse = torch.rsqrt(variance + ctx.epsilon)
        # As if the statistics were fixed; what they depend on comes from all parts.
        exact, wanted = image.float(), [True, True, True]
        of_image, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient.float(), exact, weight, mean, variance, mean, inverse, False, ctx.epsilon, wanted
        )
        own = torch.stack([of_weight, of_bias])
        weights, biases = torch.stack(list(ctx.part.exchange.swap(ctx.part.number, own))).sum(0) / ctx.count
        slope = -weight * inverse**2 * weights
        of_image.addcmul_(exact, slope.view(1, -1, 1, 1))
        of_image.sub_((slope * mean + weight * inverse * biases).view(1, -1, 1, 1))
        return of_image.to(image.dtype), of_weight, of_bias, None, None
