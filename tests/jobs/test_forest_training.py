from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from napari_autosegnet import api
from napari_autosegnet.data.images import open_image
from napari_autosegnet.errors import StoppedError
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.model import Model
from napari_autosegnet.quality import Quality
from napari_autosegnet.settings import PredictSettings, TrainSettings

CLASSES = "1:dark,2:bright"
SETTINGS = TrainSettings(context=1)


def write(folder: Path) -> dict[str, Any]:
    """Three sections (z, c, y, x) of two channels, bright and dark halves under noise, with three strokes of each."""
    generator = np.random.default_rng(0)
    truth = np.tile((np.arange(150) >= 70).astype(np.uint8), (3, 130, 1))
    image = generator.normal(100 + 40 * truth[:, None], 25, (3, 2, 130, 150)).clip(0, 255).astype(np.uint8)
    strokes = np.zeros(truth.shape, np.uint8)
    for section in (0, 2):
        strokes[section, 10:120:40, 5:60] = 1
        strokes[section, 10:120:40, 80:140] = 2
    tifffile.imwrite(folder / "image.ome.tif", image, metadata={"axes": "ZCYX"}, photometric="minisblack")
    tifffile.imwrite(folder / "strokes.tif", strokes, photometric="minisblack")
    tifffile.imwrite(folder / "truth.tif", truth + 1, photometric="minisblack")
    return {"images": [folder / "image.ome.tif"], "labels": [folder / "strokes.tif"], "classes": CLASSES}


def test_a_forest_is_trained_resumed_continued_scored_and_applied_like_a_network(tmp_path: Path) -> None:
    data, run = write(tmp_path), tmp_path / "run"
    with pytest.raises(StoppedError, match="before the forest was fitted"):
        api.train(run, **data, network="forest", settings=SETTINGS, should_stop=lambda: True)
    model = api.train(run, resume=True)
    assert model.specification.network == "forest" and (model.in_channels, model.context) == (6, 1)
    quality = Quality.of(model.metrics["validation"])
    assert quality is not None and not quality.known and quality.describe().startswith("not known yet")
    assert quality.sections > 0 and quality.mean_iou > 0.8

    scores = api.evaluate(model=run / "model", images=data["images"], labels=[tmp_path / "truth.tif"], classes=CLASSES)
    assert scores.mean_iou > 0.9
    # One stroke each: there is nothing to check with, and no other reason to refuse it.
    strokes = tifffile.imread(data["labels"][0])
    strokes[1:] = strokes[0, 20:] = 0
    tifffile.imwrite(tmp_path / "one.tif", strokes, photometric="minisblack")
    less = api.train(tmp_path / "less", **data | {"labels": [tmp_path / "one.tif"]}, network="forest")
    unknown = Quality.of(less.metrics["validation"])
    assert unknown is not None and not unknown.known
    more = api.train(run, continue_with=tmp_path / "one.tif")
    assert more.specification.network == "forest" and more.context == 1
    assert more.normalization.mean == model.normalization.mean and more.fingerprint != model.fingerprint


def test_blocks_of_a_forest_are_the_whole_and_an_ended_run_goes_on(tmp_path: Path) -> None:
    data = write(tmp_path)
    api.train(tmp_path / "run", **data, network="forest")
    model, image = Model.load(tmp_path / "run" / "model"), open_image(data["images"][0])
    settings = PredictSettings(block=(3, 96, 96), tile=120, probabilities=True)
    asked: list[bool] = []

    def stop() -> bool:
        asked.append(True)
        return len(asked) > 7

    ended = predict_volume(model, image, tmp_path / "out.zarr", settings, should_stop=stop)
    assert ended.stopped
    done = predict_volume(model, image, tmp_path / "out.zarr", settings)
    assert not done.stopped and not done.failed
    whole = predict_volume(model, image, tmp_path / "whole.zarr", settings.model_copy(update={"tile": 2000}))
    assert not whole.stopped
    for name in ("labels/segmentation/0", "probabilities/0"):
        tiles, one = (
            np.asarray(zarr.open_array(tmp_path / store / name, mode="r")) for store in ("out.zarr", "whole.zarr")
        )
        np.testing.assert_array_equal(tiles, one)
    assert (tiles > 0).any()
