"""What is painted while a fit runs: learned from at its next epoch, checked where it was checked, and never lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import small_jobs
from napari_autosegnet import api
from napari_autosegnet.data.split import split_stacks
from napari_autosegnet.events import DataRead, Epoch, Event, LabelsTaken, WarningRaised, listeners
from napari_autosegnet.jobs.configuration import RunConfiguration
from napari_autosegnet.jobs.fit import FitJob
from napari_autosegnet.jobs.job_file import write_job
from napari_autosegnet.jobs.menu import read_menu
from napari_autosegnet.jobs.more_labels import hand_over_labels
from napari_autosegnet.jobs.preparation import LabeledData
from napari_autosegnet.model import Model
from napari_autosegnet.run import Run

#: One network: several begin the same epochs in another order when they are resumed.
SETTINGS = small_jobs.FIT.changed(candidates=1, epochs=6)
UNTAUGHT = SETTINGS.changed(teacher="none")
#: Of no class.
NOTHING = 9


class Painting:
    """An image of the sample, of whose labels more and more is painted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        given = small_jobs.write_data(folder)
        self.image, self.classes = given["images"][0], given["classes"]
        with Image.open(given["labels"][0]) as picture:
            self.all = np.asarray(picture).copy()

    def labels(self, name: str, painted: npt.NDArray[np.bool_]) -> Path:
        path = self.folder / f"{name}.png"
        Image.fromarray(np.where(painted, self.all, np.uint8(NOTHING))).save(path)
        return path

    def rows(self, every: int) -> npt.NDArray[np.bool_]:
        """Four of so many rows painted."""
        return np.broadcast_to((np.arange(256) % every < 4)[:, np.newaxis], (256, 256))

    def job(self, labels: Path) -> dict[str, Any]:
        return {"images": [self.image], "labels": [labels], "classes": self.classes, "device": "cpu"}


@pytest.fixture
def painting(tmp_path: Path) -> Painting:
    return Painting(tmp_path / "data")


def at_epoch(number: int, do: Callable[[], None]) -> Callable[[Event], None]:
    def report(event: Event) -> None:
        if isinstance(event, Epoch) and event.epoch == number:
            do()

    return report


def taken(run: Run) -> list[LabelsTaken]:
    return [event for event in run.events() if isinstance(event, LabelsTaken)]


def test_new_strokes_are_in_at_the_next_epoch_and_a_resumed_fit_ends_as_an_undisturbed_one(
    painting: Painting, tmp_path: Path
) -> None:
    few, more = painting.labels("few", painting.rows(64)), painting.labels("more", painting.rows(32))
    whole, stopped = Run(tmp_path / "whole"), Run(tmp_path / "stopped")

    def handing(run: Run) -> Callable[[Event], None]:
        return at_epoch(2, lambda: hand_over_labels(run, [painting.image], [more]))

    undisturbed = api.fit(whole.path, **painting.job(few), settings=SETTINGS, report=handing(whole))
    (event,) = taken(whole)
    assert event.epoch == 2 and event.labels == (str(more),)
    before = RunConfiguration.load(whole)
    assert before.data is not None and before.data.labels == (more,) and before.labels_taken == 1
    assert sum(event.training_pixels.values()) > 1.9 * sum(pixels_at_first(whole).values())
    assert undisturbed.metrics["validation"]["pixels"] == event.validation_pixels, "checked on what was added, too"
    told: list[Event] = []

    def asked() -> bool:
        return any(isinstance(event, Epoch) and event.epoch == 2 for event in told)

    listen = listeners(handing(stopped), told.append)
    api.fit(stopped.path, **painting.job(few), settings=SETTINGS, report=listen, should_stop=asked)
    resumed = api.fit(stopped.path, resume=True, device="cpu")
    assert resumed.description.weights_sha256 == undisturbed.description.weights_sha256
    assert [each.epoch for each in taken(stopped)] == [2]


def pixels_at_first(run: Run) -> dict[str, int]:
    read = next(event for event in run.events() if isinstance(event, DataRead))
    return dict(zip(read.classes, np.sum(read.training_pixels, axis=0).tolist(), strict=True))


def pixels_checked_at_first(run: Run) -> dict[str, int]:
    read = next(event for event in run.events() if isinstance(event, DataRead))
    return dict(zip(read.classes, np.sum(read.validation_pixels, axis=0).tolist(), strict=True))


def test_what_is_painted_on_the_checked_part_is_checked(painting: Painting, tmp_path: Path) -> None:
    few = painting.labels("few", painting.rows(64))
    run = Run(tmp_path / "run")

    def paint_there() -> None:
        data = LabeledData.given([painting.image], [few], painting.classes)
        painted = painting.rows(64).copy()
        for region in split_stacks(data.stacks, data.split).validation:
            painted[slice(*region.y), slice(*region.x)] = True
        hand_over_labels(run, [painting.image], [painting.labels("there", painted)])

    api.fit(run.path, **painting.job(few), settings=UNTAUGHT.changed(epochs=2), report=at_epoch(1, paint_there))
    (event,) = taken(run)
    assert event.training_pixels == pixels_at_first(run)
    assert sum(event.validation_pixels.values()) > 4000


@pytest.mark.slow
def test_networks_that_compete_are_rated_anew_on_the_same_pixels(painting: Painting, tmp_path: Path) -> None:
    few, more = painting.labels("few", painting.rows(64)), painting.labels("more", painting.rows(16))
    run = Run(tmp_path / "run")
    listen = at_epoch(3, lambda: hand_over_labels(run, [painting.image], [more]))
    settings = small_jobs.FIT.changed(candidates=2, epochs=6, learn_from_everything=False)
    api.fit(run.path, **painting.job(few), settings=settings, report=listen)
    (event,) = taken(run)
    ratings = {
        entry.name: Model.load(run.path / "networks" / entry.name).metrics["validation"] for entry in read_menu(run)
    }
    assert len(ratings) == 2
    assert all(rating["pixels"] == event.validation_pixels for rating in ratings.values())


def test_strokes_that_cannot_be_learned_from_are_refused_in_a_line(painting: Painting, tmp_path: Path) -> None:
    few = painting.labels("few", painting.rows(64))
    erased = painting.labels("erased", np.zeros((256, 256), bool))
    run = Run(tmp_path / "run")
    told: list[Event] = []

    def disturb(event: Event) -> None:
        told.append(event)
        at_epoch(1, lambda: hand_over_labels(run, [painting.image], [erased]))(event)
        at_epoch(2, lambda: run.request("labels", '{"images": 3}'))(event)
        at_epoch(3, lambda: hand_over_labels(run, [tmp_path / "another.png"], [erased]))(event)
        at_epoch(4, lambda: hand_over_labels(run, [painting.image], [tmp_path / "gone.zarr"]))(event)

    disturbed = api.fit(run.path, **painting.job(few), settings=UNTAUGHT, report=disturb)
    warnings = [event.text for event in told if isinstance(event, WarningRaised)]
    assert len(warnings) == 3 and all(text.startswith("the new strokes are not learned from: ") for text in warnings)
    assert "which no label has" in warnings[0]
    assert "damaged" in warnings[1] and "gone.zarr" in warnings[2]
    assert not taken(run)
    assert disturbed.metrics["validation"]["pixels"] == pixels_checked_at_first(run)


@pytest.mark.slow
def test_a_worker_that_is_killed_after_a_hand_over_goes_on_with_the_new_strokes(
    painting: Painting, tmp_path: Path
) -> None:
    few, more = painting.labels("few", painting.rows(64)), painting.labels("more", painting.rows(32))
    settings = SETTINGS.changed(epochs=12, steps_per_epoch=4)
    run = Run.create(tmp_path / "run")
    write_job(run, FitJob(**painting.job(few), settings=settings))
    worker = [sys.executable, "-m", "napari_autosegnet.worker", str(run.path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(worker, env=environment)
    try:
        wait_for(lambda: any(isinstance(event, Epoch) for event in run.events()), process)
        hand_over_labels(run, [painting.image], [more])
        wait_for(lambda: bool(taken(run)), process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    write_job(run, FitJob(resume=True, device="cpu"))
    subprocess.run(worker, env=environment, check=True)
    event = taken(run)[0]
    assert 1 <= event.epoch < 12 and json.loads(run.config_file.read_text())["labels_taken"] == 1

    def hand_over() -> None:
        hand_over_labels(Run(tmp_path / "quiet"), [painting.image], [more])

    undisturbed = api.fit(
        tmp_path / "quiet", **painting.job(few), settings=settings, report=at_epoch(event.epoch, hand_over)
    )
    assert Model.load(run.model_folder).description.weights_sha256 == undisturbed.description.weights_sha256


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 600  # a worker is polite: on a busy computer it takes minutes
    while not condition():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)


def stopped_after_two_epochs(folder: Path, job: dict[str, Any]) -> Run:
    """The run of a fit that was stopped."""
    told: list[Event] = []
    api.fit(
        folder,
        **job,
        settings=UNTAUGHT,
        report=told.append,
        should_stop=lambda: any(isinstance(event, Epoch) and event.epoch == 2 for event in told),
    )
    return Run(folder)


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_strokes_move_with_the_run_that_they_were_handed_to(how: str, tmp_path: Path) -> None:
    """The dock writes images and strokes into the run; what was not taken before it was moved is taken after it."""
    painting = Painting(tmp_path / "run" / "annotation")
    few, more = painting.labels("few", painting.rows(64)), painting.labels("more", painting.rows(32))
    run = stopped_after_two_epochs(tmp_path / "run", painting.job(few))
    hand_over_labels(run, [painting.image], [more])
    new = tmp_path / "elsewhere" / "new"
    new.parent.mkdir()
    if how == "moved":
        run.path.rename(new)
    else:
        shutil.copytree(run.path, new)
        # That of the first run is painted on; the copy has its own.
        painting.labels("more", painting.rows(16))
    api.fit(new, resume=True, device="cpu")
    (event,) = taken(Run(new))
    assert event.labels == (str(new / "annotation" / "more.png"),)
    data = RunConfiguration.load(Run(new)).data
    assert data is not None and data.images == (new / "annotation" / painting.image.name,)
    if how == "copied":
        api.fit(run.path, resume=True, device="cpu")
        assert sum(taken(run)[0].training_pixels.values()) > 1.5 * sum(event.training_pixels.values())


def test_strokes_that_wait_are_those_of_an_image_that_was_moved(tmp_path: Path) -> None:
    """Handed over for the old path, they were left out, without a word."""
    painting = Painting(tmp_path / "data")
    few, more = painting.labels("few", painting.rows(64)), painting.labels("more", painting.rows(32))
    run = stopped_after_two_epochs(tmp_path / "run", painting.job(few))
    hand_over_labels(run, [painting.image], [more])
    image, labels = (path.rename(tmp_path / f"moved-{path.name}") for path in (painting.image, few))
    api.fit(run.path, images=[image], labels=[labels], resume=True, device="cpu")
    (event,) = taken(run)
    assert event.labels == (str(more),)
    data = RunConfiguration.load(run).data
    assert data is not None and (data.images, data.labels) == ((image,), (more,))
