from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.inference.compute import sections
from napari_autosegnet.inference.compute.sections import make_predictor, predict_section, section_tiles
from napari_autosegnet.model import HaloFigure, Model
from napari_autosegnet.settings import PredictSettings


def test_a_wide_halo_gets_a_window_that_keeps_half_its_side(make_model: Callable[..., Model]) -> None:
    """With tiles of 512 only 8 pixels of each side would be kept, and the work would be 6000 times as much."""
    model = make_model(network="pspnet", halo=HaloFigure(pixels=248, agreement=0.999))
    predictor = make_predictor(model, "cpu", PredictSettings())
    plan = predictor.plan((1, 4096, 4096), (1, 1024, 1024))
    assert plan.computed <= 5 * 4096**2
    by_hand = make_predictor(model, "cpu", PredictSettings(tile=512))
    assert by_hand.tile == 512


def test_a_large_section_is_read_in_parts_and_told_tile_by_tile(
    make_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (2, 150, 210), np.uint8)
    pixels[1, :60, :60] = 7  # of one value, so not in the order of the others
    predictor = make_predictor(make_model(), "cpu", PredictSettings(tile=64, halo="exact", batch_size=2))
    image = image_from_array(pixels)
    whole = predict_section(predictor, image, 1)
    assert whole is not None

    monkeypatch.setattr(sections, "READ_AT_ONCE", 64)
    read: list[int] = []
    read_block = sections.read_block

    def counted(*given: Any, **more: Any) -> Any:
        found = read_block(*given, **more)
        read.append(found.pixels.shape[-1])
        return found

    monkeypatch.setattr(sections, "read_block", counted)
    told: list[tuple[int, int]] = []
    for tile in section_tiles(predictor, image, 1, report=lambda event: told.append((event.done, event.total))):
        assert np.array_equal(tile.labels, whole[0][tile.place])
        assert np.allclose(tile.probabilities, whole[1][:, *tile.place], atol=1e-5)
    assert len(read) == 4 and max(read) < 210
    assert told == sorted(told) and told[-1][0] == told[-1][1] > 4
    asked: list[bool] = []
    assert predict_section(predictor, image, 1, should_stop=lambda: (asked.append(True), len(asked) == 2)[1]) is None
    assert len(asked) == 2, "it stops within a section"
