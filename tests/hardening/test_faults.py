"""What goes wrong around the program: signals, other processes, disks, clocks, names, numbers."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from learnable import blobs
from napari_autosegnet import api
from napari_autosegnet.architecture import SearchSpace
from napari_autosegnet.cli.app import run as run_command
from napari_autosegnet.cli.runs import describe
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Epoch, Event, Note
from napari_autosegnet.model import Model
from napari_autosegnet.run import Run
from napari_autosegnet.run import folder as run_module
from napari_autosegnet.search.search import Search
from napari_autosegnet.settings import (
    NetworkSettings,
    OptimizationSettings,
    SearchSettings,
    SelectionSettings,
    TrainSettings,
)
from napari_autosegnet.training.learner import MAX_ROLLBACKS
from napari_autosegnet.training.training_data import TrainingData
from run_configs import update_config
from small_disks import mounted
from small_models import small_model

NETWORK = NetworkSettings(base_width=4, max_width=8)
TRAIN = TrainSettings(
    epochs=6,
    steps_per_epoch=20,
    batch_size=2,
    patch_size=32,
    network=NETWORK,
    optimization=OptimizationSettings(average_weights=0.9),
)
SMALL = ["--patch-size", 32, "--batch-size", 2, "--base-width", 4, "--max-width", 8, "--average-weights", 0.9]
#: A folder name that a shell, an URL, a format string and a Windows user would each stumble over.
ODD = "ein Ordner ü 日本 'q' $HOME %20 {x} #1"

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals between processes are POSIX here")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("data") / ODD
    folder.mkdir()
    coarse = np.random.default_rng(0).integers(0, 2, (8, 8, 8)).repeat(8, 1).repeat(8, 2)
    noise = np.random.default_rng(1).integers(0, 100, coarse.shape)
    for name, array in (("image", coarse * 120 + noise), ("labels", coarse * 255)):
        tifffile.imwrite(folder / f"{name}.tif", array.astype(np.uint8), photometric="minisblack")
    return folder / "image.tif", folder / "labels.tif"


@pytest.fixture(scope="module")
def undisturbed(images: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    return api.train(
        run, images=[images[0]], labels=[images[1]], network="unet", settings=TRAIN, device="cpu"
    ).description.weights_sha256


def words_to_train(images: tuple[Path, Path], run: Path) -> list[str]:
    words = ["train", "--image", images[0], "--labels", images[1], "--network", "unet", "--run", run, "--device", "cpu"]
    words += ["--epochs", TRAIN.epochs, "--steps-per-epoch", TRAIN.steps_per_epoch, *SMALL]
    return [str(word) for word in words]


def start(words: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.Popen(
        [sys.executable, "-m", "napari_autosegnet", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def epochs(run: Path) -> int:
    return sum(isinstance(event, Epoch) for event in Run(run).events())


# Ends from outside


@posix
@pytest.mark.parametrize("how", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL])
def test_a_training_that_is_ended_goes_on_to_the_same_weights(
    how: signal.Signals, images: tuple[Path, Path], undisturbed: str, tmp_path: Path
) -> None:
    """SIGTERM as at a cluster's wall time, SIGKILL as when memory runs out; in a folder with an odd name."""
    run = tmp_path / ODD / "run"
    process = start(words_to_train(images, run))
    wait_for(lambda: epochs(run) >= 2, process)
    process.send_signal(how)
    _, error = process.communicate(timeout=60)
    assert "Traceback" not in error
    if how == signal.SIGTERM:
        assert process.returncode == 143
        assert "continue with: napari-autosegnet train --run" in error and "--resume" in error
        assert Model.load(run / "model").metrics  # the best so far can be used
        assert Run(run).events()[-1].event == "stopped"
    else:
        assert process.returncode == -how
    assert not Run(run).is_active and epochs(run) < TRAIN.epochs
    resumed = api.train(run, resume=True, device="cpu")
    assert resumed.description.weights_sha256 == undisturbed


@posix
def test_a_search_that_is_ended_goes_on(images: tuple[Path, Path], tmp_path: Path) -> None:
    run = tmp_path / ODD
    words = ["search", "--image", images[0], "--labels", images[1], "--run", run, "--device", "cpu", "--epochs", 40]
    words += ["--steps-per-epoch", 5, "--updates-per-epoch", 1, "--samples-per-update", 2, "--reward-patches", 4]
    words += ["--selection-candidates", 2, "--selection-finalists", 2, "--selection-steps", 2, *SMALL[:-2]]
    process = start([str(word) for word in words])
    wait_for(lambda: epochs(run) >= 2, process)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143 and "search --run" in error and "Traceback" not in error
    before = epochs(run)
    config = Run(run).read_config()
    config["search"]["epochs"] = before + 1
    update_config(Run(run), **config)
    assert api.search(run, resume=True, device="cpu") is not None
    assert epochs(run) == before + 1


def test_a_bit_that_flips_in_a_checkpoint_changes_no_weights(
    images: tuple[Path, Path], undisturbed: str, tmp_path: Path
) -> None:
    """The epoch before is gone on from, to the same weights; when that is damaged, too, nothing is."""
    run, told = tmp_path / "run", []

    def report(event: Event) -> None:
        told.append(event.event)

    data: dict[str, Any] = {"images": [images[0]], "labels": [images[1]], "network": "unet", "settings": TRAIN}
    api.train(run, **data, device="cpu", report=report, should_stop=lambda: told.count("epoch") >= 3)
    checkpoint = Run(run).checkpoint_file("training")
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 4
    checkpoint.write_bytes(content)
    resumed = api.train(run, resume=True, device="cpu")
    assert resumed.description.weights_sha256 == undisturbed
    notes = [event.text for event in Run(run).events() if isinstance(event, Note)]
    assert [note for note in notes if "went back to the one before it" in note] == notes


# Other processes


@pytest.mark.slow
def test_of_processes_that_start_together_one_trains(images: tuple[Path, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    processes = [start(words_to_train(images, run)) for _ in range(3)]
    ends = [(process.communicate(timeout=180)[1], process.returncode) for process in processes]
    assert sorted(status for _, status in ends) == [0, 1, 1]
    for error, status in ends:
        if status:
            last = error.strip().splitlines()[-1]
            assert "in use by another process" in last or "holds a training already" in last
    Model.load(run / "model")
    assert epochs(run) == TRAIN.epochs


def test_of_processes_that_write_one_store_none_spoils_it(images: tuple[Path, Path], tmp_path: Path) -> None:
    small_model().save(tmp_path / "model")
    words = ["predict", "--model", str(tmp_path / "model"), "--image", str(images[0]), "--device", "cpu", "--out"]
    # Whatever links lead there, of the folder or of the store.
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "link.zarr").symlink_to(tmp_path / "store.zarr")
    processes = [start([*words, str(tmp_path / name)]) for name in ("link/store.zarr", "link.zarr")]
    ends = [(process.communicate(timeout=180)[1], process.returncode) for process in processes]
    assert 0 in {status for _, status in ends}
    for error, status in ends:
        assert status == 0 or "another process is writing" in error
    assert [file.name for file in tmp_path.glob("*.ledger.jsonl")] == ["store.zarr.ledger.jsonl"]
    assert run_command([*words, str(tmp_path / "alone.zarr")]) == 0
    both = [
        {str(file.relative_to(store)): file.read_bytes() for file in sorted(store.rglob("*")) if file.is_file()}
        for store in (tmp_path / "store.zarr", tmp_path / "alone.zarr")
    ]
    assert both[0] == both[1]


# Disks


def commands_that_write(images: tuple[Path, Path], model: Path, out: Path) -> list[list[str]]:
    image, labels = map(str, images)
    return [
        ["search", "--image", image, "--labels", labels, "--run", str(out / "searched"), "--epochs", "1"],
        words_to_train(images, out / "trained"),
        ["predict", "--model", str(model), "--image", image, "--out", str(out / "store.zarr")],
        ["predict", "--model", str(model), "--image", image, "--out", str(out / "labels.tif")],
        ["show", str(model), "--out", str(out / "architecture.png")],
        ["demo", "--out", str(out / "demo")],
    ]


@pytest.mark.parametrize("kind", ["read-only", "full"])
def test_a_disk_that_takes_nothing_is_told_in_one_line(
    kind: str, images: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small_model().save(tmp_path / "model")
    disk = tmp_path / "disk"
    with mounted(disk, "16k"):
        if kind == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        else:
            free = os.statvfs(disk)
            (disk / "filler").write_bytes(bytes(free.f_bavail * free.f_bsize))
        before = sorted(path.name for path in disk.iterdir())
        for words in commands_that_write(images, tmp_path / "model", disk):
            capfd.readouterr()
            assert run_command(words) == 1, words
            error = capfd.readouterr().err
            assert "Traceback" not in error
            last = error.strip().splitlines()[-1]
            assert last.startswith("error: ") and str(disk) in last, last
        if kind == "read-only":
            assert sorted(path.name for path in disk.iterdir()) == before
        assert list(disk.rglob("*.partial")) == []


# Clocks


def test_jumps_of_the_clock_change_nothing(
    images: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is set forth and back by days during a training with a time budget."""
    generator = random.Random(0)
    real = time.time

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.fromtimestamp(real(), UTC) + timedelta(days=generator.uniform(-3, 3))

    monkeypatch.setattr(time, "time", lambda: real() + generator.uniform(-3e5, 3e5))
    monkeypatch.setattr(run_module, "datetime", Jumping)
    run = tmp_path / "run"
    settings = TRAIN.model_copy(update={"budget": 1000.0})
    api.train(run, images=[images[0]], labels=[images[1]], network="unet", settings=settings, device="cpu")
    assert epochs(run) == TRAIN.epochs
    seconds = [event.seconds for event in Run(run).events() if isinstance(event, Epoch)]
    assert seconds == sorted(seconds) and seconds[-1] < 1000
    assert describe(Run(run))["epoch"] == TRAIN.epochs


# Numbers


class Poisoned:
    """Patches of which some are NaN, as after an overflow."""

    def __init__(self, poisoned: Callable[[int], bool]) -> None:
        self.inner = blobs().patches
        self.class_frequencies = self.inner.class_frequencies
        self.poisoned, self.calls = poisoned, 0

    def sample(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls += 1
        images, targets = self.inner.sample(count, generator)
        return (images * float("nan") if self.poisoned(self.calls) else images), targets


SEARCH = SearchSettings(
    epochs=4,
    patch_size=32,
    batch_size=2,
    steps_per_epoch=3,
    updates_per_epoch=1,
    samples_per_update=2,
    reward_patches=4,
    space=SearchSpace(cells=1),
    selection=SelectionSettings(candidates=2, finalists=2, steps=2),
    network=NETWORK,
)


def search(poisoned: Callable[[int], bool], notes: list[str]) -> Search:
    data = blobs()
    patches = TrainingData(Poisoned(poisoned), data.validation_images, data.validation_targets, data.class_names)
    found = Search(patches, SEARCH, in_channels=1)

    def report(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    found.run(report=report)
    return found


def test_a_loss_of_the_search_that_is_not_finite_is_rolled_back() -> None:
    notes: list[str] = []
    found = search(lambda call: call == 5, notes)
    assert [note for note in notes if "not finite: went back one epoch and halved" in note] == notes[:1]
    assert found.budget.epoch == SEARCH.epochs and found.supernet.learner.rate_factor == 0.5
    assert all(torch.isfinite(value).all() for value in found.supernet.learner.network.state_dict().values())


def test_a_loss_of_the_search_that_is_never_finite_ends_it_in_one_line() -> None:
    notes: list[str] = []
    with pytest.raises(UserError, match="not finite even at a low learning rate"):
        search(lambda call: True, notes)
    assert len(notes) == MAX_ROLLBACKS


def test_events_are_json_for_every_program(images: tuple[Path, Path], tmp_path: Path) -> None:
    """No NaN and no Infinity, which Python writes and others do not read."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    run = Run.create(tmp_path / "run")
    scores = {"a": float("inf"), "b": -float("inf"), "c": 1.0}
    run.report(Epoch(step="train", epoch=1, loss=float("nan"), iou=scores, seconds=1e308))
    (line,) = run.events_file.read_text(encoding="utf-8").splitlines()
    event = json.loads(line, parse_constant=refuse)
    assert event["loss"] is None and event["iou"] == {"a": None, "b": None, "c": 1.0} and event["epoch"] == 1
    assert event["seconds"] is None
