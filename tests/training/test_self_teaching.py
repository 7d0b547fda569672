"""A network's own labels take the place of a forest's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from napari_autosegnet.data.normalization import Normalization
from napari_autosegnet.data.patches import PatchSource
from napari_autosegnet.training.patches_ahead import TeachableStream
from napari_autosegnet.training.self_teaching import SURE, self_taught, teaches_itself
from napari_autosegnet.training.threads import WorkerThreads
from small_stacks import full, seeded, stack_of

UseThreads = Callable[[int], None]
NORMALIZATION = Normalization(mean=(0.0,), std=(100.0,))


class Brightness(nn.Module):
    """Dark below 1 and bright above 2, sure of it; undecided in between."""

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training and not torch.is_grad_enabled()
        sure = (images > 2).float() - (images < 1).float()
        odds = torch.logit(torch.tensor(SURE)) + 0.1
        return torch.cat([-sure, sure], dim=1) * odds / 2


def painted() -> tuple[PatchSource, np.ndarray, np.ndarray]:
    """A source with its image and labels (y, x): smooth gray values, a corner painted against what they say."""
    image = np.add.outer(np.arange(90) * 2, np.arange(70)).astype(np.uint8)
    labels = np.zeros_like(image)
    labels[:4, :8], labels[-4:, -8:] = 2, 1
    regions = [full(0, 90, 70)]
    source = PatchSource(
        [stack_of(image[None], labels[None])], regions, NORMALIZATION, size=16, augmentation=None, device="cpu",
        taught=[np.full(image.shape, 1, np.uint8)],
    )  # fmt: skip
    return source, image, labels


def taught(source: TeachableStream) -> np.ndarray:
    """What is painted (1, 2) and taught (3, 4), by pixel."""
    assert isinstance(source, PatchSource)
    return source.regions[0].target.numpy()


@pytest.mark.parametrize("threads", [1, 2])
def test_it_is_taught_where_it_is_sure_and_nobody_painted(threads: int, use_threads: UseThreads) -> None:
    use_threads(threads)
    source, image, labels = painted()
    network = Brightness().train()
    found = self_taught(source, network, seed=0, threads=WorkerThreads(torch.device("cpu")))
    own = np.where(image > 200, 4, np.where(image < 100, 3, 0))
    np.testing.assert_array_equal(taught(found), np.where(labels > 0, labels, own))
    assert network.training
    np.testing.assert_array_equal(taught(source), np.where(labels > 0, labels, 3), "the forest's are left as they were")
    images, targets = found.sample(200, seeded())
    assert (targets[images[:, 0] > 2] != 2).all() and (targets == 3).any()


def test_of_large_images_other_parts_are_taught_each_time() -> None:
    source, image, labels = painted()
    own = np.where(image > 200, 4, np.where(image < 100, 3, 0))
    threads = WorkerThreads(torch.device("cpu"))
    seen = []
    for seed in (0, 1, 1):
        found = taught(self_taught(source, Brightness(), seed=seed, threads=threads, most=1))
        part = (found > 2) & (labels == 0)
        assert 0 < part.sum() < (own > 0).sum() and (found[part] == own[part]).all()
        seen.append(part)
    assert (seen[0] != seen[1]).any() and (seen[1] == seen[2]).all()


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([], False),
        ([0.9, 0.8], False),
        ([0.9, 0.8, 0.7], True),
        ([0.9, 0.8, 0.7, 2.0], True),  # one epoch says little
        ([0.9, 0.8, 0.7, 0.9, 0.7], True),
        ([0.1, 0.8, 0.7, 0.9, 0.8], False),
        ([0.9, 0.8, 0.7, 0.9, 0.8, 0.1, 0.1], False),  # what the forest made of it afterwards
    ],
)
def test_it_stops_when_what_is_held_out_gets_worse(losses: list[float], expected: bool) -> None:
    assert teaches_itself(losses) is expected
