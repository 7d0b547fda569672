from __future__ import annotations

import errno
import json
import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_autosegnet import demo
from napari_autosegnet.architecture import SearchSpace
from napari_autosegnet.cli import objects as objects_module
from napari_autosegnet.cli import runs as runs_module
from napari_autosegnet.cli.app import COMMANDS, help_text, load_command, run
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Epoch
from napari_autosegnet.jobs.evaluate import EvaluateJob
from napari_autosegnet.jobs.search import SearchJob
from napari_autosegnet.jobs.train import TrainJob
from napari_autosegnet.presets import search_settings, train_settings
from napari_autosegnet.run import Run
from napari_autosegnet.settings import SplitSettings
from napari_autosegnet.training.metrics import Scores
from run_configs import update_config
from small_models import small_model

ROOT = Path(__file__).parents[2]
PAIR = ["--image", "a.tif", "--labels", "b.tif"]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments of a job, and its run; the job does nothing but return something."""
    seen: dict[str, Any] = {}

    def function(job: SearchJob | TrainJob, run: Path, **listeners: Any) -> object:
        seen.update(job, run=run)
        return object()

    monkeypatch.setattr(SearchJob, "run", function)
    monkeypatch.setattr(TrainJob, "run", function)
    return seen


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    return line


# Help


def test_help_loads_nothing_heavy() -> None:
    program = "import sys; from napari_autosegnet.cli.app import run; run(['--help']); print('loaded', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "evaluate" in done.stdout
    loaded = {name.split(".")[0] for name in done.stdout.split("loaded ")[1].split()}
    assert loaded.isdisjoint({"torch", "numpy", "scipy", "skimage", "zarr", "dask", "matplotlib", "napari", "qtpy"})


def test_help_of_a_command_loads_no_torch() -> None:
    program = "\n".join(
        (
            "import sys",
            "from napari_autosegnet.cli.app import run",
            "for command in sys.argv[1:]:",
            "    run([command, '-h'])",
            "    print(command, 'torch' in sys.modules)",
        )
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *COMMANDS], capture_output=True, text=True, check=True, timeout=60
    )
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.endswith((" True", " False"))] == [f"{name} False" for name in COMMANDS]
    assert done.stdout.count("Usage") == len(COMMANDS)


#: Commands that have commands of their own.
GROUPS = {"runs": runs_module.app, "objects": objects_module.app}


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in GROUPS])
def test_the_list_of_commands_tells_what_each_does(name: str) -> None:
    assert load_command(name).help.startswith(COMMANDS[name])
    assert "Example: " in load_command(name).help


@pytest.mark.parametrize("name", GROUPS)
def test_the_commands_of_a_group_have_examples(name: str) -> None:
    assert GROUPS[name].info.help == COMMANDS[name]
    for info in GROUPS[name].registered_commands:
        assert info.callback is not None
        assert "Example: " in help_text(info.callback)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"napari-autosegnet {version('napari-autosegnet')}\n"


def test_no_command_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "Usage" in capsys.readouterr().out


def _examples() -> list[str]:
    """Every command line in help texts and documents."""
    texts = [load_command(name).help for name in COMMANDS if name not in GROUPS]
    commands = [info for group in GROUPS.values() for info in group.registered_commands]
    texts += [help_text(info.callback) for info in commands if info.callback]
    found = [line for text in texts for line in re.findall(r"\[bold\](napari-autosegnet .*?)\[/bold\]", text)]
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for block in re.findall(r"```sh\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL):
            lines = block.replace("\\\n", " ").splitlines()
            found += [line for line in lines if line.startswith("napari-autosegnet ")]
    return sorted(set(found))


@pytest.mark.parametrize("line", _examples())
def test_examples_are_command_lines(line: str) -> None:
    _, name, *words = shlex.split(line)
    if name.startswith("-"):
        # An option of the program itself.
        assert run([name, *words]) == 0
        return
    command = load_command(name)
    if name in GROUPS:
        _, command, words = command.resolve_command(command.make_context(name, [*words]), words)
    # Parses and converts, and calls nothing.
    command.make_context(name, words)


def test_there_are_examples() -> None:
    assert len(_examples()) > 20


# Parsing


def test_search_passes_on_what_was_given(
    called: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    words = [*PAIR, "--image", "c.tif", "--labels", "d.tif", "--classes", "0:x,255:y", "--run", str(folder)]
    words += ["--preset", "fast", "--budget", "2m", "--train-sections", "0-3", "--seed", "4", "--split-seed", "5"]
    assert run(["search", *words, "--base-width", "8", "--device", "cpu", "--json"]) == 0
    assert called["images"] == (Path("a.tif"), Path("c.tif"))
    assert called["labels"] == (Path("b.tif"), Path("d.tif"))
    fast = search_settings("fast", budget=120.0, seed=4)
    assert called["settings"] == fast.model_copy(update={"network": fast.network.model_copy(update={"base_width": 8})})
    assert called["split"] == SplitSettings(train_sections="0-3", seed=5)
    assert (called["run"], called["classes"], called["device"]) == (folder, "0:x,255:y", "cpu")
    result = json.loads(capsys.readouterr().out)
    assert result["architecture"] == str(folder / "architecture.json")


def test_a_preset_keeps_its_say(called: dict[str, Any]) -> None:
    for preset in ("fast", "standard", "paper"):
        assert run(["search", *PAIR, "--preset", preset]) == 0
        assert called["settings"] == search_settings(preset)
        assert run(["train", "--run", "r", "--preset", preset]) == 0
        assert called["settings"] == train_settings(preset)


def test_training_takes_the_preset_that_the_run_was_searched_with(called: dict[str, Any], tmp_path: Path) -> None:
    update_config(Run.create(tmp_path / "run"), preset="fast")
    assert run(["train", "--run", str(tmp_path / "run")]) == 0
    assert called["settings"] == train_settings("fast")
    assert run(["train", "--run", str(tmp_path / "new")]) == 0
    assert called["settings"] == train_settings("standard")


def test_epochs_lift_the_time_budget_of_the_preset(called: dict[str, Any]) -> None:
    assert run(["search", *PAIR, "--epochs", "85"]) == 0
    assert called["settings"] == search_settings(epochs=85, budget=None)
    assert run(["search", *PAIR, "--epochs", "85", "--budget", "1h"]) == 0
    assert called["settings"] == search_settings(epochs=85, budget=3600.0)


def test_a_run_folder_is_named_after_the_image(called: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", "--image", "x/stack.ome.zarr", "--labels", "b"]) == 0
    assert re.fullmatch(r"runs/stack-\d{8}-\d{6}", called["run"].as_posix())
    assert str(called["run"]) in capsys.readouterr().out


def test_resume_takes_all_from_the_run(called: dict[str, Any]) -> None:
    assert run(["search", "--run", "r", "--resume"]) == 0
    assert called["settings"] is None and called["split"] is None and called["resume"]
    assert run(["train", "--run", "r", "--resume"]) == 0
    assert called["settings"] is None and called["resume"]


def test_train_passes_on_what_was_given(called: dict[str, Any]) -> None:
    assert run(["train", "--run", "r", "--network", "unet", "--augment-noise", "0", "--continue-with", "l.tif"]) == 0
    assert called["network"] == "unet"
    assert called["continue_with"] == (Path("l.tif"),)
    assert called["settings"].augmentation.noise == 0
    assert called["split"] is None


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["serch"], "serch"),
        (["search"], "--image"),
        (["search", "--image", "a"], "1 --image but 0 --labels"),
        (["search", "--resume"], "--run"),
        (["search", "--run", "r", "--resume", "--epochs", "3"], "--resume"),
        (["search", *PAIR, "--epochs", "0"], "--epochs"),
        (["search", *PAIR, "--epochs", "many"], "'--epochs': must be a whole number (see"),
        (["search", *PAIR, "--epochs", "9" * 400], "'--epochs': must be at most 1000000000"),
        (["train", "--run", "r", "--batch-size", "9" * 30], "'--batch-size': must be at most"),
        (["train", "--run", "r", "--base-width", "9" * 30], "'--base-width': must be at most"),
        (["train", "--run", "r", "--patch-size", "9" * 30], "'--patch-size': must be at most"),
        (["train", "--run", "r", "--seed", "9" * 30], "'--seed': must be less than"),
        (["search", *PAIR, "--budget", "soon"], "--budget"),
        (["search", *PAIR, "--preset", "slow"], "'fast', 'standard', 'paper'"),
        (["search", *PAIR, "--frob"], "--frob"),
        (["train"], "--run"),
        (["train", "--run", "r", "--network", "unet", "--architecture", "a.json"], "--architecture"),
        (["predict", "--model", "m", "--image", "i", "--region", "all"], "--region"),
        (["predict", "--model", "m", "--image", "i", "--out", "o", "--block", "1,2"], "--block"),
        (["predict", "--model", "m", "--image", "i", "--out", "o", "--resume", "--overwrite"], "--resume"),
        (["evaluate", "--labels", "l"], "--prediction"),
        (["evaluate", "--labels", "l", "--model", "m"], "--image"),
        (["evaluate", "--labels", "l", "--model", "m", "--prediction", "p"], "--prediction"),
        (["show", "x", "--curves"], "--out"),
        (["runs", "frob"], "frob"),
        (["demo", "--budget", "0"], "--budget"),
        (["search", "--strategy", "best"], "'--strategy': 'best' is not one of 'reinforce', 'random', 'evolution'"),
        (["fit", "--goal", "best"], "'--goal': 'best' is not one of 'accurate', 'balanced', 'fast'"),
        (["fit", "--choose", "w1"], "--choose needs the run folder"),
    ],
)
def test_wrong_command_lines(words: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    line = _error(capsys)
    assert part in line
    assert "--help)" in line


@pytest.mark.parametrize("form", [("--image=~/im.tif",), ("--image", "~/im.tif")])
def test_a_home_folder_that_the_shell_left_as_it_was(
    form: tuple[str, ...], called: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert run(["search", *form, "--labels", "~lab.tif", "--run", "~"]) == 0
    assert called["images"] == (tmp_path / "im.tif",) and called["labels"] == (Path("~lab.tif"),)
    assert called["run"] == tmp_path


# Errors


def _raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def search(*arguments: Any, **named: Any) -> None:
        raise error

    monkeypatch.setattr(SearchJob, "run", search)


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (UserError("no such file: a.tif;\n give one"), 1, "error: no such file: a.tif; give one"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 1, "error: No space left on device x; free some space"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x"), 1, "error: File name too long x; give a shorter name"),
        (OSError(errno.EIO, "Input/output error", "x"), 1, "error: Input/output error x; check the disk, or the"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 1, "error: Permission denied x; choose another"),
        (OSError(errno.EFBIG, "File too large", "x"), 1, "error: File too large x; choose another disk, or let the"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, status: int, text: str
) -> None:
    _raising(monkeypatch, error)
    assert run(["search", *PAIR, "--json"]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(text)
    assert len(captured.err.splitlines()) <= 1


@pytest.mark.skipif(sys.platform == "win32", reason="there a folder in use is not deleted")
def test_in_a_folder_that_is_gone_nothing_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert run(["runs", "list"]) == 1
    assert _error(capsys) == "error: the folder that you are in is gone; change to another one with cd"


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    _raising(monkeypatch, ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        run(["search", *PAIR])


def test_a_reader_that_has_enough_is_no_error() -> None:
    program = (
        "import sys; from napari_autosegnet.cli.app import run; sys.exit(run(['runs', 'list', sys.argv[1], '--json']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(ROOT)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait(30)


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of Unix")
def test_what_whoever_starts_it_has_closed_is_no_error() -> None:
    command = shlex.join([sys.executable, "-m", "napari_autosegnet", "--version"])
    done = subprocess.run(f"{command} >&- 2>{os.devnull}; {command} 2>&-", shell=True, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout.count(b"napari-autosegnet")) == (0, 1)
    assert subprocess.run(f"{command} >&-", shell=True, capture_output=True, timeout=60).stderr == b""


def test_a_demo_that_was_stopped_goes_on_as_it_was_called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "run_demo", lambda *arguments, **named: {"mean_iou": None})
    words = ["demo", "--out", "my demo", "--budget", "20m", "--device", "cpu", "--json"]
    assert run(words) == 1
    assert f"continue with: {shlex.join(['napari-autosegnet', *words])}" in _error(capsys)


# Results


def test_scores_as_json_and_as_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    scores = Scores(
        classes=("membrane", "cell"),
        mean_iou=0.75,
        iou={"membrane": 0.5, "cell": None},
        dice={"membrane": 0.6, "cell": None},
        accuracy=0.9,
        confusion=[[1, 2], [3, 4]],
        not_predicted=[0, 600],
        sections=2,
        v_rand=0.95,
    )
    seen: dict[str, Any] = {}

    def evaluate(job: EvaluateJob, **listeners: Any) -> Scores:
        seen.update(job)
        return scores

    monkeypatch.setattr(EvaluateJob, "run", evaluate)
    words = ["evaluate", "--prediction", "p", "--labels", "l", "--sections", "24-29"]
    assert run([*words, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["iou"] == {"membrane": 0.5, "cell": None}
    assert values["v_rand"] == 0.95
    assert "v_info" not in values
    assert seen["sections"] == "24-29" and seen["labels"] == (Path("l"),)
    assert run(words) == 0
    table = capsys.readouterr().out
    assert re.search(r"membrane +0\.5000 +0\.6000", table)
    assert re.search(r"cell +- +-", table)
    assert "V_rand" in table and "V_info" not in table
    assert "quality not known yet: checked on 610 pixels of 2 sections: 3 of 'membrane', where" in table


def test_show_an_architecture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    architecture = SearchSpace().sample(np.random.default_rng(1))
    path = tmp_path / "architecture.json"
    path.write_text(architecture.to_json())
    picture = tmp_path / "picture.svg"
    assert run(["show", str(path), "--out", str(picture)]) == 0
    assert "bridge" in capsys.readouterr().out
    assert picture.read_text().lstrip().startswith("<?xml")
    assert run(["show", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["architecture"] == architecture.model_dump(mode="json")


def test_show_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Run.create(tmp_path / "run")
    update_config(folder, data={})
    folder.report(Epoch(step="search", epoch=1, epochs=2, loss=1.0, reward=0.5, best_reward=0.6, seconds=1.0))
    assert run(["show", str(folder.path)]) == 0
    out = capsys.readouterr().out
    assert "no architecture yet" in out and "interrupted" in out
    assert run(["show", str(folder.path), "--out", str(tmp_path / "a.svg")]) == 1
    assert "--curves" in capsys.readouterr().err
    assert run(["show", str(folder.path), "--curves", "--out", str(tmp_path / "c.png")]) == 0
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_show_a_run_whose_network_was_not_searched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Run.create(tmp_path / "run")
    update_config(folder, data={})
    small_model("unet").save(folder.model_folder)
    assert run(["show", str(folder.path)]) == 0
    out = capsys.readouterr().out
    assert "parameters" in out and "no searched architecture: unet" in out


def test_show_what_is_none_of_these(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG")
    texts = {picture: "is not an architecture, a model, or a run", tmp_path: "is not a run (it has no config.json)"}
    for what, text in texts.items():
        assert run(["show", str(what)]) == 1
        line = _error(capsys)
        assert text in line and str(what) in line and "give an architecture.json" in line


def test_show_prints_nothing_when_it_cannot_draw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Run.create(tmp_path / "run")
    update_config(folder, data={})
    folder.report(Epoch(step="train", epoch=1, epochs=2, loss=1.0, mean_iou=0.5, seconds=1.0))
    assert run(["show", str(folder.path), "--curves", "--out", str(tmp_path / "c.bmp")]) == 1
    assert "ends in .png" in _error(capsys)


def test_show_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in (tmp_path, tmp_path / "none"):
        assert run(["show", str(place)]) == 1
        _error(capsys)
