"""What a training begins with: a new network, the run's model, or the state that it was ended in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_autosegnet.architecture import Architecture, SearchSpace
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Report
from napari_autosegnet.files import write_atomically
from napari_autosegnet.jobs.configuration import RunConfiguration
from napari_autosegnet.presets import train_settings
from napari_autosegnet.run import Run
from napari_autosegnet.settings import Network, TrainSettings

if TYPE_CHECKING:
    from torch import nn

    from napari_autosegnet.data.annotations import LabelMapping
    from napari_autosegnet.data.learned_from import LearnedFrom
    from napari_autosegnet.data.normalization import Normalization
    from napari_autosegnet.jobs.preparation import LabeledData, PreparedData
    from napari_autosegnet.model import Model
    from napari_autosegnet.networks.specification import NetworkSpecification


@dataclass(frozen=True)
class TrainingStart:
    """The network that a training begins with."""

    network: Network
    #: None where the network is not made of the search's operations.
    architecture: Architecture | None
    settings: TrainSettings
    #: The model whose weights, normalization and classes are continued from; None for new weights.
    model: Model | None = None

    @classmethod
    def resume(cls, run: Run, configuration: RunConfiguration) -> TrainingStart:
        """What the training that is resumed began with."""
        from napari_autosegnet.model import Model

        if configuration.training is None:
            raise UserError(f"{run.path} holds no training to resume; start it without --resume")
        if configuration.network is None:
            raise UserError(f"{run.config_file} is damaged at 'network': is missing; start a new run")
        architecture = None
        if configuration.network in ("searched", "plain"):
            architecture = Architecture.load(run.training_architecture_file)
            if architecture.digest != configuration.training_architecture:
                raise UserError(
                    f"{run.training_architecture_file} is not what this training began with; "
                    "put the old file back, or start a new run"
                )
        model = Model.load(run.model_folder) if configuration.continued else None
        return cls(configuration.network, architecture, configuration.training, model)

    @classmethod
    def continue_from(cls, run: Run, configuration: RunConfiguration, settings: TrainSettings | None) -> TrainingStart:
        """From the weights of the run's model; from those before it learned from what it is to be checked with."""
        from napari_autosegnet.jobs.menu import checked_model
        from napari_autosegnet.model import Model

        model = Model.load(run.model_folder)
        if model.description.training.get("learned_from_everything"):
            model = Model.load(checked_model(run))
        kind = model.specification
        # What it sees of neighboring sections is the model's, whatever the settings say; and it has long surpassed
        # what a forest makes of corrections.
        own = {"context": model.context, "teacher": "none"}
        settings = (settings or train_settings(configuration.preset)).model_copy(update=own)
        return cls(kind.network, kind.architecture, settings, model)

    @classmethod
    def fresh(
        cls,
        run: Run,
        configuration: RunConfiguration,
        network: Network,
        architecture: Path | None,
        settings: TrainSettings | None,
    ) -> TrainingStart:
        """From scratch."""
        if configuration.training is not None:
            raise UserError(
                f"{run.path} holds a training already; continue it with --resume or --continue-with, "
                "or choose another --run"
            )
        trained: Architecture | None = None
        match network:
            case "searched":
                trained = Architecture.load(architecture) if architecture is not None else _searched(run)
            case "plain":
                trained = SearchSpace().plain
        return cls(network, trained, settings or train_settings(configuration.preset))

    def prepare(
        self,
        data: LabeledData,
        configuration: RunConfiguration,
        learned_from: LearnedFrom | None,
        *,
        device: str,
        report: Report,
        every_class: bool = True,
    ) -> PreparedData:
        """Split and normalize what is trained on, as before where a training is resumed or a model continued from.

        Raises
        ------
        UserError
            When the data does not fit the settings, or the model that is continued from.
        """
        from napari_autosegnet.jobs.preparation import prepare

        if self.model is not None:
            before = configuration.data if learned_from is None else learned_from.data
            kept = None if before is None else before.mapping
            check_same_classes(self.model, data.stacks[0].mapping, kept)
        prepared = prepare(
            data,
            self.settings,
            device=device,
            report=report,
            every_class=every_class,
            divide=None if learned_from is None else learned_from.divide,
        )
        return replace(prepared, normalization=self._normalization(prepared)).as_before(learned_from)

    def _normalization(self, data: PreparedData) -> Normalization:
        """What is measured; for a model that is continued from, the one that its weights were learned with."""
        from napari_autosegnet.data.gray_match import AS_IS
        from napari_autosegnet.inference.compute.gray_check import GrayValuesError, check_gray_values

        if self.model is None:
            return data.normalization
        kept, measured = self.model.normalization, data.normalization
        if kept.seen is None or measured.seen is None:
            return kept
        for stack in data.stacks:
            try:
                fits = kept.kind == "section" or check_gray_values(kept, stack.image) == AS_IS
            except GrayValuesError:
                fits = False
            if not fits:
                raise UserError(
                    f"the gray values of {stack.image.display_name} are not in the range of the images "
                    "that the model has learned from; give it in their range, or train from scratch in a new run"
                )
        return kept.model_copy(update={"seen": kept.seen.with_more(measured.seen)})

    def save(self, run: Run, configuration: RunConfiguration, data: LabeledData, prepared: PreparedData) -> None:
        """Keep in the run what is trained, and on what; from then on it can be resumed."""
        if self.architecture is not None:
            write_atomically(run.training_architecture_file, self.architecture.to_json())
        configuration.data = data.description
        configuration.network, configuration.training = self.network, self.settings
        configuration.training_architecture = None if self.architecture is None else self.architecture.digest
        configuration.continued = self.model is not None
        configuration.trained_on = prepared.learned_from(configuration.data, self.settings.context)
        # Last, and at once: from here on there is something to resume.
        configuration.save(run)

    def build(self, in_channels: int, classes: int) -> tuple[NetworkSpecification, nn.Module]:
        import torch

        from napari_autosegnet.networks.specification import NetworkSpecification

        if self.network == "forest":
            raise ValueError("a forest is fitted, not built")
        if self.model is not None:
            assert isinstance(self.model.specification, NetworkSpecification)
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


def _searched(run: Run) -> Architecture:
    if not run.architecture_file.exists():
        raise UserError(
            f"{run.path} holds no architecture yet; run 'napari-autosegnet search' first, "
            "or train without one: --network plain, unet, unet-half or pspnet, or --architecture FILE"
        )
    return Architecture.load(run.architecture_file)
