"""What a script may give in place of what a job takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_autosegnet import api
from napari_autosegnet.errors import UserError
from napari_autosegnet.jobs.arguments import as_path, as_paths, as_selection
from napari_autosegnet.settings import PredictSettings
from small_models import small_model


def test_one_path_or_several_as_text_or_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert as_paths("im.tif", "images") == as_paths(Path("im.tif"), "images") == (Path("im.tif"),)
    assert as_paths(["a.tif", Path("b.tif")], "images") == (Path("a.tif"), Path("b.tif"))
    assert as_paths(None, "images") == ()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert as_path("~/im.tif", "image") == tmp_path / "im.tif"
    assert as_path("~backup.tif", "image") == Path("~backup.tif")


def test_channels_by_name_or_number() -> None:
    assert as_selection(None, [0, "membrane"], None).channels == ("0", "membrane")
    assert as_selection(None, 1, None).channels == ("1",)
    assert as_selection(None, "membrane", None).channels == ("membrane",)


def test_text_for_paths_and_a_run_for_its_model(tmp_path: Path) -> None:
    small_model().save(tmp_path / "run" / "model")
    np.save(tmp_path / "image.npy", np.random.default_rng(0).integers(0, 255, (2, 40, 40), np.uint8))
    summary = api.predict(str(tmp_path / "run"), str(tmp_path / "image.npy"), str(tmp_path / "out.zarr"), device="cpu")
    assert summary.path == tmp_path / "out.zarr" and summary.done == summary.blocks
    labels = str(tmp_path / "out.zarr" / "labels" / "segmentation")
    assert api.evaluate(labels=labels, prediction=str(tmp_path / "out.zarr")).accuracy == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"images": np.zeros((4, 64, 64))}, "images must be a path, not ndarray; save what is in memory as a file"),
        ({"labels": [np.zeros((4, 64, 64))]}, "labels must be a path, not ndarray"),
        ({"network": "resnet"}, "wrong argument at 'network': must be 'searched'"),
        ({"classes": {0: "a"}}, "wrong argument at 'classes': must be text"),
        ({"settings": PredictSettings()}, "wrong argument at 'settings'"),
        ({"time_point": 0.5}, "wrong argument at 'time_point': must be a whole number, not 0.5"),
    ],
)
def test_what_a_job_does_not_take_is_one_line(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        api.train(tmp_path / "run", **{"images": "im.tif", "labels": "lab.tif", **given})
    assert not (tmp_path / "run").exists()
