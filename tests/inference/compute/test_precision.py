"""Half precision: measured on any machine, used where it is fast and the labels stay the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import BlocksPlanned, Event
from napari_autosegnet.inference import job
from napari_autosegnet.inference.compute.precision import kept_precisions, measure_half_precision
from napari_autosegnet.inference.compute.predictor import Predictor
from napari_autosegnet.inference.distributed.cluster_work import describe_worker
from napari_autosegnet.inference.job import VolumeRequest
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.model import Model
from napari_autosegnet.settings import PredictSettings

Noise = Callable[..., np.ndarray]
Units = Callable[[bool], None]
MakeModel = Callable[..., Model]
SETTINGS = PredictSettings(block=(1, 32, 32), tile=48, halo=8, format="zarr")


@pytest.fixture
def kept(model: Model) -> Model:
    return model.with_(half_precision={"float16": 1.0, "bfloat16": 0.9996})


def test_the_figure_is_what_half_precision_really_does(make_model: MakeModel, noise: Noise) -> None:
    model, pixels = make_model(width=8), noise(1, 96, 96)
    figures = measure_half_precision(model, [image_from_array(pixels)])
    full, half = (Predictor(model, precision=name).whole_section(pixels).argmax(0) for name in ("float32", "bfloat16"))
    really = (full == half).mean()
    assert 0.9 < really < 1 and figures["bfloat16"] == pytest.approx(really, abs=0.003)
    assert figures["bfloat16"] < figures["float16"] <= 1
    assert measure_half_precision(model, []) == measure_half_precision(model, [], should_stop=lambda: True) == {}


def test_values_beyond_a_type_are_found_and_the_model_stays_in_float32(
    make_model: MakeModel, noise: Noise, matrix_units: Units
) -> None:
    """Logits of a million have the same best class, but a float16 ends at 65,504."""
    model = make_model(width=8)
    weights = model.weights
    for name in [name for name in weights if name.startswith("head")]:
        weights[name] = weights[name] * 1e6
    large = Model(model.description, weights)
    figures = measure_half_precision(large, [image_from_array(noise(1, 64, 64))])
    assert figures["float16"] < 0.9 < figures["bfloat16"] < 0.9995
    matrix_units(True)
    assert Predictor(large.with_(half_precision=figures), halo=8).half_precisions == ()


def test_only_what_is_fast_here_and_keeps_labels_is_allowed(kept: Model, model: Model, matrix_units: Units) -> None:
    matrix_units(True)
    assert describe_worker("cpu")["precisions"] == ("bfloat16",)
    predictor = Predictor(kept, halo=8)
    assert predictor.half_precisions == ("bfloat16",)
    assert predictor.precision == "float32"  # until a long run has measured that it is faster
    assert Predictor(kept, halo="exact").half_precisions == ()
    assert Predictor(model, halo=8).half_precisions == ()  # made before it was measured
    matrix_units(False)
    assert Predictor(kept, halo=8).half_precisions == ()
    assert kept_precisions(kept, ("float16", "bfloat16")) == ("float16", "bfloat16")
    assert kept_precisions(kept.with_(half_precision={"float16": 0.9994}), ("float16",)) == ()


def test_a_run_begins_and_goes_on_in_one_precision(
    tmp_path: Path, kept: Model, noise: Noise, matrix_units: Units, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = image_from_array(noise(1, 32, 64))
    out, plans = tmp_path / "a.zarr", []

    def report(event: Event) -> None:
        if isinstance(event, BlocksPlanned):
            plans.append(event)

    def run(place: Path, *, stop: bool = False, **more: str) -> bool:
        settings = SETTINGS.model_copy(update=more)
        return predict_volume(kept, image, place, settings, report=report, should_stop=lambda: stop).stopped

    monkeypatch.setattr(job, "WORTH_MEASURING", 0)
    monkeypatch.setattr(job, "fastest_engine", lambda *_, **__: "contiguous")
    monkeypatch.setattr(job, "fastest_precision", lambda *_, **__: "bfloat16")
    matrix_units(True)
    run(tmp_path / "whole.zarr")
    assert run(out, stop=True)
    ledger = json.loads((tmp_path / "a.zarr.ledger.jsonl").read_text().splitlines()[0])["parts"]["settings"]
    assert ledger["precision"] == "bfloat16" and ledger["engine"] == "channels_last"
    with pytest.raises(UserError, match="precision was bfloat16, now float32"):
        run(out, precision="float32")
    matrix_units(False)
    with pytest.raises(UserError, match="precision was bfloat16, now float32"):
        run(out)
    matrix_units(True)
    monkeypatch.setattr(job, "fastest_precision", lambda *_, **__: pytest.fail("measured again"))
    assert not run(out)
    assert plans[-1].precision == "bfloat16" and plans[-1].precision_agreement == 0.9996
    files = [
        {file.name: file.read_bytes() for file in place.rglob("*") if file.is_file()}
        for place in (out, tmp_path / "whole.zarr")
    ]
    assert files[0] == files[1]


def test_workers_take_the_precision_of_the_request(tmp_path: Path, kept: Model, noise: Noise) -> None:
    """Whatever they are fast in themselves."""
    import tifffile

    kept.save(tmp_path / "model")
    tifffile.imwrite(tmp_path / "a.tif", noise(1, 32, 32))
    request = VolumeRequest(tmp_path / "model", tmp_path / "a.tif", tmp_path / "a.zarr", SETTINGS, precision="bfloat16")
    model, opened = request.open("cpu")
    assert opened.predictor.precision == "bfloat16" and model.half_precision == kept.half_precision
    probabilities = opened.predictor.whole_section(noise(1, 32, 32))
    full = Predictor(kept, precision="float32").whole_section(noise(1, 32, 32))
    assert 0 < np.abs(probabilities - full).max() < 0.1


def test_models_made_before_are_read(tmp_path: Path, model: Model) -> None:
    model.save(tmp_path)
    text = json.loads((tmp_path / "model.json").read_text())
    assert text.pop("half_precision") == {}
    (tmp_path / "model.json").write_text(json.dumps(text))
    assert Model.load(tmp_path).half_precision == {}
