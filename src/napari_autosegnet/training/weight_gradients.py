"""The backward pass, with the weight gradients of convolutions left to other threads.

Nothing in a backward pass waits for the gradient of a weight, and those of convolutions are a third of all that a step
computes. Each is computed whole, by one thread, so it is the same for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from napari_autosegnet.training.threads import Task, WorkerThreads, finished

#: Stride, padding, dilation and groups of a convolution.
Geometry = tuple[list[int], list[int], list[int], int]


def set_gradients(loss: Callable[[], Tensor], threads: WorkerThreads) -> Tensor:
    """Add the gradients of a loss to its weights' ``grad``; returns the loss without its graph.

    Parameters
    ----------
    loss : callable
        Computes a scalar with its graph.
    threads : WorkerThreads
        Without others than the calling one this is ``loss().backward()``, to the last bit.
    """
    if threads.count == 1:
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()
    with _Convolutions(threads) as convolutions:
        value = loss()
    try:
        value.backward()  # type: ignore[no-untyped-call]
        convolutions.set_gradients()
    except RuntimeError:
        # Out of memory, for example: what is still to be computed would hold it.
        convolutions.give_up()
        raise
    return value.detach()


class _Convolutions(TorchFunctionMode):
    """Within this, a backward pass leaves out the weights of convolutions; their gradients are set after it."""

    def __init__(self, threads: WorkerThreads) -> None:
        super().__init__()
        self._threads = threads
        self._weights: list[Tensor] = []
        self._tasks: list[Task[list[Tensor]]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        call = self._convolve if func is torch.conv2d else func
        return call(*args, **(kwargs or {}))

    def _convolve(
        self,
        image: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
    ) -> Tensor:
        if not weight.requires_grad:
            return torch.conv2d(image, weight, bias, stride, padding, dilation, groups)
        learned = [weight] if bias is None else [weight, bias]
        if torch.is_autocast_enabled("cpu"):
            kind = torch.get_autocast_dtype("cpu")
            image, learned = image.to(kind), [value.to(kind) for value in learned]
        geometry = _pair(stride), _pair(padding), _pair(dilation), groups

        def learn(image: Tensor, gradient: Tensor) -> None:
            def gradients() -> list[Tensor]:
                wanted = [False, True, bias is not None]
                return convolution_gradients(gradient, image, learned[0], geometry, wanted)[1 : 1 + len(learned)]

            self._weights += learned
            self._tasks.append(self._threads.submit(gradients))

        # Cut off from the weights, which the backward pass is not to reach; it asks for what makes a gradient of any.
        own = [value.detach().requires_grad_() for value in learned]
        result: Tensor = _Convolution.apply(geometry, learn, image, *own)  # type: ignore[no-untyped-call]
        return result

    def set_gradients(self) -> None:
        """Add the gradients that the backward pass has asked for."""
        parts, of_parts = [], []
        gradients = [gradient for of_task in finished(self._tasks) for gradient in of_task]
        for value, gradient in zip(self._weights, gradients, strict=True):
            if value.is_leaf:
                value.grad = gradient if value.grad is None else value.grad.add_(gradient)
            else:  # of a weight, or one in another precision
                parts.append(value)
                of_parts.append(gradient)
        # Not for nothing: with gradients given, torch imports sympy at the first call, for most of a second.
        if parts:
            torch.autograd.backward(parts, of_parts)

    def give_up(self) -> None:
        for task in self._tasks:
            task.give_up()


class _Convolution(torch.autograd.Function):
    """A convolution that hands on what the gradients of its weight and bias are computed from."""

    @staticmethod
    def forward(
        ctx: Any,
        geometry: Geometry,
        learn: Callable[[Tensor, Tensor], None],
        image: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
    ) -> Tensor:
        ctx.save_for_backward(image, weight)
        ctx.geometry, ctx.learn, ctx.weights = geometry, learn, 1 if bias is None else 2
        stride, padding, dilation, groups = geometry
        return torch.conv2d(image, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        image, weight = ctx.saved_tensors
        ctx.learn(image, gradient)
        of_image = None
        if ctx.needs_input_grad[2]:
            of_image = convolution_gradients(gradient, image, weight, ctx.geometry, [True, False, False])[0]
        return None, None, of_image, *[None] * ctx.weights


@torch.no_grad()
def convolution_gradients(
    gradient: Tensor, image: Tensor, weight: Tensor, geometry: Geometry, wanted: list[bool]
) -> list[Tensor]:
    """Those ``wanted`` of the gradients of a convolution's input, weight and bias, for one of its output."""
    stride, padding, dilation, groups = geometry
    sizes = [weight.shape[0]] if wanted[2] else None
    return list(
        torch.ops.aten.convolution_backward(
            gradient, image, weight, sizes, stride, padding, dilation, False, [0, 0], groups, wanted
        )
    )


def _pair(value: int | tuple[int, int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)
