"""A moving average of a network's weights, which is better than the weights of any one step."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from napari_autosegnet.training.checkpoints import copied


class AveragedWeights:
    """Exponential moving average of a network's weights and batch norm statistics.

    The first steps are forgotten sooner, so that short trainings profit too. Unlike torch's
    `AveragedModel` it counts its steps on the host, so that an update does not wait for the device.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay
        self.steps = 0
        # Collected once: there are hundreds, and that takes longer than averaging them.
        self._averaged, self._current = (
            [value for value in each.state_dict().values() if value.is_floating_point()]
            for each in (self.network, network)
        )

    @torch.no_grad()
    def update(self) -> None:
        """Take the network's weights, as they are now, into the average."""
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps)) if self.steps else 1.0
        torch._foreach_lerp_(self._averaged, self._current, weight)
        self.steps += 1

    def state(self) -> dict[str, Any]:
        return {"network": copied(self.network.state_dict()), "steps": self.steps}

    def load_state(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.steps = state["steps"]
