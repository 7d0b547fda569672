"""How gradients change the weights: SGD with momentum, as in the paper, or Muon."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from napari_autosegnet.config import OptimiserName

#: Of the iteration, and how often it is done (Jordan et al. 2024): singular values end between 0.7 and 1.2.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
#: Convolutions with fewer channels in or out, such as the first, the last and depthwise ones, are left to SGD.
FEWEST_CHANNELS = 8


class OptimiserSettings(Protocol):
    """What a search's and a training's settings have in common."""

    @property
    def optimiser(self) -> OptimiserName: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def muon_learning_rate(self) -> float: ...
    @property
    def momentum(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


def make_optimiser(network: nn.Module, settings: OptimiserSettings) -> torch.optim.SGD:
    """Optimiser of a network's weights; biases and batch norm do not decay."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    hidden = {id(p) for p in parameters if settings.optimiser == "muon" and _is_hidden_convolution(p)}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1 and id(p) not in hidden]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if hidden:
        matrices = [p for p in parameters if id(p) in hidden]
        groups.append({"params": matrices, "lr": settings.muon_learning_rate, Muon.FLAG: settings.momentum})
    make = Muon if hidden else torch.optim.SGD
    optimiser = make(
        groups,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.momentum > 0,
        foreach=True,
    )
    for group in optimiser.param_groups:
        group["initial_lr"] = group["lr"]
    return optimiser


def scale_rates(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Set each learning rate to ``factor`` of what it was at first."""
    for group in optimiser.param_groups:
        group["lr"] = group["initial_lr"] * factor


class Muon(torch.optim.SGD):
    """SGD whose steps are orthogonalised for the groups that say so (Jordan et al. 2024).

    A convolution (o, i, y, x) is a matrix (o, i * y * x), and its step with momentum is replaced by the nearest
    matrix with singular values near one: so all directions of the weights are learned at the same pace, not only those
    with the largest gradients. `torch.optim.Muon` takes only matrices, and one after the other; here equal shapes are
    computed at once, because a network of small layers is otherwise bound by the number of calls.
    """

    #: Key of a parameter group: the momentum of its orthogonalised steps.
    FLAG = "orthogonal_momentum"

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, **options)
        for group in self.param_groups:
            if self.FLAG in group:
                # What is left for SGD: the learning rate and the decay.
                group.update(momentum=0.0, nesterov=False)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step; gradients of orthogonalised groups are replaced by their step."""
        if closure is not None:
            raise ValueError("closures are not supported")
        for group in self.param_groups:
            if self.FLAG in group:
                self._orthogonalise(group["params"], group[self.FLAG])
        return super().step()

    def _orthogonalise(self, parameters: list[Tensor], momentum: float) -> None:
        moving = [p for p in parameters if p.grad is not None]
        gradients = [p.grad for p in moving if p.grad is not None]
        if not gradients:
            return
        for parameter in moving:
            if "moment" not in self.state[parameter]:
                self.state[parameter]["moment"] = torch.zeros_like(parameter)
        moments = [self.state[parameter]["moment"] for parameter in moving]
        torch._foreach_mul_(moments, momentum)
        torch._foreach_add_(moments, gradients)
        torch._foreach_add_(gradients, moments, alpha=momentum)
        alike: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        for gradient in gradients:
            alike[len(gradient), gradient[0].numel()].append(gradient)
        for same in alike.values():
            steps = orthogonalised(torch.stack([gradient.flatten(1) for gradient in same]))
            for gradient, step in zip(same, steps, strict=True):
                gradient.copy_(step.view(gradient.shape))


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
    return parameter.ndim == 4 and min(parameter.shape[:2]) >= FEWEST_CHANNELS
