"""Strokes on a changed ground: they stay, and each that is undone shows the ground as it is now."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")

from napari.layers import Labels

from napari_autosegnet.widgets.layers.paint_history import lay_beneath

SHAPE = (3, 40, 50)


def strokes(layer: Any) -> list[Any]:
    """Ways to paint; the values are others than those of the grounds, so that all pixels count."""
    flat = layer.ndim == 2

    def at(*place: int) -> tuple[int, ...]:
        return place[1:] if flat else place

    def pixels() -> None:
        depth = () if flat else (np.array([1, 1, 2]),)
        layer.data_setitem((*depth, np.array([4, 5, 6]), np.array([7, 8, 9])), np.array([7, 8, 9]))

    def through_all_sections() -> None:
        layer.n_edit_dimensions = layer.ndim
        layer.paint(at(1, 12, 12), 8)
        layer.n_edit_dimensions = 2

    def dragged() -> None:
        with layer.block_history():
            layer.paint(at(1, 20, 20), 7)
            layer.paint(at(1, 20, 24), 9)

    return [
        lambda: layer.paint(at(1, 10, 10), 7),
        pixels,
        through_all_sections,
        dragged,
        lambda: layer.fill(at(1, 12, 12), 9),
        lambda: layer.paint(at(2, 30, 30), 8),
        lambda: layer.paint_polygon([at(1, 2, 30), at(1, 2, 40), at(1, 20, 40)], 8),
    ]


@pytest.fixture(params=["numpy", "zarr"])
def make(request: pytest.FixtureRequest) -> Any:
    import zarr

    def layer(data: np.ndarray) -> Any:
        if request.param == "zarr":
            return Labels(zarr.create_array({}, data=data, chunks=data.shape))
        return Labels(data.copy())

    return layer


@pytest.mark.parametrize("dimensions", [2, 3])
def test_another_ground_beneath_strokes(make: Any, dimensions: int) -> None:
    rng = np.random.default_rng(0)
    old, new = (rng.integers(1, 3, SHAPE[3 - dimensions :]).astype(np.uint8) for _ in range(2))
    whole = new if dimensions == 2 else old.copy()
    if dimensions == 3:
        whole[1] = new[1]
    section = 0 if dimensions == 2 else 1
    painted, wanted = make(old), make(whole)
    states = [np.asarray(wanted.data).copy()]
    painted.brush_size = 6
    for stroke in strokes(painted):
        before = np.asarray(painted.data).copy()
        stroke()
        changed = np.asarray(painted.data) != before
        values = np.asarray(painted.data)[changed]
        wanted.data_setitem(np.nonzero(changed), values)
        states.append(np.asarray(wanted.data).copy())
    painted.undo()
    states.pop()
    planes = (old, new) if dimensions == 2 else (old[1], new[1])
    lay_beneath(painted, section, *planes)
    assert np.array_equal(np.asarray(painted.data), states[-1])
    for state in reversed(states[:-1]):
        painted.undo()
        assert np.array_equal(np.asarray(painted.data), state)
    painted.undo()
    for state in states[1:]:
        painted.redo()
        assert np.array_equal(np.asarray(painted.data), state)


def test_strokes_that_the_history_forgot_stay(make: Any) -> None:
    layer = make(np.ones((40, 50), np.uint8))
    layer.paint((10, 10), 7)
    layer.data = layer.data  # the history begins anew
    layer.paint((30, 30), 8)
    lay_beneath(layer, 0, np.ones((40, 50), np.uint8), np.full((40, 50), 2, np.uint8))
    layer.undo()
    assert layer.data[10, 10] == 7 and layer.data[30, 30] == 2
