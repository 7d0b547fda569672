"""Numbers and colors in the pixels of label files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_autosegnet.data.label_values import NO_NUMBER, label_values
from napari_autosegnet.errors import UserError


@given(arrays(np.uint8, (3, 2, 3)))
def test_colors_are_their_three_parts(pixels: np.ndarray) -> None:
    read = label_values(pixels, "labels")
    gray = bool((pixels == pixels[0]).all())
    assert read.are_colors != gray
    np.testing.assert_array_equal(read.values, pixels[0] if gray else read.as_colors())
    parts = [read.as_colors() >> shift & 255 for shift in (16, 8, 0)]
    np.testing.assert_array_equal(parts, pixels)


@given(arrays(np.float32, (1, 3, 2), elements=st.integers(-5, 2**20).map(float) | st.just(float("nan"))))
def test_floats_are_whole_numbers_or_nothing(pixels: np.ndarray) -> None:
    read = label_values(pixels, "labels")
    assert read.values.dtype == np.int64
    expected = np.where(np.isnan(pixels[0]), float(NO_NUMBER), pixels[0])
    np.testing.assert_array_equal(read.values.astype(float), expected)
    assert sum(read.counts().values()) == np.isfinite(pixels).sum()


@pytest.mark.parametrize("value", [0.5, np.inf, -np.inf, 1e300])
def test_fractions_are_no_labels(value: float) -> None:
    with pytest.raises(UserError, match="^my labels hold fractions"):
        label_values(np.full((1, 2, 2), value), "my labels")


def test_bits_and_large_numbers() -> None:
    halves = label_values(np.array([[[0, 1, np.nan]]], np.float16), "labels")
    assert halves.values.tolist() == [[0, 1, NO_NUMBER]]
    assert label_values(np.array([[[True, False]]]), "labels").counts() == {0: 1, 1: 1}
    assert label_values(np.full((1, 2, 2), 2**62, np.uint64), "labels").counts() == {2**62: 4}
    with pytest.raises(UserError, match="number the classes from 1"):
        label_values(np.full((1, 2, 2), 2**63, np.uint64), "labels")
