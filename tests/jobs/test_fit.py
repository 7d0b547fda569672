"""From labeled images to a model and a menu in one go."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import small_jobs
from napari_autosegnet import api, figures
from napari_autosegnet.cli.app import run as run_command
from napari_autosegnet.errors import StoppedError, UserError
from napari_autosegnet.event_words import under_way
from napari_autosegnet.events import CandidateRated, Epoch, Event, Note, QualityMeasured, RoundBegun
from napari_autosegnet.jobs.menu import checked_model, model_of, read_menu
from napari_autosegnet.model import Model
from napari_autosegnet.run import Run, RunHistory
from napari_autosegnet.training import self_teaching
from napari_autosegnet.training.self_teaching import FOREST_EPOCHS

SETTINGS = small_jobs.FIT


def fit(run: Path, data: dict[str, Any], **more: Any) -> Model:
    return api.fit(run, **data, settings=SETTINGS, device="cpu", **more)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return small_jobs.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]) -> Run:
    run = Run(tmp_path_factory.mktemp("fit") / "run")
    fit(run.path, data)
    return run


def test_the_menu_says_what_each_network_is_worth(finished: Run) -> None:
    menu = read_menu(finished)
    assert len(menu) == 2 and sum(entry.chosen for entry in menu) == 1
    assert menu[0].mean_iou >= menu[1].mean_iou and menu[0].difference == (0, 0), "the best, against itself"
    assert menu[1].difference[0] <= menu[1].mean_iou - menu[0].mean_iou <= menu[1].difference[1]
    assert all(entry.interval[0] <= entry.mean_iou <= entry.interval[1] for entry in menu)
    assert {goal for entry in menu for goal in entry.goals} == {"accurate", "balanced", "fast"}
    assert sum(entry.epochs for entry in menu) == SETTINGS.epochs
    assert all(entry.megapixels_per_second > 0 and entry.hours(10**9) > 0 for entry in menu)


def test_the_chosen_network_is_the_runs_model_and_has_its_figures_and_a_temperature(finished: Run) -> None:
    (chosen,) = [entry for entry in read_menu(finished) if entry.chosen]
    model = Model.load(finished.model_folder)
    kept = Model.load(model_of(finished, chosen))
    assert model.halo is not None and kept.specification == model.specification
    assert {*model.half_precision} == {"float16", "bfloat16"}
    assert all((kept.weights[name] == value).all() for name, value in model.weights.items())
    checked = Model.load(checked_model(finished))
    assert model.description.training["learned_from_everything"]
    assert not checked.description.training["learned_from_everything"]
    assert not all((checked.weights[name] == value).all() for name, value in model.weights.items())
    assert checked.metrics == model.metrics, "its quality is that before it learned from the validation part"
    *_, quality = (event for event in finished.events() if isinstance(event, QualityMeasured))
    assert model.metrics["validation"]["mean_iou"] == quality.mean_iou


def test_curves_and_menu_are_drawn(finished: Run, tmp_path: Path) -> None:
    history = RunHistory.of(finished.events())
    rated = [event for event in finished.events() if isinstance(event, CandidateRated)]
    begun = [event for event in finished.events() if isinstance(event, RoundBegun)]
    assert [name for event in begun for name in event.networks] == [event.network for event in rated]
    assert under_way(begun[0]) == "comparing 2 networks, round 1 of 2"
    assert under_way(begun[-1]) == f"training the chosen one to the end: {begun[-1].networks[0]}"
    assert set(history.networks("fit")) == {event.network for event in rated}
    assert len(history.points("fit", "loss")) == SETTINGS.epochs
    assert 0 < len(history.points("fit", "mean_iou")) < SETTINGS.epochs, "in the last round nothing is measured"
    for network in history.networks("fit"):
        assert 0 < len(history.points("fit", "loss", network)) < SETTINGS.epochs
    figures.draw_curves(finished.events(), tmp_path / "curves.svg")
    figures.draw_menu(read_menu(finished), tmp_path / "menu.svg")
    assert all(entry.name in (tmp_path / "menu.svg").read_text() for entry in read_menu(finished))


def test_show_prints_the_menu(finished: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["show", str(finished.path)]) == 0
    printed = capsys.readouterr().out
    assert all(entry.name in printed for entry in read_menu(finished)) and "the run's model" in printed
    assert run_command(["show", str(finished.path), "--json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)["networks"]] == [
        entry.name for entry in read_menu(finished)
    ]


def test_a_second_fit_in_the_same_run_is_refused(finished: Run, data: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="holds a model already"):
        fit(finished.path, data)
    with pytest.raises(UserError, match="holds no fit to resume"):
        other = Run.create(finished.path.parent / "empty")
        other.config_file.write_text('{"version": 1}')
        api.fit(other.path, resume=True)


def test_another_network_is_chosen_by_its_name(
    finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(finished.path, run.path)
    (other,) = [entry for entry in read_menu(run) if not entry.chosen]
    assert run_command(["fit", "--run", str(run.path), "--choose", other.name, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["chosen"] == other.name and printed["model"] == str(run.model_folder)
    assert {"name", "mean_iou", "interval", "megapixels_per_second", "parameters", "model"} <= set(
        printed["networks"][0]
    )
    kept = Model.load(Path(next(each["model"] for each in printed["networks"] if each["name"] == other.name)))
    assert Model.load(run.model_folder).specification == kept.specification
    assert [entry.name for entry in read_menu(run) if entry.chosen] == [other.name]
    assert run_command(["fit", "--run", str(run.path), "--choose", "w1"]) == 1
    assert f"choose one of {read_menu(run)[0].name}" in capsys.readouterr().err


def test_a_damaged_menu_is_one_line(finished: Run, tmp_path: Path) -> None:
    run = Run(tmp_path)
    entries = json.loads(finished.menu_file.read_text())
    run.menu_file.write_text(json.dumps([{**entries[0], "name": "../../elsewhere"}]))
    with pytest.raises(UserError, match="damaged"):
        read_menu(run)
    run.menu_file.write_text("[{")
    with pytest.raises(UserError):
        read_menu(run)


def test_stopped_before_anything_was_learned(tmp_path: Path, data: dict[str, Any]) -> None:
    with pytest.raises(StoppedError, match="--resume"):
        fit(tmp_path / "run", data, should_stop=lambda: True)
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("epochs", [1, 4], ids=["while a forest teaches it", "while it teaches itself"])
def test_a_fit_that_is_taught_is_resumed_exactly(
    tmp_path: Path, data: dict[str, Any], epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_teaching, "SURE", 0.5)  # after so few steps it is sure of nothing
    monkeypatch.setattr(self_teaching, "LOSS_MAY_RISE", 100.0)
    with Image.open(data["labels"][0]) as picture:
        strokes = np.asarray(picture).copy()
    strokes[np.arange(256) % 64 > 3] = 9  # of no class
    Image.fromarray(strokes).save(tmp_path / "strokes.png")
    given = data | {"labels": [tmp_path / "strokes.png"], "device": "cpu"}
    settings = SETTINGS.changed(candidates=1, epochs=FOREST_EPOCHS + 3)
    undisturbed = api.fit(tmp_path / "whole", **given, settings=settings)
    told: list[Event] = []

    def after_epochs() -> bool:
        return sum(isinstance(event, Epoch) for event in told) == epochs

    api.fit(tmp_path / "run", **given, settings=settings, report=told.append, should_stop=after_epochs)
    resumed = api.fit(tmp_path / "run", resume=True, device="cpu")
    assert resumed.description.weights_sha256 == undisturbed.description.weights_sha256
    assert any("a forest" in event.text for event in told if isinstance(event, Note))
    untaught = api.fit(tmp_path / "untaught", **given, settings=settings.changed(teacher="none"))
    assert untaught.description.weights_sha256 != undisturbed.description.weights_sha256


@pytest.mark.slow
def test_a_killed_fit_ends_as_an_undisturbed_one(finished: Run, data: dict[str, Any], tmp_path: Path) -> None:
    words = ["fit", "--run", str(tmp_path / "run"), "--device", "cpu", "--image", str(data["images"][0])]
    words += ["--labels", str(data["labels"][0]), "--classes", data["classes"], "--epochs", "5"]
    words += ["--candidates", "2", "--steps-per-epoch", "2", "--batch-size", "2", "--patch-size", "32"]
    words += ["--augment-rotation", "none", "--augment-elastic", "0", "--augment-blur", "0"]
    line = [sys.executable, "-m", "napari_autosegnet"]
    run = Run(tmp_path / "run")
    for attempt in range(12):
        process = subprocess.Popen([*line, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        began = len(run.events()) if run.events_file.exists() else 0
        end = time.monotonic() + 120
        # Killed a moment after some event of this attempt, at another one each time.
        while process.poll() is None and time.monotonic() < end:
            if run.events_file.exists() and len(run.events()) > began + 3 + attempt:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        process.communicate()
        if process.returncode == 0:
            break
        if run.config_file.exists():
            words = ["fit", "--run", str(run.path), "--resume", "--device", "cpu"]
    assert process.returncode == 0
    ours, theirs = Model.load(run.model_folder), Model.load(finished.model_folder)
    by_name = {entry.name: entry for entry in read_menu(finished)}
    for entry in read_menu(run):
        # Speeds are measured anew; which network is chosen for the last round may differ with them.
        if entry.epochs == by_name[entry.name].epochs:
            assert entry.mean_iou == by_name[entry.name].mean_iou
    if ours.specification == theirs.specification:
        assert all((ours.weights[name] == value).all() for name, value in theirs.weights.items())
