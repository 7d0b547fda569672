"""Scores of a network on fixed patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_autosegnet.training.losses import Loss
from napari_autosegnet.training.metrics import ConfusionMatrix
from napari_autosegnet.training.precision import inference_precision
from napari_autosegnet.training.threads import WorkerThreads


def score_network(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    classes: int,
    loss: Loss,
    *,
    batch_size: int,
    threads: WorkerThreads,
) -> tuple[ConfusionMatrix, Tensor]:
    """Confusion matrix and mean loss of a network in eval mode on fixed patches (n, c, y, x) and (n, y, x)."""
    matrix = ConfusionMatrix(classes, images.device)
    annotated = (targets >= 0).sum().clamp_min(1)
    was_training = network.training
    network.eval()

    @torch.no_grad()
    def predict(batch: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        # What is told and compared is what the model will do when it is applied.
        with inference_precision(images.device):
            logits: Tensor = network(batch.contiguous(memory_format=torch.channels_last))
        # The mean over the batch becomes a mean over all: weighted by how much of it is annotated.
        return logits.argmax(dim=1), loss(logits.float(), target) * (target >= 0).sum() / annotated

    batches, parts = torch.split(images, batch_size), torch.split(targets, batch_size)
    total = torch.zeros((), device=images.device)
    for (found, share), target in zip(threads.map(predict, batches, parts), parts, strict=True):
        matrix.add(found, target)
        total += share
    network.train(was_training)
    return matrix, total
