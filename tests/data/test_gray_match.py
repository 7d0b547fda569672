"""Images in another range than the model's: told, adapted or refused, and no false warning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from napari_autosegnet.data.gray_match import (
    AS_IS,
    GrayScale,
    GrayValues,
    Mismatch,
    match,
    scale_in_words,
    unlike_in_words,
)
from napari_autosegnet.data.gray_values import section_gray
from napari_autosegnet.data.images import open_image
from napari_autosegnet.data.sample import sample_folder


def sample(name: str) -> np.ndarray:
    return open_image(sample_folder() / f"axon-sem-{name}.png").section(0)


@pytest.fixture(scope="module")
def seen() -> GrayValues:
    """Of a model that learned from the sample's image a."""
    return GrayValues.of([section_gray(sample("a"))], np.uint8)


def step_of(pixels: np.ndarray) -> int:
    return int(np.gcd.reduce(pixels.ravel().astype(np.int64))) if pixels.dtype.kind in "ui" else 1


def judged(seen: GrayValues, pixels: np.ndarray) -> GrayScale | Mismatch:
    return match(seen, [section_gray(pixels)], pixels.dtype, step=step_of(pixels))


def as_type(dtype: Any, factor: float = 1, offset: float = 0) -> Callable[[np.ndarray], np.ndarray]:
    return lambda pixels: (pixels.astype(np.float64) * factor + offset).astype(dtype)


@pytest.mark.parametrize(
    ("written", "scale"),
    [
        (as_type(np.uint16, 257), GrayScale(257)),
        (as_type(np.uint16, 256), GrayScale(256)),
        (as_type(np.uint16, 16), GrayScale(16)),
        (as_type(np.uint16, 4), GrayScale(4)),
        (as_type(np.uint32, 2.0**16), GrayScale(2.0**16)),
        (as_type(np.int16, 128), GrayScale(128)),
        (as_type(np.int16, 257, -32768), GrayScale(257, -32768)),
        (as_type(np.int16, 1, -128), GrayScale(1, -128)),
        (as_type(np.int8, 1, -128), GrayScale(1, -128)),
        (as_type(np.float32, 1 / 255), GrayScale(1 / 255)),
        (as_type(np.float64, 1 / 255), GrayScale(1 / 255)),
        (as_type(np.float32, 257), GrayScale(257)),
        (as_type(np.uint16), AS_IS),
        (as_type(np.int64), AS_IS),
        (as_type(np.float32), AS_IS),
    ],
)
def test_the_same_picture_in_another_type_is_told(
    seen: GrayValues, written: Callable[[np.ndarray], np.ndarray], scale: GrayScale
) -> None:
    found = judged(seen, written(sample("b")))
    assert isinstance(found, GrayScale)
    assert (found.factor, found.offset) == pytest.approx((scale.factor, scale.offset))


def test_the_other_way_round() -> None:
    picture = sample("b")
    for dtype, factor in ((np.uint16, 257.0), (np.float32, 1 / 255)):
        seen = GrayValues.of([section_gray(as_type(dtype, factor)(sample("a")))], dtype)
        found = judged(seen, picture)
        assert isinstance(found, GrayScale) and found.factor == pytest.approx(1 / factor)
    floats = GrayValues.of([section_gray(as_type(np.float32, 1 / 255)(sample("a")))], np.float32)
    found = judged(floats, picture.astype(np.float32))
    assert isinstance(found, GrayScale) and found.factor == pytest.approx(255)


def test_other_bits_of_a_camera_are_told_by_mean_and_deviation(seen: GrayValues) -> None:
    """12 bits have values between those of 8: nothing but mean and contrast tells them."""
    twelve = sample("b").astype(np.uint16) * 16 + np.random.default_rng(0).integers(0, 16, (1, 512, 512)).astype(
        np.uint16
    )
    assert step_of(twelve) == 1 and judged(seen, twelve) == GrayScale(16)


@pytest.mark.parametrize(
    "strange",
    [
        lambda b: ((b - b.mean()) / b.std()).astype(np.float32),
        lambda b: b.astype(np.float32) * 1000 + 5e6,
        lambda b: (b.astype(np.uint16) // 20 + 60_000).astype(np.uint16),
        # Divided by 64 it has the contrast and nearly the mean, but values below 0.
        lambda b: b.astype(np.int16) * 64 - 8000,
    ],
)
def test_what_is_far_from_all_that_was_seen_is_refused(
    seen: GrayValues, strange: Callable[[np.ndarray], np.ndarray]
) -> None:
    found = judged(seen, strange(sample("b")))
    assert isinstance(found, Mismatch)
    assert "but the model was trained on uint8, mean 144.3, deviation 53.87" in found.text and "\n" not in found.text


@pytest.mark.parametrize(
    "like",
    [
        lambda b: b,
        lambda b: b // 2,
        lambda b: np.clip(b * 1.4 + 20, 0, 255).astype(np.uint8),
        lambda b: 255 - b,
        lambda b: np.where(np.arange(512) < 40, b, 250 + (b & 3)).astype(np.uint8),  # nearly all resin
        lambda b: np.where(np.arange(512) < 40, b, b & 3).astype(np.uint8),
        lambda b: b // 4 * 4,
        lambda b: np.zeros_like(b),
        lambda b: b & 1,
    ],
)
def test_other_exposures_and_empty_regions_are_no_alarm(
    seen: GrayValues, like: Callable[[np.ndarray], np.ndarray]
) -> None:
    assert judged(seen, like(sample("b"))) == AS_IS


def test_another_exposure_is_told(seen: GrayValues) -> None:
    picture = sample("b")
    assert unlike_in_words(seen, [section_gray(picture)]) is None
    assert unlike_in_words(seen, [section_gray(np.zeros_like(picture))]) is None
    told = unlike_in_words(seen, [section_gray(picture // 2)])
    assert told is not None and "deviations from those that the model has learned from (mean 144.3" in told


def test_no_crop_of_the_sample_is_an_alarm(seen: GrayValues) -> None:
    picture = sample("b")
    for y in range(0, 512, 64):
        for x in range(0, 512, 64):
            crop = picture[:, y : y + 64, x : x + 64]
            assert judged(seen, crop) == AS_IS
            assert judged(seen, crop.astype(np.uint16) * 257) == GrayScale(257)


def test_some_odd_sections_decide_nothing(seen: GrayValues) -> None:
    picture = section_gray(sample("b"))
    dark = section_gray(np.random.default_rng(0).integers(0, 3, (1, 64, 64)).astype(np.uint8))
    empty = section_gray(np.zeros((1, 64, 64), np.uint8))
    assert match(seen, [dark, picture, empty, picture], np.uint16) == AS_IS
    assert match(seen, [], np.uint16) == AS_IS == match(seen, [empty], np.float32)


def test_a_channel_that_was_constant_in_training_says_nothing(seen: GrayValues) -> None:
    flat = np.zeros((1, 512, 512), np.uint8)
    two = GrayValues.of([section_gray(np.concatenate([sample("a"), flat]))], np.uint8)
    assert judged(two, np.concatenate([sample("b"), sample("a")])) == AS_IS
    assert judged(two, np.concatenate([sample("b"), flat]).astype(np.uint16) * 16) == GrayScale(16)


def test_more_widens_what_was_seen(seen: GrayValues) -> None:
    bright = GrayValues.of([section_gray(np.random.default_rng(0).normal(5000, 150, (1, 64, 64)))], np.uint8)
    far = [section_gray(np.random.default_rng(1).normal(5000, 150, (1, 64, 64)).astype(np.uint16))]
    assert isinstance(match(seen, far, np.uint16), Mismatch)
    wider = seen.with_more(bright)
    assert match(wider, far, np.uint16) == AS_IS
    assert (wider.mean, wider.lowest_mean, wider.low) == (seen.mean, seen.lowest_mean, seen.low)


def test_scales_in_words(seen: GrayValues) -> None:
    for scale, words in (
        (AS_IS, "as they are"),
        (GrayScale(257), "times 257"),
        (GrayScale(1 / 255), "divided by 255"),
        (GrayScale(257, -32768), "times 257, less 32768"),
        (GrayScale(1, 32768), "plus 32768"),
        (GrayScale(16843009), "times 16843009"),
    ):
        assert str(scale) == words
    assert scale_in_words(GrayScale(16), seen, np.uint16) == (
        "the gray values (uint16) are those of the model's images (uint8) times 16; they are scaled back"
    )


@pytest.mark.parametrize("change", [{"dtype": "no such"}, {"dtype": "O"}, {"mean": (float("nan"),)}])
def test_a_damaged_description_is_refused(seen: GrayValues, change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GrayValues.model_validate(seen.model_dump() | change)
