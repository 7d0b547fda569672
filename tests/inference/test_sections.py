from __future__ import annotations

from collections.abc import Callable

from napari_autosegnet.config import PredictSettings
from napari_autosegnet.inference.sections import make_predictor
from napari_autosegnet.model import HaloFigure, Model


def test_a_wide_halo_gets_a_window_that_keeps_half_its_side(make_model: Callable[..., Model]) -> None:
    """With tiles of 512 only 8 pixels of each side would be kept, and the work would be 6000 times as much."""
    model = make_model(network="pspnet", halo=HaloFigure(pixels=248, agreement=0.999))
    predictor = make_predictor(model, "cpu", PredictSettings())
    plan = predictor.plan((1, 4096, 4096), (1, 1024, 1024))
    assert plan.computed <= 5 * 4096**2
    by_hand = make_predictor(model, "cpu", PredictSettings(tile=512))
    assert by_hand.tile == 512
