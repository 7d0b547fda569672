"""Labelled images made ready for a network: opened, split, normalised, cut into patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_autosegnet.config import AugmentationSettings, NormalisationChoice, SplitSettings
from napari_autosegnet.data.selection import ALL, Selection
from napari_autosegnet.errors import UserError
from napari_autosegnet.jobs.configuration import describe_data, kept_data
from napari_autosegnet.run import Report, Run

if TYPE_CHECKING:
    import torch

    from napari_autosegnet.data.annotations import LabelledStack
    from napari_autosegnet.data.normalisation import Normalisation
    from napari_autosegnet.data.split import Split
    from napari_autosegnet.training.trainer import TrainingData


@dataclass(frozen=True)
class LabelledData:
    """What a search or a training learns from."""

    stacks: list[LabelledStack]
    split: SplitSettings
    #: The ``data`` of the run's ``config.json``.
    description: dict[str, Any]

    @classmethod
    def given(
        cls,
        images: Sequence[Path],
        labels: Sequence[Path],
        classes: str | None,
        selection: Selection = ALL,
        split: SplitSettings | None = None,
    ) -> LabelledData:
        from napari_autosegnet.data.annotations import open_labelled
        from napari_autosegnet.data.pairs import given_pairs

        split = split or SplitSettings()
        images, labels = given_pairs(images, labels)
        stacks = open_labelled(images, labels, classes, selection)
        return cls(stacks, split, describe_data(images, labels, stacks, split, selection))

    @classmethod
    def of_run(cls, run: Run, labels: Sequence[Path] = (), split: SplitSettings | None = None) -> LabelledData:
        """The run's own images; ``labels`` take the place of its labels if there are any."""
        stacks, kept_split = kept_data(run, labels=labels or None)
        split = split or kept_split
        description = run.read_config()["data"] | {"split": split.model_dump(mode="json")}
        if labels:
            description["labels"] = [str(path.absolute()) for path in labels]
        return cls(stacks, split, description)


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
