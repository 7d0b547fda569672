"""One training, from what a run folder and its caller say to the model in ``RUN/model``; see `api.train`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from napari_autosegnet.architecture import Architecture, SearchSpace
from napari_autosegnet.config import Network, SplitSettings, TrainSettings, train_settings
from napari_autosegnet.data.annotations import LabelledStack
from napari_autosegnet.data.learned_from import LearnedFrom
from napari_autosegnet.data.normalisation import Normalisation
from napari_autosegnet.data.pairs import given_pairs
from napari_autosegnet.data.selection import ALL, Selection
from napari_autosegnet.errors import UserError
from napari_autosegnet.files import write_atomically
from napari_autosegnet.model import Model
from napari_autosegnet.networks.specification import NetworkSpecification
from napari_autosegnet.run import Report, Run, ShouldStop
from napari_autosegnet.steps import (
    check_same_classes,
    describe_data,
    describe_learned_from,
    found_architecture,
    kept_data,
    kept_mapping,
    kept_preset,
    kept_settings,
    open_stacks,
    prepare,
    training_data,
    with_measured_halo,
)
from napari_autosegnet.training.calibration import calibrate
from napari_autosegnet.training.checkpoints import has_checkpoint, remove_checkpoint
from napari_autosegnet.training.trainer import Trainer, TrainingData, TrainingResult

#: Most pixels, in training patches, that are scored at the end of an epoch.
VALIDATION_PATCHES = 64

#: Called at the end of every epoch with a function that gives the model as it is then.
OnEpoch = Callable[[Callable[[], Model]], None]


@dataclass(frozen=True)
class Begun:
    """The network that a training begins with."""

    network: Network
    #: None where the network is not made of the search's operations.
    architecture: Architecture | None
    settings: TrainSettings
    #: The model whose weights, normalisation and classes are gone on with; None for new weights.
    model: Model | None = None

    @classmethod
    def kept(cls, run: Run) -> Begun:
        """What the training that is resumed began with."""
        settings = kept_settings(run, "training", TrainSettings)
        content = run.read_config()
        network = content.get("network", "")
        if network not in get_args(Network):
            raise UserError(f"{run.config_file}, 'network' is damaged; start a new run")
        architecture = None
        if network in ("searched", "plain"):
            architecture = Architecture.load(run.training_architecture_file)
            if architecture.digest != content.get("training_architecture"):
                raise UserError(
                    f"{run.training_architecture_file} is not what this training began with; "
                    "put the old file back, or start a new run"
                )
        return cls(
            network,
            architecture,
            settings,
            Model.load(run.model_folder) if content.get("continued") else None,
        )

    @classmethod
    def further(cls, run: Run, settings: TrainSettings | None) -> Begun:
        """From the weights of the run's model."""
        model = Model.load(run.model_folder)
        kind = model.specification
        # What it sees of neighbouring sections is the model's, whatever the settings say.
        settings = (settings or train_settings(kept_preset(run))).model_copy(update={"context": model.context})
        return cls(kind.network, kind.architecture, settings, model)

    @classmethod
    def new(cls, run: Run, network: Network, architecture: Path | None, settings: TrainSettings | None) -> Begun:
        """From scratch."""
        if run.config_file.exists() and "training" in run.read_config():
            raise UserError(
                f"{run.path} holds a training already; go on with --resume or --continue-with, or choose another --run"
            )
        found = None
        if network == "searched":
            found = found_architecture(run, architecture)
        elif network == "plain":
            found = SearchSpace().plain
        return cls(network, found, settings or train_settings(kept_preset(run)))

    def build(self, in_channels: int, classes: int) -> tuple[NetworkSpecification, nn.Module]:
        if self.model is not None:
            self.model.specification.check_patches(self.settings.patch_size)
            return self.model.specification, self.model.network()
        specification = NetworkSpecification.for_patches(
            self.settings.patch_size,
            self.settings.network,
            in_channels=in_channels,
            classes=classes,
            network="searched" if self.network == "plain" else self.network,
            architecture=self.architecture,
        )
        torch.manual_seed(self.settings.seed)
        return specification, specification.build()


@dataclass(frozen=True)
class Source:
    """What a training learns from."""

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
        split: SplitSettings | None,
        read: Selection = ALL,
    ) -> Source:
        split = split or SplitSettings()
        images, labels = given_pairs(images, labels)
        stacks = open_stacks(images, labels, classes, read)
        return cls(stacks, split, describe_data(images, labels, stacks, split, read))

    @classmethod
    def kept(cls, run: Run, labels: Sequence[Path], split: SplitSettings | None) -> Source:
        """The run's own images; ``labels`` take the place of its labels if there are any."""
        stacks, kept_split = kept_data(run, labels=labels or None)
        split = split or kept_split
        description = run.read_config()["data"] | {"split": split.model_dump(mode="json")}
        if labels:
            description["labels"] = [str(path.absolute()) for path in labels]
        return cls(stacks, split, description)


class TrainingJob:
    """A training whose data is read and whose network is built.

    Parameters
    ----------
    run : Run
        Held by the caller (`steps.working`).
    begun, source
        What is trained, and on what.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``mps``.
    learned_from : LearnedFrom or None
        What the training that the run holds learned from, if that is to be resumed; None begins a new one.

    Raises
    ------
    UserError
        When the data does not do for the settings or for the model that is gone on with.
    """

    def __init__(
        self, run: Run, begun: Begun, source: Source, *, device: str, learned_from: LearnedFrom | None, report: Report
    ) -> None:
        self.run, self.begun, self.source, self.report = run, begun, source, report
        settings, stacks = begun.settings, source.stacks
        if begun.model is not None:
            check_same_classes(begun.model, stacks[0].mapping, kept_mapping(run))
        self.device, self.parts, measured = prepare(
            stacks,
            source.split,
            settings.normalisation,
            context=settings.context,
            min_size=settings.network.min_size,
            device=device,
            report=report,
        )
        self.normalisation: Normalisation = measured
        if begun.model is not None:
            self.normalisation = _further_normalisation(begun.model.normalisation, measured, stacks)
        if learned_from is not None:
            learned_from.check_normalisation(self.normalisation)
            self.normalisation = learned_from.normalisation
        self.specification, network = begun.build(
            self.normalisation.channels(settings.context), len(stacks[0].mapping.classes)
        )
        self.data: TrainingData = training_data(
            stacks,
            self.parts,
            self.normalisation,
            patch_size=settings.patch_size,
            stride=self.specification.stride,
            context=settings.context,
            augmentation=settings.augmentation,
            limit=VALIDATION_PATCHES,
            seed=settings.seed,
            device=self.device,
            report=report,
        )
        checkpoint = run.checkpoint_file("training")
        if learned_from is None:
            # Before anything else: a crash here must not leave an older training's checkpoint to this one.
            remove_checkpoint(checkpoint)
            self._write_down()
        self.trainer = Trainer(network, self.data, settings, checkpoint=checkpoint)
        # A run that was ended before its first epoch begins again.
        if learned_from is not None and has_checkpoint(checkpoint):
            self.trainer.resume(report)

    def _write_down(self) -> None:
        settings, architecture = self.begun.settings, self.begun.architecture
        if architecture is not None:
            write_atomically(self.run.training_architecture_file, architecture.to_json())
        # Last, and at once: from here on there is something to resume.
        self.run.update_config(
            data=self.source.description,
            network=self.begun.network,
            training=settings.model_dump(mode="json"),
            training_architecture=None if architecture is None else architecture.digest,
            continued=self.begun.model is not None,
            **describe_learned_from("training", self.source.stacks, self.normalisation, context=settings.context),
        )

    def finish(self, should_stop: ShouldStop, on_epoch: OnEpoch | None = None) -> Model:
        """Train, calibrate, measure the halo, and write ``RUN/model``."""
        told = None if on_epoch is None else lambda: on_epoch(lambda: self._model(self.trainer.current.state_dict()))
        result = self.trainer.run(report=self.report, should_stop=should_stop, on_epoch=told)
        model = self._scored(result)
        model = with_measured_halo(model, self.source.stacks, self.parts, self.device, self.report, should_stop)
        model.save(self.run.model_folder)
        self.report("quality", step="train", **model.metrics["validation"])
        return model

    def _scored(self, result: TrainingResult) -> Model:
        network, settings = self.trainer.network, self.begun.settings
        network.load_state_dict(result.weights)
        temperature = calibrate(
            network,
            self.data.validation_images,
            self.data.validation_targets,
            batch_size=settings.batch_size,
            threads=self.trainer.threads,
        )
        values = self.source.stacks[0].mapping.values
        return self._model(
            network.state_dict(),
            training={
                "settings": settings.model_dump(mode="json"),
                "temperature": temperature,
                "label_values": {str(value): number for value, number in values.items()},
                "epochs": result.epochs,
                "seconds": result.seconds,
            },
            metrics={"validation": self.data.checked.with_scores(result.mean_iou, result.iou).model_dump(mode="json")},
        )

    def _model(self, weights: Mapping[str, torch.Tensor], **more: Any) -> Model:
        first = self.source.stacks[0]
        return Model.create(
            weights,
            self.specification,
            classes=first.mapping.classes,
            normalisation=self.normalisation,
            image_channels=first.image.channels,
            patch_size=self.begun.settings.patch_size,
            context=self.begun.settings.context,
            **more,
        )


def _further_normalisation(
    kept: Normalisation, measured: Normalisation, stacks: Sequence[LabelledStack]
) -> Normalisation:
    """The normalisation that a model's weights were learned with, for images that it goes on with.

    Raises
    ------
    UserError
        When their grey values are unlike all that it has seen.
    """
    from napari_autosegnet.data.grey_match import AS_IS
    from napari_autosegnet.inference.compute.grey_check import GreyValuesError, check_grey_values

    if kept.seen is None or measured.seen is None:
        return kept
    for stack in stacks:
        try:
            fits = kept.kind == "section" or check_grey_values(kept, stack.image) == AS_IS
        except GreyValuesError:
            fits = False
        if not fits:
            raise UserError(
                f"the grey values of {stack.image.path or stack.image.name} are not in the range of the images that "
                "the model has learned from; give it in their range, or train from scratch in a new run"
            )
    return kept.model_copy(update={"seen": kept.seen.with_more(measured.seen)})
