"""Scores patch by patch, and how sure a difference is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from napari_autosegnet.training.losses import make_loss
from napari_autosegnet.training.metrics import ConfusionMatrix
from napari_autosegnet.training.threads import WorkerThreads
from napari_autosegnet.training.validation import PatchScores, paired_interval, score_network


class Constant(nn.Module):
    """Logits that do not depend on the image."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: Tensor) -> Tensor:
        return self.logits[: len(images)]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 100), batch_size=st.integers(1, 5))
def test_counts_are_those_of_a_confusion_matrix(seed: int, batch_size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.rand(1, 3, 6, 5, generator=generator).expand(batch_size, -1, -1, -1)
    targets = torch.randint(-1, 3, (5, 6, 5), generator=generator)
    loss = make_loss("cross_entropy", torch.full((3,), 1 / 3))
    scores = score_network(
        Constant(logits),
        torch.zeros(5, 1, 6, 5),
        targets,
        3,
        loss,
        batch_size=batch_size,
        threads=WorkerThreads(torch.device("cpu")),
    )
    matrix = ConfusionMatrix(3)
    matrix.add(logits[:1].argmax(1).expand(5, -1, -1), targets)
    np.testing.assert_array_equal(scores.counts.sum(0), matrix.counts[:, :3])
    assert scores.counts.sum((1, 2)).tolist() == (targets >= 0).sum((1, 2)).tolist()
    assert scores.iou == matrix.iou and scores.mean_iou == pytest.approx(matrix.mean_iou)
    again = PatchScores.from_state(scores.state())
    assert again.mean_iou == scores.mean_iou and again.loss == scores.loss


def of(right: npt.NDArray[np.int64]) -> PatchScores:
    """Patches of two classes, 100 pixels of each, so many of which are right."""
    counts = np.stack([np.array([[r, 100 - r], [100 - r, r]]) for r in right])
    return PatchScores(counts, 0.0)


def test_a_difference_is_sure_when_it_is_the_same_on_all_patches() -> None:
    generator = np.random.default_rng(0)
    hardness = generator.integers(40, 80, 32)
    low, high = paired_interval(of(hardness + 5), of(hardness))
    # Patches differ far more from each other than the networks do on each of them.
    assert 0 < low < high < 0.1
    low, high = paired_interval(of(hardness + generator.integers(-5, 6, 32)), of(hardness))
    assert low < 0 < high
    assert paired_interval(of(hardness), of(hardness)) == (0.0, 0.0)
