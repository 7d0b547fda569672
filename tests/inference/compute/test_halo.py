from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.inference.compute import halo
from napari_autosegnet.inference.compute.halo import measure_halo
from napari_autosegnet.inference.compute.predictor import Predictor
from napari_autosegnet.model import Model
from napari_autosegnet.settings import PredictSettings
from predicted_files import predict_sections

MakeModel = Callable[..., Model]


def local(model: Model, *, reach: int) -> Model:
    """The same model, with all kernels shrunk to their centers where ``reach`` is 0: it sees one pixel's cell."""
    weights = model.weights
    for name, tensor in weights.items():
        if tensor.ndim == 4 and tensor.shape[-1] > 1:
            kept = torch.zeros_like(tensor)
            middle = tensor.shape[-1] // 2
            near = slice(middle - reach, middle + reach + 1)
            kept[..., near, near] = tensor[..., near, near]
            weights[name] = kept
    return Model(model.description, weights)


def test_the_figure_is_what_a_run_with_it_reaches(
    make_model: MakeModel, noise: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halo, "TARGET", 0.99)
    model = make_model(levels=2)
    image = image_from_array(noise(2, 320, 320))
    figure = measure_halo(model, [image])
    exact = Predictor(model, halo="exact").halo
    assert figure is not None and 0 < figure.pixels <= exact and figure.pixels % 4 == 0
    assert figure.agreement >= 0.99
    whole, _ = predict_sections(model, image, None, PredictSettings(halo="exact", tile=512))
    tiled, _ = predict_sections(model, image, None, PredictSettings(halo=figure.pixels, tile=200))
    assert (whole == tiled).mean() >= 0.99


def test_a_network_that_looks_at_little_needs_a_small_halo(
    make_model: MakeModel, noise: Callable[..., np.ndarray]
) -> None:
    model = make_model(levels=2)
    image = image_from_array(noise(1, 320, 320))
    narrow = measure_halo(local(model, reach=0), [image])
    assert narrow is not None and narrow.pixels <= 8 and narrow.agreement >= 0.9995


def test_sections_without_room_for_a_seam_say_nothing(make_model: MakeModel, noise: Callable[..., np.ndarray]) -> None:
    assert measure_halo(make_model(levels=2), [image_from_array(noise(3, 15, 15))]) is None


def test_stop(make_model: MakeModel, noise: Callable[..., np.ndarray]) -> None:
    image = image_from_array(noise(1, 128, 128))
    assert measure_halo(make_model(levels=2), [image], should_stop=lambda: True) is None


def test_pooling_over_the_image_gets_the_largest_measured(
    make_model: MakeModel, noise: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halo, "TARGET", 1.1)  # never reached
    figure = measure_halo(make_model(network="pspnet"), [image_from_array(noise(1, 160, 160))])
    assert figure is not None and figure.pixels == (160 - 40) // 2 // 8 * 8 and figure.agreement <= 1
