"""Rectangles of pixels."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napari_autosegnet.data.boxes import Box, without


@given(
    box=st.tuples(*[st.tuples(st.integers(0, 20), st.integers(1, 20)) for _ in range(2)]),
    hole=st.tuples(*[st.tuples(st.integers(-5, 30), st.integers(1, 20)) for _ in range(2)]),
)
def test_a_box_without_a_hole(box: tuple[tuple[int, int], ...], hole: tuple[tuple[int, int], ...]) -> None:
    def spans(each: tuple[tuple[int, int], ...]) -> Box:
        (y, height), (x, width) = each
        return (y, y + height), (x, x + width)

    def mask(*boxes: Box) -> np.ndarray:
        found = np.zeros((60, 60), int)
        for y, x in boxes:
            found[max(0, y[0]) : max(0, y[1]), max(0, x[0]) : max(0, x[1])] += 1
        return found

    pieces = without(spans(box), spans(hole))
    assert len(pieces) <= 4
    np.testing.assert_array_equal(mask(*pieces), mask(spans(box)) * (mask(spans(hole)) == 0))
