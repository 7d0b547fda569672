"""A model applied to an array in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_autosegnet import api
from napari_autosegnet.errors import UserError
from napari_autosegnet.settings import PredictSettings
from small_models import small_model

IMAGE = np.random.default_rng(0).integers(0, 255, (3, 48, 72), np.uint8)
EXACT = PredictSettings(halo="exact")


def test_an_array_gets_the_labels_that_a_file_gets(tmp_path: Path) -> None:
    small_model().save(tmp_path / "run" / "model")
    np.save(tmp_path / "image.npy", IMAGE)
    summary = api.predict(
        tmp_path / "run", tmp_path / "image.npy", tmp_path / "out.zarr", settings=EXACT, axes="zyx", device="cpu"
    )
    of_file = zarr.open_array(summary.labels / "0", mode="r")[:]
    segment = api.segment(str(tmp_path / "run"), IMAGE, settings=EXACT, device="cpu")
    assert segment.dtype == np.uint8 and len(np.unique(segment)) == 3
    np.testing.assert_array_equal(segment, of_file)
    stored = zarr.array(IMAGE, chunks=(1, 48, 72))
    np.testing.assert_array_equal(api.segment(tmp_path / "run", stored, settings=EXACT, device="cpu"), of_file)
    np.testing.assert_array_equal(api.segment(tmp_path / "run", IMAGE[1].tolist(), device="cpu"), of_file[1])


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    small_model(image_channels=3).save(tmp_path / "model")
    picture = np.stack([IMAGE[0]] * 3, axis=-1)
    assert api.segment(tmp_path / "model", picture, channel_axis=-1, device="cpu").shape == IMAGE[0].shape
    with pytest.raises(UserError, match="channel"):
        api.segment(tmp_path / "model", IMAGE[0], device="cpu")
    with pytest.raises(UserError, match="image has 1 axes besides channels"):
        api.segment(tmp_path / "model", IMAGE[0, 0], device="cpu")
    with pytest.raises(UserError, match=r"image must be a path, not ndarray; api\.segment applies a model to an array"):
        api.predict(tmp_path / "model", IMAGE[0])  # type: ignore[arg-type]
