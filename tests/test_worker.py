"""The worker, in this process: jobs and how they end."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import small_jobs
from napari_autosegnet import worker
from napari_autosegnet.data.gray_values import section_gray
from napari_autosegnet.events import Epoch, Failed, Stopped, silent
from napari_autosegnet.interruption import ShouldStop
from napari_autosegnet.jobs.job_file import Job, write_job
from napari_autosegnet.jobs.predict import PredictJob
from napari_autosegnet.jobs.preview import Preview, preview_file, write_slice
from napari_autosegnet.jobs.running import running
from napari_autosegnet.jobs.search import SearchJob
from napari_autosegnet.jobs.train import TrainJob
from napari_autosegnet.jobs.worker_info import info_file, read_info, write_info
from napari_autosegnet.model import Model
from napari_autosegnet.run import Request, Run
from small_jobs import ENDLESS


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own process keeps its priority and its handler of crashes."""
    monkeypatch.setattr(worker, "give_way", lambda: None)
    monkeypatch.setattr("faulthandler.enable", lambda: None)


def train_job(folder: Path, **changes: Any) -> TrainJob:
    data = small_jobs.write_data(folder)
    architecture = small_jobs.architecture_file(folder)
    return small_jobs.train_job(**changes).model_copy(update={**data, "architecture": architecture})


def work(run: Run, job: Any) -> int:
    run.path.mkdir(exist_ok=True)
    write_job(run, job)
    return worker.main([str(run.path)])


def names(run: Run) -> list[str]:
    return [event.event for event in run.events()]


def test_search_then_training_with_a_preview(tmp_path: Path) -> None:
    run = Run(tmp_path / "run ü")
    assert work(run, small_jobs.search_job(tmp_path / "data")) == 0
    info = read_info(run)
    assert info is not None and (info.pid, info.step) == (os.getpid(), "search")
    slice_in_view = np.random.default_rng(0).integers(0, 255, (1, 70, 90), np.uint8)
    write_slice(run, slice_in_view, section_gray(slice_in_view))
    assert work(run, small_jobs.train_job()) == 0
    labels, uncertainty = (np.load(preview_file(run, name)) for name in ("labels", "uncertainty"))
    assert labels.shape == uncertainty.shape == (70, 90)
    assert labels.dtype == np.uint8 and set(np.unique(labels)) <= {1, 2, 3}
    assert uncertainty.dtype == np.float32 and uncertainty.min() >= 0 and uncertainty.max() <= 1 + 1e-6
    (told,) = {json.dumps([e.shape, e.input]) for e in run.events() if e.event == "preview"}
    assert json.loads(told) == [[70, 90], preview_file(run, "input").stat().st_mtime_ns]
    assert names(run).count("started") == names(run).count("finished") == 2


def test_what_the_user_can_mend_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path / "run")
    job = small_jobs.search_job(tmp_path / "data").model_copy(update={"images": (tmp_path / "gone.tif",)})
    assert work(run, job) == worker.FAILED
    (failed,) = [event for event in run.events() if isinstance(event, Failed)]
    assert "gone.tif" in failed.text and "\n" not in failed.text
    assert capsys.readouterr().err.strip() == f"error: {failed.text}"


def test_a_run_in_use_is_not_called_failed(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    with run.locked():
        assert work(run, small_jobs.search_job(tmp_path / "data")) == worker.FAILED
    assert run.events() == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "too little memory was free.*; end other"),
        (MemoryError(), "too little memory was free"),
        (KeyError("surprise"), "an unexpected error, KeyError: 'surprise'"),
    ],
)
def test_other_errors_are_told_too(
    error: Exception, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any, **more: Any) -> None:
        raise error

    monkeypatch.setattr(worker, "run_job", fail)
    run = Run(tmp_path / "run")
    assert work(run, small_jobs.search_job(tmp_path / "data")) == worker.FAILED
    (event,) = run.events()
    assert isinstance(event, Failed)
    assert re.search(words, event.text)
    assert "Traceback" in capsys.readouterr().err


def _when_trained(run: Run, action: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something at the end of the first epoch."""

    def on_epoch(self: Any, current: Any, epoch: Any) -> None:
        action()

    monkeypatch.setattr(Preview, "__call__", on_epoch)


def test_cancel_leaves_no_new_model_and_the_training_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path / "run")
    _when_trained(run, lambda: run.request("cancel"), monkeypatch)
    assert work(run, train_job(tmp_path / "data", epochs=ENDLESS)) == 0
    assert run.events()[-1].reason == "cancelled" and not run.model_folder.exists()
    monkeypatch.undo()
    _when_trained(run, lambda: run.request("stop"), monkeypatch)
    monkeypatch.setattr(worker, "give_way", lambda: None)
    assert work(run, TrainJob(resume=True, device="cpu")) == 0
    assert run.events()[-1].event == "stopped" and Model.load(run.model_folder)
    assert [event.epoch for event in run.events() if isinstance(event, Epoch)] == [1, 2]


def test_a_cancel_is_never_taken_for_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes at any moment, also between two looks at what is asked for."""

    def train(run: Run, job: Job, should_stop: ShouldStop) -> None:
        with running(run, "train", silent, should_stop) as (_, stop):
            while not stop():
                pass

    def cancelled_after(run: Run, looks: Iterator[int], what: Request, look: Any = Run.requested) -> bool:
        answer = look(run, what)
        if next(looks, None) == 0:
            run.request("cancel")
        return answer

    monkeypatch.setattr(worker, "run_job", train)
    ends = []
    for looks in range(6):
        run = Run.create(tmp_path / f"run-{looks}")
        write_job(run, TrainJob(resume=True))
        monkeypatch.setattr(Run, "requested", partialmethod(cancelled_after, iter(range(looks, -1, -1))))
        assert worker.main([str(run.path)]) == 0
        ends += [event.reason for event in run.events() if isinstance(event, Stopped)]
    assert ends == ["cancelled"] * 6


def test_cancel_ends_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path / "run")

    def pause_then_cancel() -> None:
        run.request("pause")
        threading.Timer(0.3, run.request, ("cancel",)).start()

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
    settings = small_jobs.TRAIN.changed(epochs=ENDLESS, optimization={"learning_rate": 1e-9, "average_weights": 0.0})
    more = job.model_copy(update={"settings": settings, "architecture": None, "continue_with": job.labels})
    _when_trained(run, lambda: run.request("cancel"), monkeypatch)
    assert work(run, more) == 0
    assert Model.load(run.model_folder).description.weights_sha256 == before.description.weights_sha256
    monkeypatch.undo()
    monkeypatch.setattr(worker, "give_way", lambda: None)
    _when_trained(run, lambda: run.request("stop"), monkeypatch)
    assert work(run, TrainJob(resume=True, device="cpu")) == 0
    after = Model.load(run.model_folder)
    assert after.normalization == before.normalization
    assert np.allclose(before.weights["stem.0.weight"], after.weights["stem.0.weight"], atol=1e-6)


def test_other_classes_do_not_continue(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    job = train_job(tmp_path / "data", epochs=1)
    assert work(run, job) == 0
    other = {"classes": "0:outside,1:outside,2:axon", "architecture": None, "continue_with": job.labels}
    assert work(run, job.model_copy(update=other)) == worker.FAILED
    assert "classes outside, axon, the model background, myelin, axon" in run.events()[-1].text


def test_a_second_worker_changes_nothing_of_the_first(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    job = SearchJob()
    write_job(run, job)
    with run.locked():
        write_info(run, os.getpid(), "search")
        before = info_file(run).read_bytes()
        assert work(run, TrainJob()) == worker.FAILED
        assert info_file(run).read_bytes() == before
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
