"""Scores of a network on fixed patches, and how sure a difference between two networks is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from napari_autosegnet.training.losses import Loss
from napari_autosegnet.training.metrics import class_iou
from napari_autosegnet.training.precision import inference_precision
from napari_autosegnet.training.threads import WorkerThreads, single_threaded

#: Draws of patches for an interval.
BOOTSTRAP = 2000
#: Fraction of the draws that lie in an interval.
CONFIDENCE = 0.9


@dataclass(frozen=True)
class PatchScores:
    """What a network makes of fixed patches.

    Attributes
    ----------
    counts : ndarray
        ``(n, K, K)`` annotated pixels of each patch by true (rows) and predicted class (columns).
    loss : float
        Mean over all annotated pixels.
    """

    counts: npt.NDArray[np.int64]
    loss: float

    @property
    def iou(self) -> list[float | None]:
        """IoU of each class; None for one that neither occurs nor is predicted."""
        return [None if np.isnan(value) else float(value) for value in class_iou(self.counts.sum(axis=0))]

    @property
    def mean_iou(self) -> float:
        """Mean over the classes that occur or are predicted."""
        return float(np.nanmean(class_iou(self.counts.sum(axis=0))))

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {"counts": torch.from_numpy(self.counts), "loss": self.loss}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> PatchScores:
        return cls(state["counts"].cpu().numpy(), state["loss"])


def pooled(scores: Sequence[PatchScores]) -> PatchScores:
    """Scores of several epochs on the same patches as those of one."""
    counts: npt.NDArray[np.int64] = np.sum([each.counts for each in scores], axis=0)
    return PatchScores(counts, float(np.mean([each.loss for each in scores])))


def paired_interval(ours: PatchScores, theirs: PatchScores) -> tuple[float, float]:
    """Where the difference of two networks' mean IoU lies, by drawing the same patches for both (bootstrap)."""
    return _central(_bootstrapped(ours) - _bootstrapped(theirs))


def interval(scores: PatchScores) -> tuple[float, float]:
    """Where a network's mean IoU lies, by drawing patches (bootstrap)."""
    return _central(_bootstrapped(scores))


def _bootstrapped(scores: PatchScores) -> npt.NDArray[np.float64]:
    """Mean IoU on many draws of the patches; the same draws whoever asks, so that comparisons agree with each other."""
    count = len(scores.counts)
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=BOOTSTRAP)
    means: npt.NDArray[np.float64] = np.nanmean(class_iou(np.einsum("dn,nij->dij", drawn, scores.counts)), axis=-1)
    return means


def _central(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


@single_threaded()
def score_network(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    classes: int,
    loss: Loss,
    *,
    batch_size: int,
    threads: WorkerThreads,
) -> PatchScores:
    """Scores of a network in eval mode on fixed patches (n, c, y, x) and (n, y, x)."""
    annotated = (targets >= 0).sum().clamp_min(1)
    was_training = network.training
    network.eval()

    @torch.no_grad()
    def score(batch: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        # What is reported and compared is what the model will do when it is applied.
        with inference_precision(images.device):
            logits: Tensor = network(batch.contiguous(memory_format=torch.channels_last))
        # The mean over the batch becomes a mean over all: weighted by how much of it is annotated.
        fraction = (target >= 0).sum() / annotated
        return _confusion(logits.argmax(dim=1), target, classes), loss(logits.float(), target) * fraction

    batches, parts = torch.split(images, batch_size), torch.split(targets, batch_size)
    counts, losses = zip(*threads.map(score, batches, parts), strict=True)
    network.train(was_training)
    return PatchScores(torch.cat(counts).cpu().numpy(), float(torch.stack(losses).sum()))


def _confusion(prediction: Tensor, target: Tensor, classes: int) -> Tensor:
    """Pixels (n, K, K) of each patch by true and predicted class, of patches (n, y, x)."""
    patch = torch.arange(len(target), device=target.device)[:, None, None].expand_as(target)
    places = ((patch * classes + target) * classes + prediction)[target >= 0]
    return torch.bincount(places, minlength=len(target) * classes**2).view(-1, classes, classes)
