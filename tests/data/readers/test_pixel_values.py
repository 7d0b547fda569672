"""Numbers that stand for other values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_autosegnet.data.readers.pixel_values import ValuesOf, inverted, polynomial


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int8, np.int16])
def test_inverting_twice_changes_nothing(dtype: Any) -> None:
    limits = np.iinfo(dtype)
    stored = np.linspace(limits.min, limits.max, 301).astype(dtype)
    values = inverted(np.dtype(dtype), limits.bits)
    found = values.of(stored)
    assert (found.min(), found.max(), found.dtype) == (limits.min, limits.max, dtype)
    assert (np.diff(found.astype(np.int64)) <= 0).all()
    np.testing.assert_array_equal(values.of(found), stored)
    swapped = np.dtype(dtype).newbyteorder(">")
    np.testing.assert_array_equal(inverted(swapped, limits.bits).of(stored.astype(swapped)), found)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_a_line_through_all_numbers(dtype: Any) -> None:
    limits = np.iinfo(dtype)
    stored = np.linspace(limits.min, limits.max, 301).astype(dtype)
    raw = stored.astype(np.float64) - limits.min
    values = polynomial(np.dtype(dtype), [-3.5, 0.5])
    assert values is not None and values.dtype == np.float32
    np.testing.assert_array_equal(values.of(stored), (0.5 * raw - 3.5).astype(np.float32))
    assert polynomial(np.dtype(dtype), [float(limits.min), 1.0]) is None


def test_values_of_an_array_are_made_where_it_is_indexed() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(4, 6)
    values = polynomial(array.dtype, [0.0, 1000.0])
    assert values is not None
    seen = ValuesOf(array, values)
    assert (seen.shape, seen.dtype, list(seen.files)) == ((4, 6), np.uint32, [])
    np.testing.assert_array_equal(seen[1:3, 2], array[1:3, 2] * np.uint32(1000))
