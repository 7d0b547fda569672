"""Which pixels are checked: fixed patches of the validation part."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_autosegnet.data.labeled_stacks import LabeledStack
from napari_autosegnet.data.patches import IGNORE
from napari_autosegnet.data.regions import Region
from napari_autosegnet.data.validation_patches import choose_patches, validation_patches
from small_stacks import AS_IT_IS, full, seeded, stack_of, two_classes

pytestmark = pytest.mark.usefixtures("unlimited_pixels")


def validation(
    stack: LabeledStack,
    regions: list[Region],
    *,
    size: int = 16,
    stride: int = 1,
    limit: int | None = None,
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    images, targets, _ = validation_patches(
        [stack], regions, AS_IT_IS, size=size, stride=stride, limit=limit, generator=seeded(seed), device="cpu"
    )
    return images, targets


@settings(max_examples=40, deadline=None)
@given(height=st.integers(5, 60), width=st.integers(5, 60), size=st.sampled_from([8, 16, 32]))
def test_every_annotated_pixel_counts_once(height: int, width: int, size: int) -> None:
    image = np.arange(height * width, dtype=np.uint16).reshape(1, height, width)
    labels = np.random.default_rng(height).integers(0, 3, (1, height, width), dtype=np.uint8)
    labels[0, 0, :2] = 1, 2
    images, targets = validation(stack_of(image, labels), [full(0, height, width)], size=size)
    seen = images[:, 0][targets != IGNORE].long().numpy()
    np.testing.assert_array_equal(np.sort(seen), np.flatnonzero(labels))
    np.testing.assert_array_equal(labels.ravel()[seen], targets[targets != IGNORE].numpy() + 1)


def test_validation_patches_are_limited_evenly_and_repeat() -> None:
    labels = two_classes(6, 64, 64)
    image = np.stack([np.full((64, 64), z, np.uint8) for z in range(6)])
    stack, regions = stack_of(image, labels), [full(z, 64, 64) for z in range(6)]
    images, targets = validation(stack, regions, limit=12)
    assert images[:, 0, 0, 0].tolist() == [z for z in range(6) for _ in range(2)]
    again = validation(stack, regions, limit=12)
    assert torch.equal(images, again[0]) and torch.equal(targets, again[1])
    assert not torch.equal(targets, validation(stack, regions, limit=12, seed=5)[1])
    assert len(validation(stack, regions, limit=1000)[0]) == 96


def test_small_images_are_shown_whole() -> None:
    # Photographs of 160 pixels and training patches of 128: none is cut into a patch and three strips.
    labels = two_classes(40, 160, 150)
    image = np.random.default_rng(1).integers(0, 255, labels.shape, np.uint8)
    stack, regions = stack_of(image, labels), [full(z, 160, 150) for z in range(40)]
    images, targets = validation(stack, regions, size=128, stride=8)
    assert images.shape == (40, 1, 160, 160)
    np.testing.assert_array_equal(images[:, 0, :, 5:155].numpy(), image)
    np.testing.assert_array_equal(targets[:, :, 5:155].numpy(), labels.astype(int) - 1)
    assert (targets[:, :, :5] == IGNORE).all() and (targets[:, :, 155:] == IGNORE).all()
    # As many pixels as 16 training patches have.
    assert len(validation(stack, regions, size=128, stride=8, limit=16)[0]) == 10
    # A side that the network takes.
    assert validation(stack, regions, size=128, stride=64)[0].shape[-1] == 192


def test_no_tile_is_a_strip() -> None:
    labels = two_classes(1, 300, 260)
    _, targets = validation(stack_of(np.zeros_like(labels), labels), [full(0, 300, 260)], size=128)
    counted = (targets != IGNORE).sum((1, 2))
    assert len(counted) == 9 and counted.sum() == labels.size
    assert counted.min() > 0.8 * counted.max()


def test_patches_are_drawn_by_what_is_annotated() -> None:
    labels = np.zeros((1, 1600, 1600), np.uint8)
    labels[0, :16, :16] = two_classes(16, 16)  # one patch with as much annotation as 64 others have together
    labels[0, 16::16, 5] = 1
    labels[0, 16::16, 21] = 2
    stack = stack_of(np.zeros_like(labels), labels)
    for seed in range(20):
        _, targets = validation(stack, [full(0, 1600, 1600)], limit=8, seed=seed)
        counted = (targets != IGNORE).sum((1, 2))
        assert len(counted) == 8 and int(counted.max()) == 256 and set(targets.unique().tolist()) == {IGNORE, 0, 1}


def test_limited_validation_keeps_every_class() -> None:
    labels = np.ones((10, 64, 64), np.uint8)
    labels[7, 20, 20] = 2
    stack = stack_of(np.zeros_like(labels), labels)
    for seed in range(10):
        _, targets = validation(stack, [full(z, 64, 64) for z in range(10)], limit=4, seed=seed)
        assert np.unique(targets).tolist() == [0, 1] and len(targets) == 4


@settings(max_examples=200, deadline=None)
@given(
    weights=st.lists(st.integers(1, 10**6), min_size=1, max_size=80), limit=st.integers(1, 80), seed=st.integers(0, 99)
)
def test_chosen_patches_are_different_and_spread_by_weight(weights: list[int], limit: int, seed: int) -> None:
    pixels = np.array(weights)[:, None]
    chosen = choose_patches(pixels, limit, seeded(seed))
    assert chosen == sorted(set(chosen)) and len(chosen) == min(len(weights), limit)
    left_out = [index for index in range(len(weights)) if index not in chosen]
    if left_out:
        # What outweighs its share is never left out, and no stretch of more than two shares is.
        assert max(weights[index] for index in left_out) * limit <= sum(weights)
        gaps = np.split(np.arange(len(weights)), chosen)
        assert max(sum(weights[index] for index in gap if index not in chosen) for gap in gaps) * limit < (
            2 * sum(weights) + limit
        )
