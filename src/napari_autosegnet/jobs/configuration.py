"""What a run keeps of its jobs in ``config.json``: their data, settings and checksums."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from napari_autosegnet.config import PRESETS, Preset, Settings, SplitSettings
from napari_autosegnet.data.selection import ALL, Selection
from napari_autosegnet.errors import UserError, first_problem
from napari_autosegnet.run import Run

if TYPE_CHECKING:
    from napari_autosegnet.data.annotations import LabelledStack, LabelMapping
    from napari_autosegnet.data.learned_from import LearnedFrom
    from napari_autosegnet.data.normalisation import Normalisation

SomeSettings = TypeVar("SomeSettings", bound=Settings)
Kind = TypeVar("Kind")
LearningStep = Literal["search", "training"]


def describe_data(
    images: Sequence[Path],
    labels: Sequence[Path],
    stacks: Sequence[LabelledStack],
    split: SplitSettings,
    read: Selection = ALL,
) -> dict[str, Any]:
    return {
        **read.model_dump(mode="json", exclude_none=True),
        "images": [str(Path(path).absolute()) for path in images],
        "labels": [str(Path(path).absolute()) for path in labels],
        "mapping": stacks[0].mapping.model_dump(mode="json"),
        "split": split.model_dump(mode="json"),
    }


def kept_preset(run: Run) -> Preset:
    """The preset that a run was searched with; ``standard`` when it holds no search."""
    found = run.read_config().get("preset") if run.config_file.exists() else None
    return next((preset for preset in PRESETS if preset == found), "standard")


def kept_settings(run: Run, section: str, kind: type[SomeSettings]) -> SomeSettings:
    content = run.read_config()
    if section not in content:
        raise UserError(f"{run.path} holds no {section} to resume; start it without --resume")
    return validated(kind, content[section], f"{run.config_file}, '{section}'")


def validated(kind: type[Kind], content: Any, place: str) -> Kind:
    """What stands in one of a run's files, if it is of its kind.

    Raises
    ------
    UserError
        When it is not; it names the place.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise UserError(f"{place} is damaged {first_problem(error)}; start a new run") from error


#: What a run keeps of what a step learned from, and what can be done when that is no longer there.
_LEARNED_FROM: dict[LearningStep, tuple[str, str]] = {
    "search": ("searched_on", "put it back, or start a new search"),
    "training": (
        "trained_on",
        "put it back, start a new run, or train on from a finished model with new labels: --continue-with, "
        "in napari 'Add labels and continue'",
    ),
}


def describe_learned_from(
    step: LearningStep, stacks: Sequence[LabelledStack], normalisation: Normalisation, *, context: int
) -> dict[str, Any]:
    """The part of ``config.json`` that says what a search or a training learns from."""
    from napari_autosegnet.data.learned_from import LearnedFrom

    found = LearnedFrom.of(stacks, normalisation, context=context)
    return {_LEARNED_FROM[step][0]: found.model_dump(mode="json")}


def kept_learned_from(run: Run, step: LearningStep) -> LearnedFrom:
    """What the search or training that is gone on with learned from.

    Raises
    ------
    UserError
        When the run does not say, or its images or labels hold other pixels now.
    """
    from napari_autosegnet.data.learned_from import LearnedFrom

    section, advice = _LEARNED_FROM[step]
    content = run.read_config()
    kept = validated(LearnedFrom, content.get(section), f"{run.config_file}, '{section}'")
    images, labels = (_kept_paths(run, content.get("data"), name) for name in ("images", "labels"))
    kept.check_data(images, labels, advice)
    return kept


def _kept_paths(run: Run, data: Any, name: str) -> list[Path]:
    return validated(list[Path], data.get(name) if isinstance(data, dict) else None, f"{run.config_file}, '{name}'")


def kept_data(run: Run, labels: Sequence[Path] | None = None) -> tuple[list[LabelledStack], SplitSettings]:
    """The labelled stacks and the split that a run began with; other labels of the same images if given."""
    from napari_autosegnet.data.annotations import LabelMapping, open_labelled

    content = run.read_config().get("data")
    if not isinstance(content, dict):
        raise UserError(f"{run.path} names no data; give --image and --labels")
    mapping = validated(LabelMapping, content.get("mapping"), f"{run.config_file}, 'mapping'")
    label_paths = labels or _kept_paths(run, content, "labels")
    image_paths = _kept_paths(run, content, "images")
    given = {name: content[name] for name in Selection.model_fields if name in content}
    read = validated(Selection, given, f"{run.config_file}, 'data'")
    stacks = open_labelled(image_paths, label_paths, mapping, read)
    return stacks, validated(SplitSettings, content.get("split"), f"{run.config_file}, 'split'")


def kept_mapping(run: Run) -> LabelMapping | None:
    """How the run's training read its labels; None when it does not say."""
    from pydantic import ValidationError

    from napari_autosegnet.data.annotations import LabelMapping

    content = run.read_config().get("data") if run.config_file.exists() else None
    try:
        return None if content is None else LabelMapping.model_validate(content["mapping"])
    except (KeyError, TypeError, ValidationError):
        return None
