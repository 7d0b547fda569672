"""The worker, in this process: jobs, how they end, and the preview of a training."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import small_jobs
from napari_autosegnet import api, worker
from napari_autosegnet.data.annotations import parse_classes
from napari_autosegnet.data.grey_values import section_grey
from napari_autosegnet.errors import UserError
from napari_autosegnet.model import Model
from napari_autosegnet.run import Run
from napari_autosegnet.steps import check_same_classes
from napari_autosegnet.worker import (
    PredictJob,
    SearchJob,
    TrainJob,
    preview_file,
    read_info,
    read_job,
    write_job,
    write_slice,
)
from small_jobs import ENDLESS
from small_models import small_model


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own process keeps its priority and its handler of crashes."""
    monkeypatch.setattr(worker, "_stay_out_of_the_way", lambda: None)
    monkeypatch.setattr("faulthandler.enable", lambda: None)


def train_job(folder: Path, **changes: Any) -> TrainJob:
    data = small_jobs.write_data(folder)
    architecture = small_jobs.architecture_file(folder)
    return small_jobs.train_job(**changes).model_copy(update={**data, "architecture": architecture})


def work(run: Run, job: Any) -> int:
    run.path.mkdir(exist_ok=True)
    write_job(run, job)
    return worker.main([str(run.path)])


def give_slice(run: Run, pixels: np.ndarray) -> None:
    write_slice(run, pixels, section_grey(pixels))


def names(run: Run) -> list[str]:
    return [event["event"] for event in run.events()]


@pytest.mark.parametrize(
    "job",
    [
        SearchJob(images=(Path("a.tif"),), labels=(Path("b.tif"),), classes="0:a,1:b", settings=small_jobs.SEARCH),
        TrainJob(settings=small_jobs.TRAIN, continue_with=(Path("more.tif"),)),
        PredictJob(model=Path("model"), image=Path("a.tif"), out=Path("b.zarr"), device="cpu"),
    ],
)
def test_a_job_is_read_as_it_was_written(job: Any, tmp_path: Path) -> None:
    write_job(Run(tmp_path), job)
    assert read_job(Run(tmp_path)) == job


def test_a_job_that_cannot_be_read_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read .*job.json"):
        read_job(Run(tmp_path))
    (tmp_path / "job.json").write_text('{"step": "dance"}')
    with pytest.raises(UserError, match="is damaged"):
        read_job(Run(tmp_path))
    (tmp_path / "worker.json").write_text("{")
    assert read_info(Run(tmp_path)) is None


def test_search_then_training_with_a_preview(tmp_path: Path) -> None:
    run = Run(tmp_path / "run ü")
    assert work(run, small_jobs.search_job(tmp_path / "data")) == 0
    info = read_info(run)
    assert info is not None and (info.pid, info.step) == (os.getpid(), "search")
    slice_in_view = np.random.default_rng(0).integers(0, 255, (1, 70, 90), np.uint8)
    give_slice(run, slice_in_view)
    assert work(run, small_jobs.train_job()) == 0
    labels, uncertainty = (np.load(preview_file(run, name)) for name in ("labels", "uncertainty"))
    assert labels.shape == uncertainty.shape == (70, 90)
    assert labels.dtype == np.uint8 and set(np.unique(labels)) <= {1, 2, 3}
    assert uncertainty.dtype == np.float32 and uncertainty.min() >= 0 and uncertainty.max() <= 1 + 1e-6
    (told,) = {json.dumps([e["shape"], e["input"]]) for e in run.events() if e["event"] == "preview"}
    assert json.loads(told) == [[70, 90], preview_file(run, "input").stat().st_mtime_ns]
    assert names(run).count("started") == names(run).count("finished") == 2


def test_the_preview_is_what_the_model_says(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    pixels = np.random.default_rng(0).integers(0, 255, (1, 64, 64), np.uint8)
    give_slice(run, pixels)
    # One epoch with little averaging: the model of the end is that of the last preview.
    assert work(run, train_job(tmp_path / "data", epochs=1, average_weights=0.0)) == 0
    from napari_autosegnet.inference.compute.predictor import Predictor

    whole = Predictor(Model.load(run.model_folder)).whole_section(pixels).argmax(axis=0) + 1
    assert np.mean(np.load(preview_file(run, "labels")) == whole) > 0.99


def test_a_preview_has_no_label_where_the_slice_has_no_number(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    pixels = np.random.default_rng(0).integers(0, 255, (1, 64, 64)).astype(np.float32)
    pixels[0, 10:20, 30:50] = np.nan
    give_slice(run, pixels)
    assert work(run, train_job(tmp_path / "data", epochs=1)) == 0
    labels, uncertainty = (np.load(preview_file(run, name)) for name in ("labels", "uncertainty"))
    np.testing.assert_array_equal(labels > 0, np.isfinite(pixels[0]))
    assert np.isfinite(uncertainty).all()


def test_a_preview_does_not_change_the_training(tmp_path: Path) -> None:
    digests = []
    for name in ("with", "without"):
        run = Run(tmp_path / name)
        if name == "with":
            give_slice(run, np.random.default_rng(0).integers(0, 255, (1, 40, 40), np.uint8))
        assert work(run, train_job(tmp_path / "data")) == 0
        digests.append(Model.load(run.model_folder).description.weights_sha256)
    assert digests[0] == digests[1]


def test_a_slice_that_does_not_fit_is_told_once_and_the_training_goes_on(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    give_slice(run, np.zeros((3, 40, 40), np.uint8))
    assert work(run, train_job(tmp_path / "data")) == 0
    notes = [event["text"] for event in run.events() if event["event"] == "note"]
    assert notes == ["no preview: the slice is (3, 40, 40), the network takes 1 channels"]


def test_previews_take_a_fifth_of_the_time_at_most(tmp_path: Path) -> None:
    now, drawn = 0.0, []

    def model() -> Any:
        nonlocal now
        now += 10.0
        drawn.append(now)
        raise UserError("slow")

    preview = worker.Preview(Run(tmp_path), "cpu", lambda: False, clock=lambda: now)
    preview_file(Run(tmp_path), "input").parent.mkdir()
    preview_file(Run(tmp_path), "input").touch()
    for _ in range(200):
        now += 1.0
        preview(model)
    assert 0.1 * now < 10.0 * len(drawn) < 0.25 * now


def test_what_the_user_can_mend_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path / "run")
    job = small_jobs.search_job(tmp_path / "data").model_copy(update={"images": (tmp_path / "gone.tif",)})
    assert work(run, job) == worker.FAILED
    (failed,) = [event for event in run.events() if event["event"] == "failed"]
    assert "gone.tif" in failed["text"] and "\n" not in failed["text"]
    assert capsys.readouterr().err.strip() == f"error: {failed['text']}"


def test_a_run_in_use_is_not_called_failed(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    with run.locked():
        assert work(run, small_jobs.search_job(tmp_path / "data")) == worker.FAILED
    assert run.events() == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "memory .* did not suffice; close other"),
        (MemoryError(), "memory .* did not suffice"),
        (KeyError("surprise"), "an unexpected error, KeyError: 'surprise'"),
    ],
)
def test_other_errors_are_told_too(
    error: Exception, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any, **more: Any) -> None:
        raise error

    monkeypatch.setattr(api, "search", fail)
    run = Run(tmp_path / "run")
    assert work(run, small_jobs.search_job(tmp_path / "data")) == worker.FAILED
    (event,) = run.events()
    assert event["event"] == "failed"
    assert re.search(words, event["text"])
    assert "Traceback" in capsys.readouterr().err


def _when_trained(run: Run, action: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something at the end of the first epoch."""

    def on_epoch(self: Any, current: Any) -> None:
        action()

    monkeypatch.setattr(worker.Preview, "__call__", on_epoch)


def test_cancel_leaves_no_new_model_and_the_training_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path / "run")
    _when_trained(run, lambda: run.request("cancel"), monkeypatch)
    assert work(run, train_job(tmp_path / "data", epochs=ENDLESS)) == 0
    assert run.events()[-1]["reason"] == "cancelled" and not run.model_folder.exists()
    monkeypatch.undo()
    _when_trained(run, lambda: run.request("stop"), monkeypatch)
    monkeypatch.setattr(worker, "_stay_out_of_the_way", lambda: None)
    assert work(run, TrainJob(resume=True, device="cpu")) == 0
    assert run.events()[-1]["event"] == "stopped" and Model.load(run.model_folder)
    assert [event["epoch"] for event in run.events() if event["event"] == "epoch"] == [1, 2]


def test_cancel_ends_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path / "run")

    def pause_then_cancel() -> None:
        run.request("pause")
        run.request("cancel")

    _when_trained(run, pause_then_cancel, monkeypatch)
    assert work(run, train_job(tmp_path / "data", epochs=ENDLESS)) == 0
    assert names(run)[-3:] == ["paused", "resumed", "stopped"] and not run.model_folder.exists()


def test_more_labels_continue_the_model_and_that_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "run")
    job = train_job(tmp_path / "data")
    assert work(run, job) == 0
    before = Model.load(run.model_folder)
    settings = small_jobs.TRAIN.model_copy(update={"epochs": ENDLESS, "learning_rate": 1e-9, "average_weights": 0.0})
    more = job.model_copy(update={"settings": settings, "architecture": None, "continue_with": job.labels})
    _when_trained(run, lambda: run.request("cancel"), monkeypatch)
    assert work(run, more) == 0
    assert Model.load(run.model_folder).description.weights_sha256 == before.description.weights_sha256
    monkeypatch.undo()
    monkeypatch.setattr(worker, "_stay_out_of_the_way", lambda: None)
    _when_trained(run, lambda: run.request("stop"), monkeypatch)
    assert work(run, TrainJob(resume=True, device="cpu")) == 0
    after = Model.load(run.model_folder)
    assert after.normalisation == before.normalisation
    assert np.allclose(before.weights["stem.0.weight"], after.weights["stem.0.weight"], atol=1e-6)


def test_other_classes_do_not_continue(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    job = train_job(tmp_path / "data", epochs=1)
    assert work(run, job) == 0
    other = {"classes": "0:outside,1:outside,2:axon", "architecture": None, "continue_with": job.labels}
    assert work(run, job.model_copy(update=other)) == worker.FAILED
    assert "classes outside, axon, the model background, myelin, axon" in run.events()[-1]["text"]


@pytest.mark.parametrize(
    ("labels", "kept", "complaint"),
    [
        ("1:Background,2:2nd myelin,3:2nd  myelin!", None, ""),
        ("7:Background,8:2nd myelin,9:2nd  myelin!", "1:Background,2:2nd myelin,3:2nd  myelin!", ""),
        ("1:Background,2:axon,3:2nd  myelin!", "1:Background,2:2nd myelin,3:2nd  myelin!", ""),
        (
            "1:Background,4:axon,3:2nd  myelin!",
            "1:Background,2:2nd myelin,3:2nd  myelin!",
            "'axon' where the model has",
        ),
        ("1:Background,2:axon,3:2nd  myelin!", None, "'axon' where the model has '2nd myelin'"),
        ("2:2nd myelin,1:Background,3:2nd  myelin!", "1:Background,2:2nd myelin,3:2nd  myelin!", "in the order"),
        ("1:2nd myelin,2:Background,3:2nd  myelin!", "1:Background,2:2nd myelin,3:2nd  myelin!", "in the order"),
        ("1:Background,2:2nd myelin", None, "the labels have the classes Background, 2nd myelin, the model"),
    ],
)
def test_a_class_may_be_renamed_but_not_exchanged(labels: str, kept: str | None, complaint: str) -> None:
    given = None if kept is None else parse_classes(kept)
    if not complaint:
        check_same_classes(small_model(), parse_classes(labels), given)
        return
    with pytest.raises(UserError, match=complaint) as raised:
        check_same_classes(small_model(), parse_classes(labels), given)
    assert "new run" in str(raised.value)


def test_a_second_worker_changes_nothing_of_the_first(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    job = SearchJob()
    worker.write_job(run, job)
    with run.locked():
        worker.write_info(run, os.getpid(), "search")
        before = worker.info_file(run).read_bytes()
        assert work(run, TrainJob()) == worker.FAILED
        assert worker.info_file(run).read_bytes() == before
    assert run.events() == []


def test_a_prediction_has_a_run_of_its_own(tmp_path: Path) -> None:
    trained = Run(tmp_path / "trained")
    job = train_job(tmp_path / "data", epochs=1)
    assert work(trained, job) == 0
    run, out = Run(tmp_path / "prediction"), tmp_path / "out.zarr"
    assert work(run, PredictJob(model=trained.model_folder, image=job.images[0], out=out, device="cpu")) == 0
    assert out.is_dir()
    assert names(run)[0] == "started" and names(run)[-1] == "finished"
    assert work(run, PredictJob(model=tmp_path / "no", image=job.images[0], out=out, device="cpu")) == worker.FAILED
    assert names(run)[-1] == "failed"


def test_one_argument_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    assert worker.main([]) == worker.FAILED
    assert "usage" in capsys.readouterr().err
