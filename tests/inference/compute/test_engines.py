from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.compute.engines import available_engines, make_engine
from napari_autosegnet.inference.compute.predictor import Predictor
from napari_autosegnet.model import Model
from napari_autosegnet.settings import PredictSettings
from predicted_files import predict_sections

CPU = torch.device("cpu")
Noise = Callable[..., np.ndarray]


@pytest.mark.parametrize("network", ["searched", "unet"])
@pytest.mark.parametrize("name", ["contiguous", "onnxruntime"])
def test_all_engines_compute_the_same(make_model: Callable[..., Model], network: Any, name: Any, noise: Noise) -> None:
    if name == "onnxruntime":
        pytest.importorskip("onnxruntime")
    assert name in available_engines(CPU)
    model = make_model(levels=2, network=network)
    image = noise(1, 150, 170)
    expected = Predictor(model, halo="exact").whole_section(image)
    found = Predictor(model, halo="exact", engine=name).whole_section(image)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_tiles_equal_the_whole_section_with_onnxruntime(make_model: Callable[..., Model], noise: Noise) -> None:
    pytest.importorskip("onnxruntime")
    model = make_model(seed=5)
    image = image_from_array(noise(2, 150, 170))
    settings = PredictSettings(halo="exact", tile=96, engine="onnxruntime")
    _, tiled = predict_sections(model, image, None, settings)
    _, whole = predict_sections(model, image, None, PredictSettings(halo="exact", tile=512, engine="channels_last"))
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_onnxruntime_where_it_is_not(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert available_engines(CPU) == ["channels_last", "contiguous"]
    with pytest.raises(UserError, match=r"napari-autosegnet\[export\]"):
        make_engine("onnxruntime", model.network(), CPU)
