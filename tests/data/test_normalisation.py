"""Normalisation constants are those of the training part."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from napari_autosegnet.data.annotations import LabelledStack, pair_stacks
from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.data.normalisation import Normalisation, measure
from napari_autosegnet.data.split import Region
from napari_autosegnet.errors import UserError


def stack_of(image: np.ndarray, channel_axis: int | None = None) -> LabelledStack:
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
    found = Normalisation(mean=(1.0, 2.0), std=(1.0, 4.0)).apply(np.full((6, 2, 2), 10, np.uint8))
    assert found[:, 0, 0].tolist() == [9, 2, 9, 2, 9, 2]
    with pytest.raises(UserError, match="3 channels where 2 are expected"):
        Normalisation(mean=(1.0, 2.0), std=(1.0, 4.0)).apply(np.zeros((3, 2, 2)))


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


def test_constants_are_checked() -> None:
    for mean, std in (((), ()), ((1.0,), (0.0,)), ((1.0,), (1.0, 2.0))):
        with pytest.raises(ValidationError):
            Normalisation(mean=mean, std=std)
