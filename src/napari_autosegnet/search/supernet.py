"""The supernet: one set of weights shared by every architecture (the paper's validation network)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_autosegnet.architecture import Architecture, SearchSpace
from napari_autosegnet.data.validation_patches import choose_patches
from napari_autosegnet.networks.layers import SearchedLayer
from napari_autosegnet.networks.segmentation import SegmentationNetwork
from napari_autosegnet.networks.specification import NetworkSpecification
from napari_autosegnet.settings import SearchSettings
from napari_autosegnet.training.learner import Learner
from napari_autosegnet.training.losses import Loss
from napari_autosegnet.training.metrics import ConfusionMatrix
from napari_autosegnet.training.precision import training_precision
from napari_autosegnet.training.threads import WorkerThreads, single_threaded


class Supernet:
    """Shared weights, their training, and the rating of architectures with them.

    Parameters
    ----------
    space : SearchSpace
    specification : NetworkSpecification
        Size of the network; its architecture, if any, is not used.
    settings : SearchSettings
    images, targets : Tensor
        Fixed validation patches (n, c, y, x) and (n, y, x) that rewards are measured on, on the device.
    loss : callable
        What the shared weights minimize; see `training.losses.make_loss`.
    """

    def __init__(
        self,
        space: SearchSpace,
        specification: NetworkSpecification,
        settings: SearchSettings,
        images: Tensor,
        targets: Tensor,
        loss: Loss,
    ) -> None:
        self.device = images.device
        self.loss = loss
        self.settings = settings
        self.classes = specification.classes
        #: Validation patches of which a reward is measured: as many pixels as the settings say, in training patches.
        self.reward_patches = max(1, settings.reward_patches * settings.patch_size**2 // targets[0].numel())
        # They are the first ones, which are to be spread over all and to show every class.
        order = self._spread_first(targets)
        self.images = images[order].contiguous(memory_format=torch.channels_last)
        self.targets = targets[order]
        self.threads = WorkerThreads(self.device)
        self.learner = Learner(specification.build_searched(space), settings.optimization, self.threads)
        self._ratings: dict[tuple[Architecture, int], float] = {}

    def _spread_first(self, targets: Tensor) -> list[int]:
        """Order of the validation patches: those for rewards, then the others."""
        pixels = np.stack([np.bincount(t.ravel() + 1, minlength=self.classes + 1)[1:] for t in targets.cpu().numpy()])
        generator = torch.Generator().manual_seed(self.settings.seed)
        first = choose_patches(pixels, self.reward_patches, generator)
        return first + sorted(set(range(len(pixels))) - set(first))

    @single_threaded()
    def train_step(self, images: Tensor, targets: Tensor, architecture: Architecture, rate_factor: float) -> Tensor:
        """One step of the weights that the architecture uses; returns the loss without waiting for it."""
        self._ratings.clear()

        def loss() -> Tensor:
            with training_precision(self.device):
                logits = self.learner.network(images.contiguous(memory_format=torch.channels_last), architecture)
            return self.loss(logits.float(), targets)

        # Weights of other architectures have no gradient, so a step leaves them and their momentum alone.
        total = self.learner.set_gradients([loss])
        self.learner.step(rate_factor)
        return total

    @torch.no_grad()
    def inherit_weights(self, network: SegmentationNetwork) -> None:
        """Give a derived network the shared weights of its architecture; it gathers batch norm statistics itself."""
        shared, own = self.learner.current.state_dict(), network.state_dict()
        layers = {name: part for name, part in network.named_modules() if isinstance(part, SearchedLayer)}
        for name, value in own.items():
            if name not in shared:
                continue  # batch norm statistics, which the supernet has none of
            weights = shared[name]
            layer = layers.get(name.removesuffix(".output.weight"))
            if layer is not None:  # only the columns of the cells that this architecture leaves open
                weights = layer.columns(weights, layer.loose)
            value.copy_(weights)

    @single_threaded()
    def rate(self, architecture: Architecture, *, patches: int | None = None) -> float:
        """Mean IoU of a child on the first ``patches`` validation patches with the shared weights as they are.

        Batch norm uses the statistics of these patches, so the rating does not depend on which
        child was trained last. Equal architectures are rated once for the same weights.
        """
        count = len(self.images) if patches is None else min(patches, len(self.images))
        if (architecture, count) in self._ratings:
            return self._ratings[architecture, count]
        matrix = ConfusionMatrix(self.classes, self.device)

        @torch.no_grad()
        def predict(batch: Tensor) -> Tensor:
            with training_precision(self.device):
                logits: Tensor = self.learner.current(batch, architecture)
            return logits.argmax(dim=1)

        batches = torch.split(self.images[:count], self.settings.batch_size)
        targets = torch.split(self.targets[:count], self.settings.batch_size)
        for predicted, target in zip(self.threads.map(predict, batches), targets, strict=True):
            matrix.add(predicted, target)
        self._ratings[architecture, count] = matrix.mean_iou
        return self._ratings[architecture, count]

    def roll_back(self) -> None:
        """Go back to the weights that were kept, at half the learning rate; see `Learner.roll_back`."""
        self.learner.roll_back()
        self._ratings.clear()

    def load_state(self, state: dict[str, Any]) -> None:
        self.learner.load_state(state)
        self._ratings.clear()
