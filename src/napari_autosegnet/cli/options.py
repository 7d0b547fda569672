"""Command line options made from the settings models.

The fields of a settings model become options of the same name with dashes; fields of nested models
are flattened. Descriptions become help texts, fields marked advanced are listed apart. An option
that is not given changes nothing, so that the preset's value stays.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from napari_autosegnet import duration
from napari_autosegnet.data.selection import Selection
from napari_autosegnet.duration import format_duration
from napari_autosegnet.errors import UserError, requirement
from napari_autosegnet.jobs.job import JobModel
from napari_autosegnet.setting_fields import SettingField, setting_fields
from napari_autosegnet.settings import merged

ADVANCED = "Advanced"
NUMBERS = "Z,Y,X"
WORDS = "NAME,..."

#: Nested models whose fields would be unclear, or not unique, without the model's name before them.
PREFIXES: Mapping[str, str] = {"augmentation": "augment_", "controller": "controller_", "selection": "selection_"}

SettingsModel = TypeVar("SettingsModel", bound=BaseModel)
Changes = dict[str, Any]


def parse_duration(value: str | float) -> float:
    """`napari_autosegnet.duration.parse_duration` for options: its error is the command line's.

    Raises
    ------
    typer.BadParameter
        When the text is not a time, or zero.
    """
    # typer hands an option's default through its parser, too.
    try:
        return duration.parse_duration(value)
    except UserError as error:
        raise typer.BadParameter(str(error)) from error


def _parse_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"'{text}' must be whole numbers with commas between, for example 1,512,512"
        ) from error


def _parse_words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def described(model: type[BaseModel], field: str, *flags: str, **more: Any) -> Any:
    """The option for an argument of a job, with its description."""
    return typer.Option(*flags, help=model.model_fields[field].description, **more)


#: What is read of a file, the device, and how the result is shown: the same for every command.
TimePoint = Annotated[int | None, described(Selection, "time_point", "--time")]
# In fact a tuple; where typer sees one, it takes several values.
Channels = Annotated[
    str | None,
    described(Selection, "channels", metavar=WORDS, parser=_parse_words),
]
Axes = Annotated[str | None, described(Selection, "axes")]
Device = Annotated[str, described(JobModel, "device")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object")]


@dataclass(frozen=True)
class SettingOption:
    """One field of a settings model as an option."""

    name: str
    field: SettingField

    @property
    def path(self) -> tuple[str, ...]:
        return self.field.path

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def is_advanced(self) -> bool:
        # The search space is for the curious.
        return self.path[0] == "space" or self.field.is_advanced

    @property
    def form(self) -> str | None:
        """How a value of several parts or kinds is written; None for plain values."""
        if self.field.members:
            return NUMBERS if all(member is int for member in self.field.members) else WORDS
        return "|".join([*self.field.choices, "N"]) if isinstance(self.field.kind, tuple) else None

    def default_text(self, presets: Mapping[str, BaseModel]) -> str:
        texts = {name: _text(self.field.value_in(settings), self.path[-1]) for name, settings in presets.items()}
        different = set(texts.values())
        if different == {"none"}:
            return ""
        if len(different) == 1:
            return f" (default {different.pop()})"
        return f" (default {', '.join(f'{name}: {text}' for name, text in texts.items())})"

    def parameter(self, presets: Mapping[str, BaseModel]) -> inspect.Parameter:
        """The command function's parameter, annotated for typer; None says that it was not given."""
        arguments: dict[str, Any] = {
            "help": self.field.description + self.default_text(presets),
            "show_default": False,
            "rich_help_panel": ADVANCED if self.is_advanced else None,
        }
        kind = self.field.kind
        flags = [self.flag]
        if kind is bool:
            flags = [f"{self.flag}/--no-{self.flag.removeprefix('--')}"]
        elif self.path[-1] == "budget":
            kind = float
            arguments |= {"parser": parse_duration, "metavar": "TIME"}
        elif self.form is not None:
            arguments["metavar"] = self.form
            if self.field.members:
                arguments["parser"] = _parse_numbers if self.form == NUMBERS else _parse_words
            kind = str
        annotation = Annotated[kind | None, typer.Option(*flags, **arguments)]  # type: ignore[valid-type]
        return inspect.Parameter(self.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _text(value: Any, name: str) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "budget":
        return format_duration(value)
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def setting_options(model: type[BaseModel]) -> Iterator[SettingOption]:
    """The options of a settings model, those of models within it last."""
    for field in setting_fields(model):
        prefix = "".join(PREFIXES.get(part, "") for part in field.path[:-1])
        yield SettingOption(prefix + field.name, field)


def takes_settings(
    *, renamed: Mapping[str, str] | None = None, **models: Mapping[str, BaseModel]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Replace parameters of a command function by the options of settings models.

    Parameters
    ----------
    renamed
        ``"parameter.option"`` to another option name, where two models share one.
    **models
        For each parameter the presets by name (one nameless preset where there are none). The
        command is called with a dictionary of what was given, nested like the model, for `changed`.
    """
    new_names = renamed or {}
    options: dict[str, tuple[str, SettingOption]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter, presets in models.items():
        for option in setting_options(type(next(iter(presets.values())))):
            name = new_names.get(f"{parameter}.{option.name}", option.name)
            if name in options:
                raise ValueError(f"two settings want the option --{name}")
            option = SettingOption(name, option.field)
            options[name] = (parameter, option)
            parameters.append(option.parameter(presets))

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        # Written-out parameters are resolved here, since typer reads the new signature as it is.
        own = inspect.signature(function, eval_str=True)

        @functools.wraps(function)
        def command(**values: Any) -> Any:
            given: dict[str, Changes] = {parameter: {} for parameter in models}
            for name, (parameter, option) in options.items():
                value = values.pop(name)
                if value is not None:
                    place = given[parameter]
                    for part in option.path[:-1]:
                        place = place.setdefault(part, {})
                    place[option.path[-1]] = value
            return function(**values, **given)

        kept = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for n, p in own.parameters.items() if n not in models]
        # typing.get_type_hints looks at __wrapped__ for names; the signature is what counts.
        command.__signature__ = inspect.Signature([*kept, *parameters])  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in [*kept, *parameters]}
        return command

    return decorate


def changed(settings: SettingsModel, changes: Changes, renamed: Mapping[str, str] | None = None) -> SettingsModel:
    """The settings with what was given on the command line.

    Raises
    ------
    typer.BadParameter
        When a value is out of its range; the message names the option.
    """
    try:
        return type(settings).model_validate(merged(settings.model_dump(), changes))
    except ValidationError as error:
        first = error.errors()[0]
        place = tuple(str(part) for part in first["loc"])
        options = setting_options(type(settings))
        option = next((each for each in options if place[: len(each.path)] == each.path), None)
        message = requirement(first)
        if option is None:
            # A rule about several fields.
            raise typer.BadParameter(message) from error
        name = (renamed or {}).get(option.name, option.name)
        given: Any = changes
        for part in option.path:
            given = given[part]
        # pydantic speaks of the first part or kind only.
        if option.form is not None and option.form != WORDS:
            message = f"must be {option.form}{_limits(error, option)}"
        raise typer.BadParameter(
            f"{message}, not {_text(given, option.path[-1])}", param_hint=f"'--{name.replace('_', '-')}'"
        ) from error


def _limits(error: ValidationError, option: SettingOption) -> str:
    """The limits that a number in an option of several parts or kinds is beyond, in words."""
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    limits = {
        f"{words[limit]} {value:g}"
        for each in error.errors()
        if tuple(map(str, each["loc"]))[: len(option.path)] == option.path
        for limit, value in each.get("ctx", {}).items()
        if limit in words
    }
    if not limits:
        return ""
    return f" with {'each number' if option.form == NUMBERS else 'N'} {' and '.join(sorted(limits))}"
