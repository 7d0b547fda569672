"""Normalization constants are those of the training part, or of each section."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from napari_autosegnet.data.gray_match import GrayScale
from napari_autosegnet.data.gray_values import SectionGray, section_gray
from napari_autosegnet.data.images import image_from_array, open_image
from napari_autosegnet.data.labeled_stacks import LabeledStack, pair_stacks
from napari_autosegnet.data.normalization import LIMIT, Normalization, measure, spread
from napari_autosegnet.data.regions import Region
from napari_autosegnet.data.sample import sample_folder
from napari_autosegnet.errors import UserError


def stack_of(image: np.ndarray, channel_axis: int | None = None) -> LabeledStack:
    shape = image.shape if channel_axis is None else image.shape[1:]
    labels = np.ones(shape, np.uint8)
    labels[..., :2] = 2
    return pair_stacks([image_from_array(image, channel_axis=channel_axis)], [image_from_array(labels)], None)[0]


def test_mean_and_deviation_of_the_regions_alone() -> None:
    image = np.random.default_rng(0).normal([[[[900.0]]], [[[3.0]]]], [[[[40.0]]], [[[0.1]]]], (2, 4, 30, 20))
    regions = [Region(0, 0, (0, 30), (0, 20)), Region(0, 2, (5, 25), (10, 20))]
    found = measure([stack_of(image, 0)], regions)
    inside = np.concatenate([image[:, 0].reshape(2, -1), image[:, 2, 5:25, 10:20].reshape(2, -1)], 1)
    np.testing.assert_allclose(found.mean, inside.mean(1), rtol=1e-12)
    np.testing.assert_allclose(found.std, inside.std(1), rtol=1e-9)
    applied = found.apply(inside)
    assert applied.dtype == np.float32
    np.testing.assert_allclose(applied.mean(1), 0, atol=1e-4)
    np.testing.assert_allclose(applied.std(1), 1, rtol=1e-4)


def test_context_sections_repeat_the_channels() -> None:
    found = Normalization(mean=(1.0, 2.0), std=(1.0, 4.0)).apply(np.full((6, 2, 2), 10, np.uint8))
    assert found[:, 0, 0].tolist() == [9, 2, 9, 2, 9, 2]
    with pytest.raises(UserError, match="3 channels where 2 are expected"):
        Normalization(mean=(1.0, 2.0), std=(1.0, 4.0)).apply(np.zeros((3, 2, 2)))


def test_constant_images_are_refused_and_constant_channels_become_zero() -> None:
    with pytest.raises(UserError, match="constant"):
        measure([stack_of(np.full((1, 8, 8), 7, np.uint8))], [Region(0, 0, (0, 8), (0, 8))])
    image = np.stack([np.full((1, 8, 8), 0.1), np.random.default_rng(0).normal(size=(1, 8, 8))])
    found = measure([stack_of(image, 0)], [Region(0, 0, (0, 8), (0, 8))])
    np.testing.assert_allclose(found.apply(image[:, 0])[0], 0, atol=1e-6)


def test_nan_is_refused() -> None:
    image = np.zeros((2, 8, 8), np.float32)
    image[1, 0, 0] = np.nan
    with pytest.raises(UserError, match="section 1"):
        measure([stack_of(image)], [Region(0, 1, (0, 8), (0, 8))])


def test_each_section_by_its_own_constants() -> None:
    normalization = Normalization(kind="section", mean=(100.0,), std=(20.0,), least_std=(5.0,))
    generator = np.random.default_rng(0)
    sections = [generator.normal(mean, std, (1, 50, 50)) for mean, std in ((10, 6), (3000, 400))]
    for section in sections:
        found = normalization.apply(section, section_gray(section))
        np.testing.assert_allclose((found.mean(), found.std()), (0, 1), atol=1e-5)
    constants = normalization.constants([section_gray(section) for section in sections])
    np.testing.assert_allclose(constants.mean[:, 0], [section.mean() for section in sections])
    assert constants.of([1]).key == constants.of([1, 1, 0]).of([0]).key != constants.of([0]).key
    with pytest.raises(ValueError, match="gray values of every section"):
        normalization.apply(sections[0])


def test_an_empty_section_s_noise_stays_small() -> None:
    normalization = Normalization(kind="section", mean=(100.0,), std=(20.0,), least_std=(5.0,))
    empty = np.random.default_rng(0).normal(200, 1, (1, 50, 50))
    assert normalization.apply(empty, section_gray(empty)).std() == pytest.approx(0.2, rel=0.1)
    # In an image that holds the same in 16 bits, the least deviation is 257 times as large, too.
    constants = normalization.constants([section_gray(empty * 257)], GrayScale(257))
    assert constants.std[0, 0] == pytest.approx(5 * 257)
    flat = np.full((1, 9, 9), 0.1)
    assert not normalization.model_copy(update={"least_std": (0.0,)}).apply(flat, section_gray(flat)).any()


def test_global_constants_follow_the_scale_of_the_image() -> None:
    normalization = Normalization(mean=(100.0, 50.0), std=(20.0, 10.0))
    constants = normalization.constants([None, None], GrayScale(257, -32768))
    np.testing.assert_allclose(constants.mean, [[100 * 257 - 32768, 50 * 257 - 32768]] * 2)
    np.testing.assert_allclose(constants.std, [[20 * 257, 10 * 257]] * 2)


@pytest.mark.parametrize(("dtype", "large"), [(np.uint32, 2**31), (np.int64, 2**40), (np.float64, 2.0**40)])
def test_large_numbers_keep_their_last_digits(dtype: type, large: int) -> None:
    """32 bit floats tell whole numbers apart up to 2^24 only."""
    pixels = (np.arange(10_000).reshape(1, 100, 100) % 7 + large).astype(dtype)
    stack = stack_of(pixels.astype(dtype))
    normalization = measure([stack], [Region(0, 0, (0, 100), (0, 100))])
    small = np.arange(10_000) % 7
    np.testing.assert_allclose(normalization.std, small.std(), rtol=1e-6)
    found = normalization.apply(pixels)
    np.testing.assert_allclose(found.ravel(), (small - small.mean()) / small.std(), atol=2e-4)


def test_hot_pixels_spoil_neither_the_constants_nor_what_a_network_sees() -> None:
    image = np.random.default_rng(0).normal(120, 30, (2, 64, 64)).astype(np.float32)
    regions = [Region(0, section, (0, 64), (0, 64)) for section in range(2)]
    clean = measure([stack_of(image)], regions)
    image[0, 5, 7], image[1, 60, 3] = 1e30, -3e38
    found = measure([stack_of(image)], regions)
    np.testing.assert_allclose((found.mean, found.std), (clean.mean, clean.std), rtol=1e-3)
    applied = found.apply(image[np.newaxis, 0])
    assert applied[0, 5, 7] == LIMIT and np.abs(np.delete(applied.ravel(), 5 * 64 + 7)).max() < 6


def test_no_pixel_of_the_sample_is_near_the_limit() -> None:
    for name in ("axon-sem-a.png", "axon-sem-b.png"):
        section = open_image(sample_folder() / name).section(0)
        normalization = Normalization(kind="section", mean=(0.0,), std=(1.0,))
        assert np.abs(normalization.apply(section, section_gray(section))).max() < LIMIT / 10


def test_what_is_no_number_counts_as_the_mean() -> None:
    pixels = np.array([[[np.nan, np.inf, -np.inf, 130.0]]])
    normalization = Normalization(mean=(100.0,), std=(10.0,))
    assert normalization.apply(pixels)[0, 0].tolist() == [0, 0, 0, 3]
    assert normalization.apply(pixels.astype(np.float32))[0, 0].tolist() == [0, 0, 0, 3]
    assert normalization.apply(np.array([[[1e39, 100.0]]]))[0, 0].tolist() == [0, 0]  # no number in 32 bits


def test_how_much_sections_differ() -> None:
    def gray(mean: float, std: float) -> SectionGray:
        return SectionGray((mean,), (std,), (mean - std,), (mean + std,), pixels=9, constant=False)

    assert spread([gray(100, 20)]) == spread([gray(100, 20)] * 5) == 0
    generator = np.random.default_rng(0)
    means, contrasts = generator.normal(100, 10, 400), 20 * np.exp(generator.normal(0, 0.5, 400))
    assert spread([gray(mean, 20) for mean in means]) == pytest.approx(0.5, rel=0.1)
    assert spread([gray(100, std) for std in contrasts]) == pytest.approx(0.5, rel=0.1)
    odd = [gray(5000, 20), gray(100, 1e-9), gray(100, 0), gray(0, 900)]
    assert spread([gray(100, 20)] * 30 + odd) == 0


def test_constants_are_checked() -> None:
    for mean, std in (((), ()), ((1.0,), (0.0,)), ((1.0,), (1.0, 2.0))):
        with pytest.raises(ValidationError):
            Normalization(mean=mean, std=std)
