"""How far an output pixel sees: the halo that makes a tile's result equal to the whole section's.

The network's own ``forward`` is run on an object that carries, instead of pixels, the interval of input
pixels that each cell of a feature map depends on. So the answer cannot drift away from the code. The
intervals repeat with the network's stride, hence one period of cells is enough, and the result is
exact for every alignment of the output pixel, not a sum of worst cases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class _UnboundedError(Exception):
    """An operation looks at the whole input."""


def receptive_field_radius(network: nn.Module) -> int | None:
    """Largest distance in pixels between an output pixel and an input pixel that it depends on.

    Parameters
    ----------
    network : nn.Module
        A network with a ``stride`` attribute, made of convolutions, pooling, resizing, batch norm and
        pointwise functions; or a module that knows its ``radius``.

    Returns
    -------
    int | None
        The radius at the worst alignment, or None when the network pools over the whole image
        (PSPNet), so that no halo makes tiles exact.

    Raises
    ------
    TypeError
        When the network contains an operation whose reach is not known here.
    """
    known = getattr(network, "radius", None)
    if isinstance(known, int):
        return known
    training = network.training
    network.eval()
    try:
        output = network(_Support.of_input(int(network.stride)))  # type: ignore[arg-type]
    except _UnboundedError:
        return None
    finally:
        network.train(training)
    here = np.arange(len(output.first))
    return int(max((here - output.first).max(), (output.last - here).max()))


class _Support:
    """First and last input pixel that each cell of one period of a feature map depends on.

    ``first`` and ``last`` are (cells,) arrays; cell ``i + cells`` has the values of cell ``i`` plus the period.
    """

    def __init__(self, first: np.ndarray, last: np.ndarray, period: int, margin: int = 0) -> None:
        self.first, self.last, self.period = first, last, period
        #: Cells that were added on each side for the next convolution.
        self.margin = margin

    @classmethod
    def of_input(cls, period: int) -> _Support:
        pixels = np.arange(period)
        return cls(pixels, pixels, period)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (1, 1, len(self.first), len(self.first))

    def dim(self) -> int:
        return len(self.shape)

    def take(self, cells: int, sources: Iterable[np.ndarray]) -> _Support:
        """A map of ``cells`` cells; each reads one cell of this map per array in ``sources``."""
        places = np.stack([np.broadcast_to(source, (cells,)) for source in sources])
        turns, index = np.divmod(places, len(self.first))
        offset = turns * self.period
        return _Support((self.first[index] + offset).min(0), (self.last[index] + offset).max(0), self.period)

    def slide(self, size: int, stride: int, padding: int, dilation: int = 1) -> _Support:
        """A convolution or a pooling."""
        if len(self.first) % stride:
            raise TypeError(f"stride {stride} on a map of {len(self.first)} cells per period; is network.stride right?")
        cells = len(self.first) // stride
        start = np.arange(cells) * stride - padding - self.margin
        return self.take(cells, (start + tap * dilation for tap in range(size)))

    def join(self, *others: _Support) -> _Support:
        everyone = (self, *others)
        return _Support(
            np.min([one.first for one in everyone], axis=0), np.max([one.last for one in everyone], axis=0), self.period
        )

    def relu_(self) -> _Support:
        return self

    relu = relu_

    def __add__(self, other: _Support) -> _Support:
        return self.join(other)

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> _Support:
        rule = _RULES.get(function)
        if rule is None:
            name = getattr(function, "__name__", repr(function))
            raise TypeError(f"the reach of {name} is not known; add it to networks/receptive_field.py")
        return rule(*args, **(kwargs or {}))


def _side(value: Any) -> int:
    """One number of a setting that is given as n or (n, n)."""
    if isinstance(value, int):
        return value
    sides = {int(side) for side in value}
    if len(sides) != 1:
        raise TypeError(f"only square windows are supported, not {tuple(value)}")
    return sides.pop()


def _convolve(
    x: _Support,
    weight: torch.Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> _Support:
    return x.slide(_side(weight.shape[2:]), _side(stride), _side(padding), _side(dilation))


def _convolve_transposed(
    x: _Support, weight: torch.Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, *rest: Any, **more: Any
) -> _Support:
    size, step, margin = _side(weight.shape[2:]), _side(stride), _side(padding)
    cells = len(x.first) * step
    # Output o reads input i where o + margin - i * step is a tap of the kernel.
    last = (np.arange(cells) + margin) // step
    first = -((size - 1 - np.arange(cells) - margin) // step)
    return x.take(cells, (np.maximum(last - back, first) for back in range(-(-size // step))))


def _pool(x: _Support, kernel_size: Any, stride: Any = None, padding: Any = 0, *rest: Any, **more: Any) -> _Support:
    size = _side(kernel_size)
    return x.slide(size, size if stride is None or stride == [] else _side(stride), _side(padding))


def _pad(x: _Support, pad: Any, *rest: Any, **more: Any) -> _Support:
    return _Support(x.first, x.last, x.period, margin=_side(pad))


def _interpolate(
    x: _Support,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    *rest: Any,
    **more: Any,
) -> _Support:
    if scale_factor is None or align_corners:
        raise TypeError("only resizing by a factor, with align_corners=False, has a reach that repeats")
    factor = int(scale_factor)
    places = np.arange(len(x.first) * factor)
    if mode == "nearest":
        return x.take(len(places), (places // factor,))
    # The two source cells whose centers enclose this cell's center.
    left = np.floor((places + 0.5) / factor - 0.5).astype(int)
    return x.take(len(places), (left, left + 1))


def _shuffle(x: _Support, upscale_factor: int) -> _Support:
    cells = len(x.first) * upscale_factor
    return x.take(cells, (np.arange(cells) // upscale_factor,))


def _concatenate(parts: list[_Support], dim: int = 0) -> _Support:
    return parts[0].join(*parts[1:])


def _pointwise(x: _Support, *rest: Any, **more: Any) -> _Support:
    return x


def _everything(x: _Support, *rest: Any, **more: Any) -> _Support:
    raise _UnboundedError


_RULES: dict[Any, Callable[..., _Support]] = {
    functional.conv2d: _convolve,
    functional.conv_transpose2d: _convolve_transposed,
    functional.max_pool2d: _pool,
    torch.max_pool2d: _pool,
    functional.avg_pool2d: _pool,
    functional.pad: _pad,
    functional.interpolate: _interpolate,
    functional.pixel_shuffle: _shuffle,
    torch.cat: _concatenate,
    functional.batch_norm: _pointwise,
    functional.relu: _pointwise,
    functional.relu_: _pointwise,
    functional.dropout: _pointwise,
    functional.dropout2d: _pointwise,
    functional.adaptive_avg_pool2d: _everything,
}
