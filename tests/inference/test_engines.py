from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from napari_autosegnet.config import PredictSettings
from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.errors import UserError
from napari_autosegnet.inference import engines, job
from napari_autosegnet.inference import predictor as predictor_module
from napari_autosegnet.inference.engines import available_engines, fastest_engine, make_engine
from napari_autosegnet.inference.folding import fold_batch_norm
from napari_autosegnet.inference.predictor import Predictor
from napari_autosegnet.inference.sections import make_predictor
from napari_autosegnet.inference.volume import predict_sections, predict_volume
from napari_autosegnet.model import HaloFigure, Model

CPU = torch.device("cpu")
Noise = Callable[..., np.ndarray]


@pytest.mark.parametrize("network", ["searched", "unet"])
@pytest.mark.parametrize("name", ["contiguous", "onnxruntime"])
def test_all_engines_compute_the_same(make_model: Callable[..., Model], network: Any, name: Any, noise: Noise) -> None:
    if name not in available_engines(CPU):
        pytest.skip("needs onnxruntime")
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


def test_the_fastest_is_taken_and_told(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"channels_last": 1.0, "contiguous": 2.0, "onnxruntime": 0.5}
    monkeypatch.setattr(engines, "available_engines", lambda device: list(seconds))
    monkeypatch.setattr(engines, "make_engine", lambda name, network, device: lambda images: name)
    monkeypatch.setattr(engines, "seconds_taken", lambda engine, images: seconds[engine(images)])
    told = []
    network = fold_batch_norm(model.network())

    def report(event: str, /, **values: Any) -> None:
        told.append(values["text"])

    assert fastest_engine(network, CPU, (1, 1, 32, 32), report=report) == "onnxruntime"
    assert "onnxruntime 500 ms" in told[0]
    seconds["onnxruntime"] = 0.97
    # Not worth leaving the usual one for.
    assert fastest_engine(network, CPU, (1, 1, 32, 32)) == "channels_last"


def test_a_resumed_run_computes_as_it_began(
    tmp_path: Path, model: Model, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another engine has other last bits, so the ledger says which one it was."""
    monkeypatch.setattr(job, "WORTH_MEASURING", 0)
    monkeypatch.setattr(Predictor, "fastest_engine", lambda self, plan: "contiguous")
    monkeypatch.setattr(Predictor, "fastest_tile", lambda self, plan: 40)
    image = image_from_array(noise(2, 60, 60))
    settings = PredictSettings(block=(1, 32, 32), halo=0)
    predict_volume(model, image, tmp_path / "a.zarr", settings, should_stop=lambda: True)
    kept = json.loads((tmp_path / "a.zarr.ledger.jsonl").read_text().splitlines()[0])
    assert kept["parts"]["settings"]["engine"] == "contiguous"
    assert kept["parts"]["settings"]["tile"] == 40
    monkeypatch.setattr(Predictor, "fastest_engine", lambda self, plan: "channels_last")
    monkeypatch.setattr(Predictor, "fastest_tile", lambda self, plan: 512)
    windows = []

    def report(event: str, /, **values: Any) -> None:
        if event == "plan":
            windows.append(values["tile"])

    assert not predict_volume(model, image, tmp_path / "a.zarr", settings, report=report).stopped
    ((y, x),) = windows
    assert max(y, x) <= 40
    assert (np.asarray(zarr.open_group(tmp_path / "a.zarr")["labels/segmentation/0"]) > 0).all()


def test_the_tile_that_takes_least_time_is_taken_and_told(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger windows compute less twice; whether that pays depends on what a pass over them takes."""
    told: list[str] = []
    predictor = Predictor(model, halo=32, report=lambda event, /, **values: told.append(values["text"]))
    plan = predictor.plan((10, 1024, 1024), (10, 1024, 1024))
    per_pixel = {"large": 1.0}
    monkeypatch.setattr(predictor, "_engine", lambda images: images)
    monkeypatch.setattr(
        predictor_module,
        "seconds_taken",
        lambda engine, images: images.shape[-1] ** 2 * (per_pixel["large"] if images.shape[-1] > 900 else 1.0),
    )
    assert predictor.fastest_tile(plan) == 1152
    assert "1024 x 1024" in told[-1]
    per_pixel["large"] = 1.4
    assert predictor.fastest_tile(plan) == 768
    small = predictor.plan((10, 512, 512), (10, 512, 512))
    told.clear()
    assert predictor.fastest_tile(small) == 512 and not told  # every tile is the whole section


def test_a_tile_that_does_not_fit_into_memory_is_not_taken(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(model, halo=32)

    def engine(images: torch.Tensor) -> torch.Tensor:
        if images.shape[-1] > 600:
            raise torch.OutOfMemoryError("out of memory")
        return images

    monkeypatch.setattr(predictor, "_engine", engine)
    monkeypatch.setattr(predictor_module, "seconds_taken", lambda engine, images: images.shape[-1] ** 2)
    plan = predictor.plan((10, 1024, 1024), (10, 1024, 1024))
    assert predictor.fastest_tile(plan) == 768  # two windows of 544


def test_onnxruntime_where_it_is_not(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert available_engines(CPU) == ["channels_last", "contiguous"]
    with pytest.raises(UserError, match=r"napari-autosegnet\[export\]"):
        make_engine("onnxruntime", model.network(), CPU)


def test_a_wide_halo_gets_a_window_that_keeps_half_its_side(make_model: Callable[..., Model]) -> None:
    """With tiles of 512 only 8 pixels of each side would be kept, and the work would be 6000 times as much."""
    model = make_model(network="pspnet", halo=HaloFigure(pixels=248, agreement=0.999))
    predictor = make_predictor(model, "cpu", PredictSettings())
    plan = predictor.plan((1, 4096, 4096), (1, 1024, 1024))
    assert plan.computed <= 5 * 4096**2
    by_hand = make_predictor(model, "cpu", PredictSettings(tile=512))
    assert by_hand.tile == 512
