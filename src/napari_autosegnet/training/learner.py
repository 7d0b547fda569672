"""A network that learns: its weights, their average, the optimizer, and the way back from a loss that is not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from napari_autosegnet.errors import UserError
from napari_autosegnet.settings import OptimizationSettings
from napari_autosegnet.training.averaged_weights import AveragedWeights
from napari_autosegnet.training.checkpoints import copied
from napari_autosegnet.training.optimizers import make_optimizer
from napari_autosegnet.training.threads import WorkerThreads
from napari_autosegnet.training.weight_gradients import set_gradients

#: A loss that is not finite this many times in a row ends the training.
MAX_ROLLBACKS = 5


class Learner:
    """Weights that learn by gradients.

    Parameters
    ----------
    network : nn.Module
        Moved to the device; trained in place.
    settings : OptimizationSettings
    threads : WorkerThreads
        Of the device.

    Attributes
    ----------
    rate_factor : float
        Every learning rate is multiplied by it; halved by `roll_back`.
    kept : dict
        What `keep` was last called for.
    """

    def __init__(self, network: nn.Module, settings: OptimizationSettings, threads: WorkerThreads) -> None:
        self.network: nn.Module = network.to(threads.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.threads = threads
        self.optimizer = make_optimizer(self.network, settings)
        self.averaged = AveragedWeights(self.network, settings.average_weights) if settings.average_weights else None
        self.rate_factor = 1.0
        self._clip_norm = settings.clip_norm
        self._parameters = list(self.network.parameters())
        self.kept: dict[str, Any] = {}
        self._rollbacks = 0

    @property
    def current(self) -> nn.Module:
        """The network to judge by: that of the averaged weights, where there are any."""
        averaged = self.averaged
        return self.network if averaged is None or not averaged.steps else averaged.network

    def set_gradients(self, losses: Iterable[Callable[[], Tensor]]) -> Tensor:
        """Set the gradients of the sum of some losses; returns the sum without waiting for the device."""
        self.optimizer.zero_grad()
        total = torch.zeros((), device=self.threads.device)
        for loss in losses:
            total += set_gradients(loss, self.threads)
        return total

    def step(self, rate_factor: float) -> None:
        """Change the weights by their gradients; those without one stay as they are, and so does their momentum."""
        nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        self.optimizer.factor = rate_factor * self.rate_factor
        self.optimizer.step()
        if self.averaged is not None:
            self.averaged.update()

    def is_finite(self) -> bool:
        """Whether all weights are numbers: the last step's gradient may break them without showing in its loss."""
        return bool(torch.stack([value.detach().sum() for value in self._parameters]).isfinite().all())

    def keep(self) -> None:
        """Remember the weights as they are, for `roll_back`."""
        self.kept = copied(self.state())
        self._rollbacks = 0

    def roll_back(self) -> None:
        """Go back to the weights that were kept, at half the learning rate.

        Raises
        ------
        UserError
            After `MAX_ROLLBACKS` in a row.
        """
        self._rollbacks += 1
        if self._rollbacks > MAX_ROLLBACKS:
            raise UserError(
                "the training loss is not finite even at a low learning rate; "
                "check the image for extreme values, or lower --learning-rate"
            )
        self.load_state(copied(self.kept))
        self.rate_factor *= 0.5

    def state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        if self.averaged is not None:
            self.averaged.load_state(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
