"""How gradients change the weights: SGD with momentum, as in the paper, or Muon."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from napari_autosegnet.settings import OptimizationSettings

#: Of the iteration, and how often it is done (Jordan et al. 2024): singular values end between 0.7 and 1.2.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
#: Convolutions with fewer channels in or out, such as the first, the last and depthwise ones, are left to SGD.
MIN_CHANNELS = 8


@dataclass
class Group:
    """Weights that learn alike.

    Attributes
    ----------
    weights : list of Tensor
    first_rate : float
        Learning rate at the start.
    decay : float
        Weight decay.
    orthogonal : bool
        Whether steps are orthogonalised.
    """

    weights: Sequence[Tensor]
    first_rate: float
    decay: float
    orthogonal: bool = False


class Optimizer:
    """SGD with Nesterov's momentum, as `torch.optim.SGD`, and Muon for the groups that say so (Jordan et al. 2024).

    With Muon a convolution (o, i, y, x) is a matrix (o, i * y * x), and its step with momentum is replaced by the
    nearest matrix with singular values near one: so all directions of the weights are learned at the same pace, not
    only those with the largest gradients. Equal shapes are computed at once, because a network of small layers is
    otherwise bound by the number of calls.

    torch's own optimizers import its compiler, which takes more than two seconds at the start of every training.
    """

    def __init__(self, groups: Sequence[Group], momentum: float) -> None:
        self.groups = [group for group in groups if group.weights]
        self.momentum = momentum
        self.factor = 1.0
        self._moments: dict[Tensor, Tensor] = {}

    @property
    def rate(self) -> float:
        """Learning rate of the first group, as it is now."""
        return self.groups[0].first_rate * self.factor

    def zero_grad(self) -> None:
        for group in self.groups:
            for weights in group.weights:
                weights.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Change the weights that have a gradient; the others, and their momentum, stay as they are."""
        for group in self.groups:
            moving = [weights for weights in group.weights if weights.grad is not None]
            if not moving:
                continue
            steps = [weights.grad for weights in moving if weights.grad is not None]
            if group.orthogonal:
                steps = _orthogonal(self._with_momentum(moving, steps))
            if group.decay:
                steps = list(torch._foreach_add(steps, moving, alpha=group.decay))
            if not group.orthogonal:
                steps = self._with_momentum(moving, steps)
            torch._foreach_add_(moving, steps, alpha=-group.first_rate * self.factor)

    def _with_momentum(self, moving: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        if not self.momentum:
            return gradients
        for weights in moving:
            if weights not in self._moments:
                self._moments[weights] = torch.zeros_like(weights)
        moments = [self._moments[weights] for weights in moving]
        torch._foreach_mul_(moments, self.momentum)
        torch._foreach_add_(moments, gradients)
        return list(torch._foreach_add(gradients, moments, alpha=self.momentum))

    def state_dict(self) -> dict[str, Any]:
        """The momentum of all weights in order, None where there is none yet."""
        return {"moments": [self._moments.get(weights) for group in self.groups for weights in group.weights]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        ours = [weights for group in self.groups for weights in group.weights]
        moments = {
            weights: moment.clone(memory_format=torch.preserve_format)
            for weights, moment in zip(ours, state["moments"], strict=True)
            if moment is not None
        }
        if any(weights.shape != moment.shape for weights, moment in moments.items()):
            raise ValueError("moments of other shapes")
        self._moments = moments


class Adam:
    """Adam, as `torch.optim.Adam` (Kingma and Ba 2015), without importing torch's compiler.

    Parameters
    ----------
    weights : iterable of Tensor
        What learns.
    learning_rate : float
        Learning rate.
    """

    _BETAS = (0.9, 0.999)
    _EPSILON = 1e-8

    def __init__(self, weights: Iterable[Tensor], learning_rate: float) -> None:
        self.weights = list(weights)
        self.learning_rate = learning_rate
        self._steps = 0
        self._means = [torch.zeros_like(each) for each in self.weights]
        self._squares = [torch.zeros_like(each) for each in self.weights]

    def zero_grad(self) -> None:
        for weights in self.weights:
            weights.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Change the weights that have a gradient."""
        self._steps += 1
        slow, slower = self._BETAS
        rate = self.learning_rate / (1 - slow**self._steps)
        scale = (1 - slower**self._steps) ** 0.5
        for weights, mean, square in zip(self.weights, self._means, self._squares, strict=True):
            if weights.grad is None:
                continue
            mean.lerp_(weights.grad, 1 - slow)
            square.mul_(slower).addcmul_(weights.grad, weights.grad, value=1 - slower)
            weights.addcdiv_(mean, (square.sqrt() / scale).add_(self._EPSILON), value=-rate)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self._steps, "means": self._means, "squares": self._squares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps = state["steps"]
        for own, stored in ((self._means, state["means"]), (self._squares, state["squares"])):
            for tensor, other in zip(own, stored, strict=True):
                tensor.copy_(other)


def make_optimizer(network: nn.Module, settings: OptimizationSettings) -> Optimizer:
    """Optimizer of a network's weights; biases and batch norm do not decay.

    Muon leaves the head alone. An `EnlargingHead` has weights of its own for each of s x s pixels, and Muon would let
    these drift apart as fast as it teaches what they have in common. As each learns from so many times fewer pixels,
    their rate is s times as large (docs/benchmarks/sizes.md).
    """
    weights = {name: p for name, p in network.named_parameters() if p.requires_grad}
    vectors = [p for p in weights.values() if p.ndim <= 1]
    fine, hidden, other = [], [], []
    for name, parameter in weights.items():
        if parameter.ndim <= 1:
            continue
        if name.startswith("head.fine."):
            fine.append(parameter)
        elif settings.optimizer == "muon" and not name.startswith("head.") and _is_hidden_convolution(parameter):
            hidden.append(parameter)
        else:
            other.append(parameter)
    rate, decay = settings.learning_rate, settings.weight_decay
    return Optimizer(
        [
            Group(other, rate, decay),
            Group(vectors, rate, 0.0),
            Group(fine, getattr(network, "stem_stride", 1) * rate, decay),
            Group(hidden, settings.muon_learning_rate, decay, orthogonal=True),
        ],
        settings.momentum,
    )


def _orthogonal(steps: list[Tensor]) -> list[Tensor]:
    """Each step as the nearest matrix with singular values near one."""
    alike: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, step in enumerate(steps):
        alike[len(step), step[0].numel()].append(number)
    orthogonal = list(steps)
    for numbers in alike.values():
        matrices = orthogonalised(torch.stack([steps[number].flatten(1) for number in numbers]))
        for number, matrix in zip(numbers, matrices, strict=True):
            orthogonal[number] = torch.empty_like(steps[number]).copy_(matrix.view(steps[number].shape))
    return orthogonal


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices (n, rows, columns) with the same singular vectors and singular values near one.

    Newton and Schulz's iteration on the smaller of the two Gram matrices, whose polynomials commute, so that the
    matrices themselves are multiplied only at its beginning and end. Taller ones are larger by the root of
    rows / columns, as in Jordan et al. 2024.
    """
    rows, columns = matrices.shape[1:]
    x = matrices if rows <= columns else matrices.mT
    x = x / x.flatten(1).norm(dim=1).clamp_min(1e-7)[:, None, None]
    gram = x @ x.mT
    one = torch.eye(gram.shape[1], dtype=x.dtype, device=x.device)
    a, b, c = COEFFICIENTS
    total: Tensor | None = None
    for _ in range(ITERATIONS):
        factor = a * one + b * gram + c * gram @ gram
        total = factor if total is None else factor @ total
        gram = factor @ gram @ factor
    assert total is not None
    result: Tensor = total @ x
    return result if rows <= columns else result.mT.mul((rows / columns) ** 0.5)


def _is_hidden_convolution(parameter: Tensor) -> bool:
    return parameter.ndim == 4 and min(parameter.shape[:2]) >= MIN_CHANNELS
