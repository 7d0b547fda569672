"""What the steps of `api` share: a run folder that is held, what is kept in it, and data made ready for a network."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from napari_autosegnet.architecture import Architecture
from napari_autosegnet.config import (
    PRESETS,
    AugmentationSettings,
    NormalisationChoice,
    Preset,
    Settings,
    SplitSettings,
)
from napari_autosegnet.data.selection import ALL, Selection
from napari_autosegnet.errors import UserError, first_problem
from napari_autosegnet.run import Report, Run, ShouldStop, listeners

if TYPE_CHECKING:
    import torch

    from napari_autosegnet.data.annotations import LabelledStack, LabelMapping
    from napari_autosegnet.data.learned_from import LearnedFrom
    from napari_autosegnet.data.normalisation import Normalisation
    from napari_autosegnet.data.split import Split
    from napari_autosegnet.model import Model
    from napari_autosegnet.training.trainer import TrainingData

SomeSettings = TypeVar("SomeSettings", bound=Settings)
Kind = TypeVar("Kind")
LearningStep = Literal["search", "training"]


@contextmanager
def working(run: Run, step: str, report: Report, should_stop: ShouldStop) -> Iterator[tuple[Report, ShouldStop]]:
    """Hold the run, listen to its requests, and write down how the job ended."""
    started = time.monotonic()
    stopped = False

    def stop() -> bool:
        nonlocal stopped
        stopped = stopped or should_stop() or run.should_stop(should_stop)
        return stopped

    with run.locked():
        run.withdraw()
        heard = listeners(run.report, report)
        begun = False

        def tell(event: str, /, **values: Any) -> None:
            # Only now is it known that there is something to do, and that the folder is worth being kept.
            nonlocal begun
            if not begun:
                begun = True
                heard("started", step=step)
            heard(event, **values)

        try:
            yield tell, stop
        except UserError as error:
            # A run that never began is not worth a folder full of one error.
            if run.config_file.exists():
                run.report("failed", step=step, text=str(error))
            raise
        if stopped:
            tell("stopped", step=step, reason="a stop was asked for; what was best so far is kept")
        else:
            tell("finished", step=step, seconds=time.monotonic() - started)


def open_stacks(
    images: Sequence[Path],
    labels: Sequence[Path],
    classes: str | None,
    read: Selection = ALL,
) -> list[LabelledStack]:
    from napari_autosegnet.data.annotations import open_labelled

    return open_labelled(images, labels, classes, read)


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


def refuse_other_data(*given: object) -> None:
    """Refuse images, labels or classes beside ``resume``: they would be ignored, or mixed with the run's own.

    Raises
    ------
    UserError
        When there are any.
    """
    if any(given):
        raise UserError(
            "a run that is resumed goes on with the images, labels and classes that it began with; leave these out, "
            "or start without --resume"
        )


def check_same_classes(model: Model, mapping: LabelMapping, kept: LabelMapping | None = None) -> None:
    """Refuse labels whose classes are not the model's: what it learned of one would be taken for another.

    A class may have another name than the model's when it is painted with a value that it had before, by ``kept``.

    Raises
    ------
    UserError
        When they differ; it names the classes.
    """
    ours, theirs = ([c.name for c in classes] for classes in (mapping.classes, model.classes))
    advice = "to change the classes train from scratch in a new run"
    if len(ours) != len(theirs):
        raise UserError(f"the labels have the classes {', '.join(ours)}, the model {', '.join(theirs)}; {advice}")
    for number, (name, known) in enumerate(zip(ours, theirs, strict=True), start=1):
        if name == known:
            continue
        if name in theirs:
            raise UserError(
                f"the labels have the classes in the order {', '.join(ours)}, the model {', '.join(theirs)}; {advice}"
            )
        if kept is None or not _values_of(mapping, number) & _values_of(kept, number):
            raise UserError(f"the labels have the class '{name}' where the model has '{known}'; {advice}")


def _values_of(mapping: LabelMapping, number: int) -> set[int]:
    return {value for value, its_number in mapping.values.items() if its_number == number}


def found_architecture(run: Run, given: Path | None) -> Architecture:
    if given is not None:
        return Architecture.load(given)
    if not run.architecture_file.exists():
        raise UserError(
            f"{run.path} holds no architecture yet; run 'napari-autosegnet search' first, "
            "or train without one: --network plain, unet or pspnet, or --architecture FILE"
        )
    return Architecture.load(run.architecture_file)


def prepare(
    stacks: Sequence[LabelledStack],
    split: SplitSettings,
    normalisation: NormalisationChoice,
    *,
    context: int,
    min_size: int,
    device: str,
    report: Report,
) -> tuple[torch.device, Split, Normalisation]:
    from napari_autosegnet.data.images import tell_notes
    from napari_autosegnet.data.pairs import tell_pairs
    from napari_autosegnet.data.split import region_pixels, split_stacks
    from napari_autosegnet.data.training_sections import fit_normalisation, leave_out_constant, look_at_annotated
    from napari_autosegnet.device import choose_device

    device_used = choose_device(device)
    for stack in stacks:
        for section in range(stack.image.sections):
            if min(stack.image.section_shape(section)) < min_size:
                y, x = stack.image.section_shape(section)
                raise UserError(
                    f"section {section} of {stack.image.path or stack.image.name} is {y}x{x} pixels; "
                    f"give images of at least {min_size}x{min_size}"
                )
    greys = look_at_annotated(stacks)
    leave_out_constant(stacks, greys, report)
    parts = split_stacks(stacks, split, context=context)
    mapping = stacks[0].mapping
    report("device", name=str(device_used))
    tell_pairs(stacks, report)
    tell_notes([each for stack in stacks for each in (stack.image, stack.labels)], report)
    report(
        "data",
        text=mapping.describe(),
        classes=[c.name for c in mapping.classes],
        training_pixels=region_pixels(stacks, parts.training).tolist(),
        validation_pixels=region_pixels(stacks, parts.validation).tolist(),
    )
    return device_used, parts, fit_normalisation(stacks, parts, normalisation, greys, report)


def training_data(
    stacks: Sequence[LabelledStack],
    parts: Split,
    normalisation: Normalisation,
    *,
    patch_size: int,
    stride: int,
    context: int,
    augmentation: AugmentationSettings,
    limit: int,
    seed: int,
    device: torch.device,
    report: Report,
) -> TrainingData:
    import torch

    from napari_autosegnet.data.patches import PatchSource, validation_patches
    from napari_autosegnet.training.trainer import TrainingData

    patches = PatchSource(
        stacks,
        parts.training,
        normalisation,
        size=patch_size,
        context=context,
        augmentation=augmentation,
        device=device,
    )
    images, targets, sections = validation_patches(
        stacks,
        parts.validation,
        normalisation,
        size=patch_size,
        stride=stride,
        context=context,
        limit=limit,
        generator=torch.Generator().manual_seed(seed),
        device=device,
    )
    data = TrainingData(patches, images, targets, tuple(c.name for c in stacks[0].mapping.classes), sections)
    if data.checked.scarce:
        report("note", text=data.checked.scarcity())
    return data


def with_measured_halo(
    model: Model,
    stacks: Sequence[LabelledStack],
    parts: Split,
    device: torch.device,
    report: Report,
    should_stop: ShouldStop,
) -> Model:
    """The model with the halo that ``auto`` will mean, measured on the images it was trained on."""
    from napari_autosegnet.inference.compute.halo import measure_halo

    trained_on = sorted({region.stack for region in parts.training})
    figure = measure_halo(
        model,
        [stacks[index].image for index in trained_on if stacks[index].image.uniform],
        device=device,
        report=report,
        should_stop=should_stop,
    )
    return model if figure is None else model.with_(halo=figure)
