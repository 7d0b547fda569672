"""Losses on logits (n, K, y, x) and targets (n, y, x) of class indices, -1 for not annotated."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from napari_autosegnet.data.patches import IGNORE
from napari_autosegnet.settings import LossName

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over the annotated pixels; 0 with a zero gradient when there are none."""
    losses = functional.cross_entropy(logits, target, weight=weight, ignore_index=IGNORE, reduction="sum")
    annotated = target != IGNORE
    counted = annotated if weight is None else weight[target.clamp_min(0)] * annotated
    total = counted.sum().to(losses.dtype)
    return losses / total.clamp_min(1e-6)


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - mean soft Dice over the classes of the batch, annotated pixels only (Milletari et al. 2016)."""
    annotated = (target != IGNORE).unsqueeze(1)
    probabilities = logits.softmax(dim=1) * annotated
    truth = torch.zeros_like(probabilities).scatter_(1, target.clamp_min(0).unsqueeze(1), 1.0) * annotated
    overlap = (probabilities * truth).sum(dim=(0, 2, 3))
    size = probabilities.sum(dim=(0, 2, 3)) + truth.sum(dim=(0, 2, 3))
    return 1 - ((2 * overlap + 1) / (size + 1)).mean()


def make_loss(kind: LossName, frequencies: Tensor) -> Loss:
    """Loss of the settings.

    Parameters
    ----------
    kind : str
        ``cross_entropy`` (paper), ``weighted`` by inverse class frequency, or ``dice``: the sum of
        cross-entropy and Dice loss.
    frequencies : Tensor
        (K,) fraction of each class among the annotated training pixels, on the device of the logits.
    """
    if kind == "weighted":
        weight = 1 / frequencies.clamp_min(1e-3)
        weight = weight / weight.mean()
        return lambda logits, target: cross_entropy(logits, target, weight)
    if kind == "dice":
        return lambda logits, target: cross_entropy(logits, target) + dice_loss(logits, target)
    return cross_entropy


def with_teacher(loss: Loss, classes: int, weight: float) -> Loss:
    """Beside the loss on what was painted that on what a teacher says, whose targets are ``classes`` higher."""

    def both(logits: Tensor, target: Tensor) -> Tensor:
        painted = target.masked_fill(target >= classes, IGNORE)
        taught = (target - classes).clamp_min(IGNORE)
        return loss(logits, painted) + weight * loss(logits, taught)

    return both
