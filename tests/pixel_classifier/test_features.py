from __future__ import annotations

import numpy as np
from skimage.feature import multiscale_basic_features

from napari_autosegnet.pixel_classifier.features import SIGMAS, features_at, pixel_features, reach


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_features_are_those_of_scikit_image_in_other_units() -> None:
    image = noise(1, 60, 70)
    ours = pixel_features(image, (0.7, 6.0)).reshape(2, 4, 60, 70)
    theirs = multiscale_basic_features(image[0], sigma_min=0.7, sigma_max=6.0, num_sigma=2).reshape(60, 70, 2, 4)
    theirs = np.moveaxis(theirs, (2, 3), (0, 1))
    np.testing.assert_allclose(ours[:, 0], theirs[:, 0], atol=1e-5)
    for kind in range(1, 4):
        # Derivatives are differences over other steps there: where the image is smooth that is much the same.
        alike = np.corrcoef(ours[1, kind, 9:-9, 9:-9].ravel(), theirs[1, kind, 9:-9, 9:-9].ravel())[0, 1]
        assert alike > 0.9, kind


def test_features_say_what_they_are_called() -> None:
    line = np.zeros((1, 41, 41), np.float32)
    line[0, :, 20] = -1
    smooth, gradient, larger, smaller = pixel_features(line, (2.0,))[:, 20]
    assert smooth.argmin() == 20 and gradient[20] < 1e-6 < gradient[18] and gradient[18] > gradient[5]
    assert larger.argmax() == 20 and abs(smaller[20]) < 1e-6
    ramp = np.tile(np.arange(41, dtype=np.float32), (1, 41, 1))
    np.testing.assert_allclose(pixel_features(ramp, (1.0,))[1, 20, 20], 2, rtol=1e-5)  # over two pixels


def test_a_pixel_depends_on_its_reach_alone_and_on_no_number_of_threads() -> None:
    image = noise(2, 120, 130)
    assert reach(SIGMAS) == 41
    before = pixel_features(image)
    assert before.shape == (2 * 4 * len(SIGMAS), 120, 130)
    np.testing.assert_array_equal(pixel_features(image, threads=3), before)
    image[1, 50, 60] += 1000
    changed = (pixel_features(image) != before).any(0)
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max()) == (50 - 41, 50 + 41)
    assert (columns.min(), columns.max()) == (60 - 41, 60 + 41)


def test_features_of_single_pixels_are_those_of_the_section() -> None:
    images = noise(1, 90, 1100)
    places = np.array([512, 0, 511, 1099, 45 * 1100 + 300, 90 * 1100 - 1])
    expected = pixel_features(images).reshape(-1, 90 * 1100)[:, places].T
    found = features_at(lambda y, x: images[:, y, x], places, 1100, threads=2)
    np.testing.assert_array_equal(found, expected)
