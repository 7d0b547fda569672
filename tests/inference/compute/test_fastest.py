from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.events import BlocksPlanned, Event
from napari_autosegnet.inference import job
from napari_autosegnet.inference.compute.fastest import fastest_engine, fastest_tile
from napari_autosegnet.inference.compute.predictor import Predictor
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.model import Model
from napari_autosegnet.settings import PredictSettings

Noise = Callable[..., np.ndarray]


class Told:
    """Collects notes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, event: Event) -> None:
        self.texts.append(event.text)


def test_the_fastest_engine_is_taken_and_told(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"channels_last": 1.0, "contiguous": 2.0, "onnxruntime": 0.5}
    predictor, told = Predictor(model, halo=32), Told()
    monkeypatch.setattr(Predictor, "engines", list(seconds))
    monkeypatch.setattr(predictor, "measured", lambda engine, window, passes: seconds[engine])
    plan = predictor.plan((10, 1024, 1024), (10, 1024, 1024))
    assert fastest_engine(predictor, plan, report=told) == "onnxruntime"
    assert "onnxruntime 500 ms" in told.texts[0]
    seconds["onnxruntime"] = 0.97
    # Not worth leaving the usual one for.
    assert fastest_engine(predictor, plan) == "channels_last"


def test_engines_and_tiles_are_really_measured(model: Model) -> None:
    predictor, told = Predictor(model, halo=32), Told()
    plan = predictor.plan((1, 1024, 1024), (1, 1024, 1024))
    assert fastest_engine(predictor, plan, report=told) in told.texts[0]
    assert str(fastest_tile(predictor, plan, report=told)) in told.texts[1]


def test_the_tile_that_takes_least_time_is_taken_and_told(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger windows compute less twice; whether that pays depends on what a pass over them takes."""
    predictor, told = Predictor(model, halo=32), Told()
    plan = predictor.plan((10, 1024, 1024), (10, 1024, 1024))
    large = 1.0

    def measured(engine: None, window: tuple[int, int], passes: int) -> float:
        return window[0] * window[1] * (large if window[0] > 900 else 1.0)

    monkeypatch.setattr(predictor, "measured", measured)
    assert fastest_tile(predictor, plan, report=told) == 1152
    assert "windows of 1024 x 1024 2912 h 42 min" in told.texts[-1]
    large = 1.4
    assert fastest_tile(predictor, plan, report=told) == 768
    small = predictor.plan((10, 512, 512), (10, 512, 512))
    told.texts.clear()
    assert fastest_tile(predictor, small, report=told) == 512 and not told.texts  # every tile is the whole section


def test_a_tile_that_does_not_fit_into_memory_is_not_taken(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def engine(images: torch.Tensor) -> torch.Tensor:
        if images.shape[-1] > 600:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        return images

    monkeypatch.setattr("napari_autosegnet.inference.compute.predictor.make_engine", lambda *given: engine)
    predictor = Predictor(model, halo=32)
    seconds = iter((3.0, 1.0))
    monkeypatch.setattr(
        "napari_autosegnet.inference.compute.predictor.seconds_taken", lambda engine, images: next(seconds)
    )
    plan = predictor.plan((10, 1024, 1024), (10, 1024, 1024))
    assert fastest_tile(predictor, plan) == 768  # two windows of 544


def test_a_resumed_run_computes_as_it_began(
    tmp_path: Path, model: Model, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another engine has other last bits, so the ledger says which one it was."""
    monkeypatch.setattr(job, "WORTH_MEASURING", 0)
    monkeypatch.setattr(job, "fastest_engine", lambda predictor, plan, report: "contiguous")
    monkeypatch.setattr(job, "fastest_tile", lambda predictor, plan, report: 40)
    image = image_from_array(noise(2, 60, 60))
    settings = PredictSettings(block=(1, 32, 32), halo=0)
    predict_volume(model, image, tmp_path / "a.zarr", settings, should_stop=lambda: True)
    kept = json.loads((tmp_path / "a.zarr.ledger.jsonl").read_text().splitlines()[0])
    assert kept["parts"]["settings"]["engine"] == "contiguous"
    assert kept["parts"]["settings"]["tile"] == 40
    monkeypatch.setattr(job, "fastest_engine", lambda predictor, plan, report: "channels_last")
    monkeypatch.setattr(job, "fastest_tile", lambda predictor, plan, report: 512)
    windows = []

    def report(event: Event) -> None:
        if isinstance(event, BlocksPlanned):
            windows.append(event.tile)

    assert not predict_volume(model, image, tmp_path / "a.zarr", settings, report=report).stopped
    ((y, x),) = windows
    assert max(y, x) <= 40
    assert (np.asarray(zarr.open_group(tmp_path / "a.zarr")["labels/segmentation/0"]) > 0).all()
