"""Labeled images made ready for a network: opened, split, normalized, cut into patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_autosegnet.addresses import absolute
from napari_autosegnet.data.learned_from import LearnedFrom, RunData
from napari_autosegnet.data.selection import ALL, Selection
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import DataRead, DeviceChosen, Note, Report
from napari_autosegnet.run import Run
from napari_autosegnet.settings import SearchSettings, SplitSettings, TrainSettings

if TYPE_CHECKING:
    import torch

    from napari_autosegnet.data.labeled_stacks import LabeledStack
    from napari_autosegnet.data.normalization import Normalization
    from napari_autosegnet.data.regions import Region, Split
    from napari_autosegnet.training.training_data import TrainingData

Settings = SearchSettings | TrainSettings

#: Most pixels, in training patches, that are scored at the end of an epoch.
VALIDATION_PATCHES = 64


@dataclass(frozen=True)
class LabeledData:
    """Images with their labels: opened, and where they came from."""

    stacks: list[LabeledStack]
    images: Sequence[Path]
    labels: Sequence[Path]
    selection: Selection
    split: SplitSettings

    @classmethod
    def given(
        cls,
        images: Sequence[Path],
        labels: Sequence[Path],
        classes: str | None,
        selection: Selection = ALL,
        split: SplitSettings | None = None,
    ) -> LabeledData:
        """Open what a user named: paths, or patterns."""
        from napari_autosegnet.data.labeled_stacks import open_labeled
        from napari_autosegnet.data.pairs import given_pairs

        images, labels = given_pairs(images, labels)
        stacks = open_labeled(images, labels, classes, selection)
        return cls(stacks, images, labels, selection, split or SplitSettings())

    @classmethod
    def kept(
        cls, run: Run, data: RunData | None, labels: Sequence[Path] = (), split: SplitSettings | None = None
    ) -> LabeledData:
        """Open what a run keeps; ``labels`` and ``split`` take the place of its own if they are given.

        Raises
        ------
        UserError
            When the run names no images, or they cannot be opened.
        """
        from napari_autosegnet.data.labeled_stacks import open_labeled

        if data is None or data.mapping is None:
            raise UserError(f"{run.path} names no data; give --image and --labels")
        labels = labels or data.labels
        stacks = open_labeled(data.images, labels, data.mapping, data.selection)
        return cls(stacks, data.images, labels, data.selection, split or data.split)

    @property
    def description(self) -> RunData:
        """What a run keeps of it, with paths that can be found from any folder."""
        return RunData(
            **self.selection.model_dump(),
            images=tuple(map(absolute, self.images)),
            labels=tuple(map(absolute, self.labels)),
            mapping=self.stacks[0].mapping,
            split=self.split,
        )


@dataclass(frozen=True)
class PreparedData:
    """Labeled images that were split into a training and a validation part."""

    stacks: list[LabeledStack]
    split: Split
    normalization: Normalization
    device: torch.device

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(each.name for each in self.stacks[0].mapping.classes)

    @property
    def divided_sections(self) -> Sequence[Region]:
        """The sections of which parts are trained or validated on, as a whole: with the gaps between these parts."""
        from napari_autosegnet.data.regions import whole_sections

        parts = (*self.split.training, *self.split.validation)
        return whole_sections(self.stacks, {(part.stack, part.section) for part in parts})

    def as_before(self, learned_from: LearnedFrom | None, *, checked: bool = True) -> PreparedData:
        """With the very normalization that was learned with before, from which this one must not differ.

        Raises
        ------
        UserError
            When it does and is ``checked``.
        """
        if learned_from is None:
            return self
        if checked:
            learned_from.check_normalization(self.normalization)
        return replace(self, normalization=learned_from.normalization)

    def learned_from(self, data: RunData, context: int) -> LearnedFrom:
        """What a run keeps of it, to be resumed on the same ``data`` only."""
        return LearnedFrom.of(data, self.stacks, self.split, self.normalization, context=context)


def prepare(
    data: LabeledData,
    settings: Settings,
    *,
    device: str,
    report: Report,
    every_class: bool = True,
    divide: Callable[[Sequence[LabeledStack]], Split] | None = None,
) -> PreparedData:
    """Split and normalize labeled images; ``every_class`` must be on both sides of the split.

    ``divide`` splits them in another way than their settings say.

    Raises
    ------
    UserError
        When there is no such device, or the images do not fit the settings.
    """
    from napari_autosegnet.data.images import tell_notes
    from napari_autosegnet.data.pairs import tell_pairs
    from napari_autosegnet.data.regions import region_pixels
    from napari_autosegnet.data.split import split_stacks
    from napari_autosegnet.data.training_sections import fit_normalization, leave_out_constant, look_at_annotated
    from napari_autosegnet.device import choose_device

    chosen_device = choose_device(device)
    stacks = data.stacks
    _check_sizes(stacks, settings.network.min_size)
    grays = look_at_annotated(stacks)
    leave_out_constant(stacks, grays, report)
    if divide is not None:
        split = divide(stacks)
    else:
        split = split_stacks(stacks, data.split, context=settings.context, every_class=every_class)
    mapping = stacks[0].mapping
    report(DeviceChosen(name=str(chosen_device)))
    tell_pairs(stacks, report)
    tell_notes([each for stack in stacks for each in (stack.image, stack.labels)], report)
    report(
        DataRead(
            text=mapping.describe(),
            classes=tuple(c.name for c in mapping.classes),
            training_pixels=tuple(map(tuple, region_pixels(stacks, split.training).tolist())),
            validation_pixels=tuple(map(tuple, region_pixels(stacks, split.validation).tolist())),
        )
    )
    normalization = fit_normalization(stacks, split, settings.normalization, grays, report)
    return PreparedData(stacks, split, normalization, chosen_device)


def _check_sizes(stacks: Sequence[LabeledStack], min_size: int) -> None:
    for stack in stacks:
        for section in range(stack.image.sections):
            if min(stack.image.section_shape(section)) < min_size:
                y, x = stack.image.section_shape(section)
                raise UserError(
                    f"section {section} of {stack.image.display_name} is {y}x{x} pixels; "
                    f"give images of at least {min_size}x{min_size}"
                )


def training_data(
    data: PreparedData,
    settings: Settings,
    *,
    stride: int,
    validation_patches: int = VALIDATION_PATCHES,
    report: Report,
) -> TrainingData:
    """Patches to train on, and to validate with: at most ``validation_patches`` of these."""
    import torch

    from napari_autosegnet.data import validation_patches as validation
    from napari_autosegnet.data.patches import PatchSource
    from napari_autosegnet.pixel_classifier.teacher import taught_labels, teacher_weight
    from napari_autosegnet.training.training_data import TrainingData

    is_taught = isinstance(settings, TrainSettings) and settings.teacher == "forest"
    weight = teacher_weight(data.stacks, data.split.training) if is_taught else 0.0

    def patches(regions: Sequence[Region]) -> PatchSource:
        taught = None
        if weight:
            taught = taught_labels(
                data.stacks,
                regions,
                data.normalization,
                context=settings.context,
                seed=settings.seed,
                threads=torch.get_num_threads(),
            )
        return PatchSource(
            data.stacks,
            regions,
            data.normalization,
            size=settings.patch_size,
            context=settings.context,
            augmentation=settings.augmentation,
            device=data.device,
            taught=taught,
        )

    images, targets, sections = validation.validation_patches(
        data.stacks,
        data.split.validation,
        data.normalization,
        size=settings.patch_size,
        stride=stride,
        context=settings.context,
        limit=validation_patches,
        generator=torch.Generator().manual_seed(settings.seed),
        device=data.device,
    )
    prepared = TrainingData(
        patches(data.split.training),
        images,
        targets,
        data.classes,
        sections,
        everything=lambda: patches(data.divided_sections),
        teacher_weight=weight,
    )
    if weight:
        report(Note(text="a forest on pixel features teaches the network beside the strokes, as these are few"))
    if prepared.checked.scarce:
        report(Note(text=prepared.checked.scarcity()))
    return prepared
