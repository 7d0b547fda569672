from __future__ import annotations

import inspect
import shlex
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from typer.testing import CliRunner

from napari_autosegnet.architecture import SearchSpace
from napari_autosegnet.cli.options import (
    ADVANCED,
    changed,
    parse_duration,
    setting_options,
    takes_settings,
)
from napari_autosegnet.duration import format_duration, rough_duration
from napari_autosegnet.presets import PRESETS, train_settings
from napari_autosegnet.settings import (
    AugmentationSettings,
    PredictSettings,
    SearchSettings,
    SplitSettings,
    TrainSettings,
)

SETTINGS: list[type[BaseModel]] = [SearchSettings, TrainSettings, SplitSettings, PredictSettings]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("10m", 600),
        ("1h", 3600),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("2d", 172800),
        ("5M", 300),
        ("10 min", 600),
        ("1 h 30 min", 5400),
    ],
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "10x", "ten", "-5m", "0", "0m", "10 20", "1h30", "5mm", "nan", "inf"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_duration(text)


@given(st.integers(1, 10**6))
def test_whole_seconds_survive(seconds: int) -> None:
    assert parse_duration(f"{seconds}s") == seconds
    hours, rest = divmod(seconds, 3600)
    assert parse_duration(f"{hours}h{rest // 60}m{rest % 60}s") == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3599.4, "59 min 59 s"),
        (7500, "2 h 05 min"),
        (7200, "2 h"),
        (-1, "0 s"),
    ],
)
def test_times_are_written(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (9, "9 s"),
        (59.4, "59 s"),
        (59.7, "1 min"),
        (72, "1 min"),
        (3569, "59 min"),
        (3571, "1 h"),
        (7700, "2 h 10 min"),
        (35_900, "10 h"),
        (108_000, "30 h"),
        (float("inf"), "unknown"),
    ],
)
def test_times_are_said_roughly(seconds: float, text: str) -> None:
    assert rough_duration(seconds) == text


@pytest.mark.parametrize("model", SETTINGS)
def test_every_field_is_one_option(model: type[BaseModel]) -> None:
    options = list(setting_options(model))
    names = [option.name for option in options]
    assert len(set(names)) == len(names)

    def leaves(settings: BaseModel) -> int:
        computed = {"levels"} if isinstance(settings, SearchSpace) else set()
        values = [getattr(settings, name) for name in type(settings).model_fields if name not in computed]
        return sum(leaves(value) if isinstance(value, BaseModel) else 1 for value in values)

    assert len(options) == leaves(model())


def test_nested_models_are_flattened() -> None:
    options = {option.flag: option for option in setting_options(TrainSettings)}
    assert options["--base-width"].path == ("network", "base_width")
    assert options["--augment-flips"].path == ("augmentation", "flips")
    assert "--network" not in options


def test_advanced_fields_are_listed_apart() -> None:
    options = {option.name: option for option in setting_options(TrainSettings)}
    presets = {"": TrainSettings()}

    def panel(name: str) -> str | None:
        _, option = options[name].parameter(presets).annotation.__args__[0], options[name].parameter(presets)
        found: str | None = option.annotation.__metadata__[0].rich_help_panel
        return found

    assert panel("momentum") == ADVANCED
    assert panel("epochs") is None


def _program(**models: Any) -> tuple[typer.Typer, dict[str, Any]]:
    """A program of one command that keeps what it is called with."""
    app = typer.Typer()
    seen: dict[str, Any] = {}

    @app.command()
    @takes_settings(**models)
    def command(name: str = "x", *, settings: dict[str, Any]) -> None:
        """Help."""
        seen.update(name=name, settings=settings)

    return app, seen


def _call(words: list[str], **models: Any) -> dict[str, Any]:
    app, seen = _program(**models)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return seen


def test_only_what_was_given_arrives() -> None:
    presets = {preset: train_settings(preset) for preset in PRESETS}
    assert _call([], settings=presets) == {"name": "x", "settings": {}}
    words = shlex.split("--name y --epochs 3 --budget 2m --base-width 8 --no-augment-flips --loss dice --seed 0")
    assert _call(words, settings=presets) == {
        "name": "y",
        "settings": {
            "epochs": 3,
            "budget": 120.0,
            "network": {"base_width": 8},
            "augmentation": {"flips": False},
            "loss": "dice",
            "seed": 0,
        },
    }


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("--halo exact", {"halo": "exact"}),
        ("--halo 32", {"halo": 32}),
        ("--block 4,512,256", {"block": (4, 512, 256)}),
        ("--probabilities --workers 2", {"probabilities": True, "workers": 2}),
    ],
)
def test_values_of_several_kinds(words: str, settings: dict[str, Any]) -> None:
    given_settings = _call(words.split(), settings={"": PredictSettings()})["settings"]
    assert changed(PredictSettings(), given_settings) == PredictSettings(**settings)


def test_the_search_space_can_be_made_smaller() -> None:
    words = ["--operations", "sep_conv_3x3,identity", "--no-long-skips"]
    given_settings = _call(words, settings={"": SearchSettings()})["settings"]
    space = changed(SearchSettings(), given_settings).space
    assert space.operations == ("sep_conv_3x3", "identity")
    assert not space.long_skips and space.short_skips


def test_a_change_keeps_the_rest_of_the_preset() -> None:
    fast = train_settings("fast")
    result = changed(fast, {"network": {"base_width": 8}, "epochs": 2})
    assert result.network.base_width == 8
    assert result.network.max_width == fast.network.max_width != TrainSettings().network.max_width
    assert result.epochs == 2
    assert result.model_copy(update={"epochs": fast.epochs, "network": fast.network}) == fast


@pytest.mark.parametrize(
    ("settings", "changes", "words"),
    [
        (TrainSettings(), {"epochs": 0}, ["--epochs", "not 0"]),
        (TrainSettings(), {"network": {"base_width": -1}}, ["--base-width", "not -1"]),
        (TrainSettings(), {"augmentation": {"scale": 2.0}}, ["--augment-scale", "less than 1", "not 2"]),
        (PredictSettings(), {"halo": "-3"}, ["--halo", "auto|exact|N with N at least 0, not -3"]),
        (PredictSettings(), {"halo": "wide"}, ["--halo", "auto|exact|N, not wide"]),
        (PredictSettings(), {"tile": "16"}, ["--tile", "auto|N with N at least 32, not 16"]),
        (PredictSettings(), {"block": (1, 2)}, ["--block", "Z,Y,X, not 1,2"]),
        (PredictSettings(), {"block": (0, 64, 64)}, ["--block", "Z,Y,X with each number at least 1, not 0,64,64"]),
        (SearchSettings(), {"space": {"operations": ("identity",)}}, ["needs an operation other than identity"]),
    ],
)
def test_a_wrong_value_names_its_option(settings: BaseModel, changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(typer.BadParameter) as error:
        changed(settings, changes)
    message = error.value.format_message()
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_help_tells_the_default_of_each_preset() -> None:
    app, _ = _program(settings={preset: train_settings(preset) for preset in PRESETS})
    text = " ".join(CliRunner().invoke(app, ["--help"], env={"COLUMNS": "400"}).output.split())
    assert "fast: 20 min, standard: 3 h, paper: none" in text
    assert AugmentationSettings.model_fields["noise"].description is not None


def test_two_models_cannot_share_an_option() -> None:
    with pytest.raises(ValueError, match="--seed"):
        takes_settings(settings={"": TrainSettings()}, split={"": SplitSettings()})


def test_the_signature_holds_options_instead_of_settings() -> None:
    @takes_settings(settings={"": PredictSettings()})
    def command(model: str, *, settings: dict[str, Any]) -> None:
        pass

    parameters = inspect.signature(command).parameters
    assert "settings" not in parameters
    assert {"model", "halo", "block"} <= parameters.keys()
