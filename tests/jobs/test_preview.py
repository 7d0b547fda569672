"""The preview of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import small_jobs
from napari_autosegnet.data.gray_values import section_gray
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Note
from napari_autosegnet.interruption import never_stop
from napari_autosegnet.jobs.job_file import run_job
from napari_autosegnet.jobs.preview import Preview, preview_file, write_slice
from napari_autosegnet.model import Model
from napari_autosegnet.run import Run
from small_models import small_model


def train(run: Run, folder: Path, **changes: Any) -> None:
    data, architecture = small_jobs.write_data(folder), small_jobs.architecture_file(folder)
    job = small_jobs.train_job(**changes).model_copy(update={**data, "architecture": architecture})
    run_job(run, job, never_stop)


def give_slice(run: Run, pixels: np.ndarray) -> None:
    write_slice(run, pixels, section_gray(pixels))


def test_the_preview_is_what_the_model_says(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    pixels = np.random.default_rng(0).integers(0, 255, (1, 64, 64), np.uint8)
    give_slice(run, pixels)
    # One epoch with little averaging: the model of the end is that of the last preview.
    train(run, tmp_path / "data", epochs=1, optimization={"average_weights": 0.0})
    from napari_autosegnet.inference.compute.predictor import Predictor

    whole = Predictor(Model.load(run.model_folder)).whole_section(pixels).argmax(axis=0) + 1
    assert np.mean(np.load(preview_file(run, "labels")) == whole) > 0.99


def test_a_preview_has_no_label_where_the_slice_has_no_number(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    pixels = np.random.default_rng(0).integers(0, 255, (1, 64, 64)).astype(np.float32)
    pixels[0, 10:20, 30:50] = np.nan
    give_slice(run, pixels)
    train(run, tmp_path / "data", epochs=1)
    labels, uncertainty = (np.load(preview_file(run, name)) for name in ("labels", "uncertainty"))
    np.testing.assert_array_equal(labels > 0, np.isfinite(pixels[0]))
    assert np.isfinite(uncertainty).all()


def test_a_preview_does_not_change_the_training(tmp_path: Path) -> None:
    digests = []
    for name in ("with", "without"):
        run = Run(tmp_path / name)
        if name == "with":
            give_slice(run, np.random.default_rng(0).integers(0, 255, (1, 40, 40), np.uint8))
        train(run, tmp_path / "data")
        digests.append(Model.load(run.model_folder).description.weights_sha256)
    assert digests[0] == digests[1]


def test_a_slice_that_does_not_fit_is_told_once_and_the_training_goes_on(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    give_slice(run, np.zeros((3, 40, 40), np.uint8))
    train(run, tmp_path / "data")
    notes = [event.text for event in run.events() if isinstance(event, Note)]
    assert notes == ["no preview: the slice is (3, 40, 40), the network takes 1 channels"]


def test_previews_take_a_fifth_of_the_time_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, drawn = 0.0, []

    def model() -> Any:
        nonlocal now
        now += 10.0
        drawn.append(now)
        raise UserError("slow")

    monkeypatch.setattr("time.monotonic", lambda: now)
    preview = Preview(Run(tmp_path), "cpu", lambda: False)
    preview_file(Run(tmp_path), "input").parent.mkdir()
    preview_file(Run(tmp_path), "input").touch()
    for epoch in range(200):
        now += 1.0
        preview(model, epoch)
    assert 0.1 * now < 10.0 * len(drawn) < 0.25 * now


def test_a_preview_is_drawn_again_only_for_another_model_or_slice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, models = Run(tmp_path), []

    def model() -> Any:
        models.append(small_model())
        return models[-1]

    monkeypatch.setattr("time.monotonic", lambda: 0.0)
    preview = Preview(run, "cpu", never_stop)
    for state, new_slice, drawn in ((1, True, 1), (1, False, 1), (2, False, 2), (2, True, 3)):
        if new_slice:
            give_slice(run, np.random.default_rng(0).integers(0, 255, (1, 40, 40), np.uint8))
        preview(model, state)
        assert len(models) == drawn
