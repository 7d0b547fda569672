"""Batch-wise random changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from napari_autosegnet.data.augmentation import (
    blur,
    canvas_size,
    change_gray_values,
    is_exact,
    turn,
    warp,
    warp_grid,
)
from napari_autosegnet.settings import AugmentationSettings

CPU = torch.device("cpu")
NOTHING = AugmentationSettings(
    flips=False, rotation="none", scale=0, elastic=0, contrast=0, brightness=0, noise=0, blur=0
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def only(**settings: object) -> AugmentationSettings:
    return AugmentationSettings.model_validate({**NOTHING.model_dump(), **settings})


def test_exact_is_flips_and_quarter_turns() -> None:
    assert is_exact(NOTHING) and is_exact(only(flips=True, rotation="quarter", noise=1, blur=1))
    assert not any(
        is_exact(only(**{name: value})) for name, value in [("rotation", "any"), ("scale", 0.1), ("elastic", 1)]
    )
    assert canvas_size(64, NOTHING) == 64


def test_a_warp_by_nothing_changes_nothing() -> None:
    settings = only(elastic=1e-9)
    side = canvas_size(20, settings)
    images, targets = torch.rand(3, 2, side, side), torch.randint(0, 5, (3, side, side), dtype=torch.uint8)
    grid = warp_grid(3, 20, side, settings, seeded(), CPU)
    warped, picked = warp(images, targets, grid)
    margin = (side - 20) // 2
    inner = slice(margin, margin + 20)
    torch.testing.assert_close(warped, images[:, :, inner, inner], atol=1e-5, rtol=0)
    assert torch.equal(picked, targets[:, inner, inner])


@pytest.mark.parametrize("seed", range(6))
def test_warped_quarter_turns_and_flips_are_exact_ones(seed: int) -> None:
    settings = only(flips=True, rotation="quarter", elastic=1e-9)
    side = canvas_size(16, settings)
    images, targets = torch.rand(4, 1, side, side), torch.randint(0, 9, (4, side, side), dtype=torch.uint8)
    warped, picked = warp(images, targets, warp_grid(4, 16, side, settings, seeded(seed), CPU))
    margin = (side - 16) // 2
    inner = slice(margin, margin + 16)
    for i in range(4):
        ways = [(quarter, flip, False) for quarter in range(4) for flip in (False, True)]
        same = [way for way in ways if torch.equal(turn(targets[i, inner, inner], *way), picked[i])]
        assert len(same) == 1
        torch.testing.assert_close(turn(images[i, :, inner, inner], *same[0]), warped[i], atol=1e-4, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(8, 70),
    scale=st.floats(0, 0.5),
    elastic=st.floats(0, 5),
    rotation=st.sampled_from(["none", "quarter", "any"]),
    seed=st.integers(0, 2**31),
)
def test_nothing_is_read_beyond_the_canvas(size: int, scale: float, elastic: float, rotation: str, seed: int) -> None:
    settings = only(flips=True, rotation=rotation, scale=scale, elastic=elastic)
    side = canvas_size(size, settings)
    assert (side - size) % 2 == 0
    grid = warp_grid(8, size, side, settings, seeded(seed), CPU)
    if not is_exact(settings):  # all sixteen neighbors of every point lie within
        pixel = (grid + 1) * (side / 2) - 0.5
        assert pixel.min() >= 1 and pixel.max() <= side - 2


def test_noise_is_not_smoothed_away() -> None:
    settings = only(rotation="any", scale=0.1, elastic=2)
    side = canvas_size(64, settings)
    noise = torch.randn(16, 1, side, side, generator=seeded())
    warped, _ = warp(
        noise, torch.ones(16, side, side, dtype=torch.uint8), warp_grid(16, 64, side, settings, seeded(), CPU)
    )
    assert warped.std() > 0.85  # 0.67 if it were read bilinearly


def test_image_and_target_move_together() -> None:
    settings = AugmentationSettings()
    side = canvas_size(64, settings)
    steps = torch.arange(side)
    target = ((steps[:, None] // 24 + steps // 24) % 2).to(torch.uint8).expand(4, side, side)
    warped, picked = warp(target[:, None].float(), target, warp_grid(4, 64, side, settings, seeded(), CPU))
    assert ((warped[:, 0] > 0.5) == (picked > 0)).float().mean() > 0.99
    assert not torch.equal(picked[0], picked[1])


def test_zoom_and_elastic_stay_in_bounds() -> None:
    side = canvas_size(64, only(scale=0.2))
    grid = warp_grid(200, 64, side, only(scale=0.2), seeded(), CPU) * side / 2
    width = (grid[:, 32, -1, 0] - grid[:, 32, 0, 0]) / 63
    assert 1 / 1.2 <= width.min() < 0.87 and 1.2 < width.max() <= 1.25 + 1e-4
    side = canvas_size(64, only(elastic=3))
    moved = warp_grid(50, 64, side, only(elastic=3), seeded(), CPU) * side / 2
    still = warp_grid(50, 64, side, NOTHING, seeded(), CPU) * side / 2
    shift = moved - still
    assert 1.5 < shift.abs().max() <= 3 + 1e-4
    assert shift.diff(dim=1).abs().max() < 0.5  # smooth


def test_blur_is_gaussian() -> None:
    images = torch.rand(3, 2, 40, 30)
    sigmas = torch.tensor([0.0, 0.6, 1.2])
    found = blur(images, sigmas, largest=1.5).numpy()
    np.testing.assert_allclose(found[0], images[0].numpy(), atol=1e-6)
    for index in (1, 2):
        sigma = float(sigmas[index])
        expected = gaussian_filter(images[index].numpy(), (0, sigma, sigma), mode="mirror", truncate=4 / sigma)
        np.testing.assert_allclose(found[index], expected, atol=2e-3)


def test_gray_values_change_by_what_is_asked() -> None:
    images = torch.randn(64, 1, 16, 16)
    assert torch.equal(change_gray_values(images, NOTHING, seeded()), images)
    shift = change_gray_values(images, only(brightness=0.3), seeded()) - images
    assert shift.std((1, 2, 3)).max() < 1e-6 and 0.25 < shift.abs().max() <= 0.3 + 1e-6
    factor = change_gray_values(images, only(contrast=0.2), seeded()) / images
    assert factor.min() >= 0.8 - 1e-3 and factor.max() <= 1.2 + 1e-3 and factor.std() > 0.05
    noise = (change_gray_values(images, only(noise=0.1), seeded()) - images).std((1, 2, 3))
    assert 0.05 < noise.max() <= 0.12 and noise.min() < 0.03


def test_a_seed_repeats_and_inputs_are_left_alone() -> None:
    images = torch.randn(4, 2, 32, 32)
    before = images.clone()
    first, second = (change_gray_values(images, AugmentationSettings(), seeded(3)) for _ in range(2))
    assert torch.equal(first, second) and not torch.equal(first, images)
    assert torch.equal(images, before)
