"""Limits that a user sets on the network that is trained in the end: how large it is, and how long it takes."""

from __future__ import annotations

import torch

from napari_autosegnet.architecture import Architecture
from napari_autosegnet.errors import UserError
from napari_autosegnet.networks.specification import NetworkSpecification, parameter_count
from napari_autosegnet.search.latency import measured_latencies


class Limits:
    """Tells whether an architecture, built as it will be trained, keeps to what the user allows.

    Parameters
    ----------
    specification : NetworkSpecification
        Of the network that will be trained; its architecture does not matter.
    device : torch.device
        What the latency is measured on.
    max_parameters : int, optional
        Most trainable values.
    max_latency : float, optional
        Most milliseconds for 512 x 512 pixels.
    """

    def __init__(
        self,
        specification: NetworkSpecification,
        device: torch.device,
        *,
        max_parameters: int | None = None,
        max_latency: float | None = None,
    ) -> None:
        self.specification = specification
        self.device = device
        self.max_parameters = max_parameters
        self.max_latency = max_latency
        self._parameters: dict[Architecture, int] = {}
        self._latencies: dict[Architecture, float] = {}

    def is_small_enough(self, architecture: Architecture) -> bool:
        """Whether it has no more trainable values than allowed; quick to tell."""
        return self.max_parameters is None or self.parameters(architecture) <= self.max_parameters

    def is_fast_enough(self, architecture: Architecture) -> bool:
        """Whether it takes no longer than allowed; takes some passes of the network to tell."""
        return self.max_latency is None or self.latency(architecture) <= self.max_latency

    def parameters(self, architecture: Architecture) -> int:
        """Trainable values of the network."""
        if architecture not in self._parameters:
            with torch.device("meta"):  # counted without memory for them
                network = self.specification.build_searched(architecture)
            self._parameters[architecture] = parameter_count(network)
        return self._parameters[architecture]

    def latency(self, architecture: Architecture) -> float:
        """Milliseconds of a forward pass of 512 x 512 pixels, measured once."""
        if architecture not in self._latencies:
            specification = self.specification.model_copy(update={"architecture": architecture})
            [self._latencies[architecture]] = measured_latencies([specification], self.device)
        return self._latencies[architecture]

    def refusal(self) -> UserError:
        """What to say when nothing that was looked at keeps to the limits."""
        tried = self._parameters.keys() | self._latencies.keys()
        words = []
        if self.max_parameters is not None:
            smallest = min(self._parameters.values())
            words.append(f"--max-parameters {self.max_parameters} (the smallest has {smallest})")
        if self.max_latency is not None and self._latencies:
            fastest = min(self._latencies.values())
            words.append(f"--max-latency {self.max_latency:g} (the fastest that was measured takes {fastest:.0f} ms)")
        return UserError(
            f"none of {len(tried)} networks keeps to {' and '.join(words)}; allow more, or choose a smaller preset"
        )
