"""A forest's labels that a network learns from."""

from __future__ import annotations

import numpy as np
import pytest

from napari_autosegnet.data.annotations import parse_classes
from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.data.labeled_stacks import LabeledStack, pair_stacks
from napari_autosegnet.data.normalization import Normalization
from napari_autosegnet.data.regions import Region
from napari_autosegnet.pixel_classifier import teacher
from napari_autosegnet.pixel_classifier.teacher import taught_labels, teacher_weight

NORMALIZATION = Normalization(mean=(100.0,), std=(50.0,))


def painted(labels: np.ndarray) -> list[LabeledStack]:
    """An image that is dark on the left, noise in the middle, and bright on the right."""
    image = np.random.default_rng(0).integers(0, 200, labels.shape).astype(np.uint8)
    image[:, :60] = 50
    image[:, 100:] = 150
    return pair_stacks([image_from_array(image)], [image_from_array(labels)], parse_classes("1:dark,2:bright"))


def strokes() -> np.ndarray:
    labels = np.zeros((96, 160), np.uint8)
    labels[10:13, 5:25] = 1
    labels[80:83, 130:150] = 2
    return labels


WHOLE = [Region(0, 0, (0, 96), (0, 80)), Region(0, 0, (0, 96), (80, 160))]


def test_what_is_like_a_stroke_is_labeled_whatever_the_threads() -> None:
    stacks = painted(strokes())
    left, right = taught_labels(stacks, WHOLE, NORMALIZATION) or []
    assert left.shape == right.shape == (96, 80)
    assert (left[:, :30] == 1).mean() > 0.95 and (right[:, 50:] == 2).mean() > 0.95
    for again in (
        taught_labels(stacks, WHOLE, NORMALIZATION, threads=2),
        taught_labels(stacks, WHOLE[::-1], NORMALIZATION)[::-1],  # type: ignore[index]
    ):
        np.testing.assert_array_equal(np.stack([left, right]), again)


def test_only_strokes_within_the_regions_teach() -> None:
    assert taught_labels(painted(strokes()), WHOLE[:1], NORMALIZATION) is None, "one class alone"


def test_of_too_many_pixels_those_around_strokes_are_labeled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "TILE", 40)
    monkeypatch.setattr(teacher, "MAX_LABELED", 3 * 32 * 40)
    stacks = painted(strokes())
    left, right = taught_labels(stacks, WHOLE, NORMALIZATION) or []
    assert left[:32, :40].any() and right[64:, 40:].any()
    assert (left > 0).sum() + (right > 0).sum() <= 3 * 32 * 40


def test_the_more_is_annotated_the_less_a_forest_counts() -> None:
    labels, weights = strokes(), []
    for width in (0, 10, 40, 79, 120):
        labels[:, :width] = 1
        weights.append(teacher_weight(painted(labels), WHOLE))
    assert weights == sorted(weights, reverse=True) and 0 < weights[0] < 1
    assert weights[3] > 0 == weights[4]
