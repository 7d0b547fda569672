"""Gray values of sections: plain mean and deviation, unless there are hot pixels, padding or NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from napari_autosegnet.data.gray_values import (
    MAX_PIXELS,
    OneValue,
    SectionGray,
    gray_of_windows,
    has_one_value,
    sample_windows,
    section_gray,
)
from napari_autosegnet.data.images import open_image
from napari_autosegnet.data.sample import sample_folder


def textured(*shape: int, seed: int = 0) -> np.ndarray:
    """Smooth gray values with grain, as float64 of about 120 +- 40."""
    generator = np.random.default_rng(seed)
    coarse = generator.normal(size=(*shape[:-2], -(-shape[-2] // 16), -(-shape[-1] // 16)))
    smooth = coarse.repeat(16, -2).repeat(16, -1)[..., : shape[-2], : shape[-1]]
    return 120 + 30 * smooth + 25 * generator.normal(size=shape)


def assert_plain(found: SectionGray, pixels: np.ndarray) -> None:
    values = pixels.reshape(len(pixels), -1).astype(np.float64)
    np.testing.assert_allclose(found.mean, values.mean(1), rtol=1e-12)
    np.testing.assert_allclose(found.std, values.std(1), rtol=1e-9)
    assert found.pixels == values.shape[1] and not found.constant


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.uint32, np.float32, np.float64])
def test_ordinary_images_have_their_plain_mean_and_deviation(dtype: Any) -> None:
    pixels = np.clip(textured(2, 200, 150), 0, 255).astype(dtype)
    assert_plain(section_gray(pixels), pixels)
    for name in ("axon-sem-a.png", "axon-sem-b.png"):
        section = open_image(sample_folder() / name).section(0).astype(dtype)
        assert_plain(section_gray(section), section)


def test_blobs_on_black_are_no_hot_pixels() -> None:
    """A few bright objects decide the mean of a fluorescence image; they are 0.2 % of it."""
    pixels = np.random.default_rng(0).normal(10, 1, (1, 256, 256))
    pixels[0, 100:111, 50:62] = 250
    assert_plain(section_gray(pixels), pixels)


@pytest.mark.parametrize("value", [1e30, -1e30, 1e300, 1e6, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("count", [1, 5, 40])
def test_hot_pixels_change_nothing(value: float, count: int) -> None:
    pixels = textured(1, 256, 256)
    clean = section_gray(pixels)
    pixels.reshape(-1)[np.random.default_rng(1).choice(pixels.size, count, replace=False)] = value
    found = section_gray(pixels)
    np.testing.assert_allclose((found.mean, found.std), (clean.mean, clean.std), rtol=2e-3)
    assert found.pixels == pixels.size - (0 if np.isfinite(value) else count)


def test_a_hot_pixel_of_16_bits_changes_nothing() -> None:
    pixels = textured(1, 256, 256).clip(0).astype(np.uint16)
    clean = section_gray(pixels)
    pixels[0, 3, 4] = 65535
    np.testing.assert_allclose(section_gray(pixels).std, clean.std, rtol=1e-3)


@pytest.mark.parametrize("padding", [0, 255])
def test_padding_counts_little(padding: int) -> None:
    """Aligned sections lie turned in their frame; what is around them has one value."""
    pixels = textured(1, 512, 512).clip(1, 254).astype(np.uint8)
    inside = section_gray(pixels)
    y, x = np.mgrid[:512, :512]
    pixels[0, (y + x < 300) | (y - x > 250)] = padding
    found = section_gray(pixels)
    plain = pixels.astype(float)
    assert abs(plain.mean() - inside.mean[0]) > 15
    assert abs(found.mean[0] - inside.mean[0]) < 3 and abs(found.std[0] - inside.std[0]) < 3


def test_a_channel_without_signal_is_no_padding() -> None:
    pixels = np.stack([textured(64, 64), np.zeros((64, 64))])
    found = section_gray(pixels)
    assert found.pixels == 64 * 64 and found.mean[1] == found.std[1] == 0 and not found.constant


def test_nothing_but_padding_is_all_there_is() -> None:
    pixels = np.zeros((1, 64, 64), np.uint8)
    pixels[:, :, 32:] = 100
    found = section_gray(pixels)
    assert found.mean == (50.0,) and found.std == (50.0,) and not found.constant


def test_no_number_at_all() -> None:
    found = section_gray(np.full((2, 40, 40), np.nan, np.float32))
    assert (found.mean, found.std, found.pixels, found.constant) == ((0.0, 0.0), (0.0, 0.0), 0, False)


def lone_pixel(pixels: np.ndarray) -> None:
    pixels[-1, 2001, 17] += 1  # in no window that is sampled


def edge(pixels: np.ndarray) -> None:
    pixels[:, 0, 0] += 1


def noise(pixels: np.ndarray) -> None:
    pixels += np.random.default_rng(0).integers(0, 2, pixels.shape).astype(pixels.dtype)


def nan_beside(pixels: np.ndarray) -> None:
    if pixels.dtype.kind == "f":
        pixels[:, :1500] = np.nan


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(
    ("change", "constant"),
    [(None, True), (nan_beside, True), (lone_pixel, False), (edge, False), (noise, False)],
)
def test_only_sections_of_one_value_throughout_are_constant(
    dtype: Any, change: Callable[[np.ndarray], None] | None, constant: bool
) -> None:
    pixels = np.full((2, 2100, 1900), 7, dtype)
    assert pixels[0].size > MAX_PIXELS and len(sample_windows(2100, 1900)) > 1
    pixels[1] = 9  # another value in the other channel
    if change is not None:
        change(pixels)
    assert section_gray(pixels).constant == constant


def test_windows_lie_evenly_over_large_sections_and_cover_small_ones() -> None:
    assert sample_windows(1024, 1024) == [(slice(0, 1024), slice(0, 1024))]
    for height, width in ((1025, 1025), (30_000, 40_000), (130, 10**6), (10**6, 7)):
        windows = sample_windows(height, width)
        inside = np.array([[y.start, y.stop, x.start, x.stop] for y, x in windows])
        assert inside.min() >= 0 and inside[:, 1].max() <= height and inside[:, 3].max() <= width
        pixels = sum((y.stop - y.start) * (x.stop - x.start) for y, x in windows)
        assert MAX_PIXELS / 3 < pixels <= MAX_PIXELS
        assert len({tuple(row) for row in inside.tolist()}) == len(windows)
        middle = inside[:, [0, 2]].mean(0) + np.minimum([height, width], 128) / 2
        np.testing.assert_allclose(middle, [height / 2, width / 2], rtol=0.02, atol=1)


def test_a_sample_comes_near_the_whole() -> None:
    pixels = textured(1, 3000, 2500).astype(np.float32)
    found = section_gray(pixels)
    assert found.pixels <= MAX_PIXELS
    assert abs(found.mean[0] - pixels.mean()) < 0.05 * pixels.std()
    assert abs(found.std[0] / pixels.std() - 1) < 0.05
    windows = [pixels[:, y, x] for y, x in sample_windows(3000, 2500)]
    assert gray_of_windows(windows) == found


def test_one_value_seen_part_by_part() -> None:
    seen = OneValue()
    assert not seen.holds
    assert seen.see(np.full((1, 2, 2), np.nan)) and not seen.holds
    assert seen.see(np.full((1, 2, 2), 3.0)) and seen.holds
    assert not seen.see(np.full((1, 1, 1), 4.0)) and not seen.holds
    assert not seen.see(np.full((1, 1, 1), 3.0))
    assert not has_one_value([]) and has_one_value([np.full((2, 1, 1), 5)])
