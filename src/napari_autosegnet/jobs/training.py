"""One training, from labelled images and a network to the model in ``RUN/model``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from napari_autosegnet.data.annotations import LabelledStack
from napari_autosegnet.data.learned_from import LearnedFrom
from napari_autosegnet.data.normalisation import Normalisation
from napari_autosegnet.data.split import Split
from napari_autosegnet.errors import UserError
from napari_autosegnet.files import write_atomically
from napari_autosegnet.jobs.configuration import describe_learned_from, kept_mapping
from napari_autosegnet.jobs.preparation import LabelledData, prepare, training_data
from napari_autosegnet.jobs.training_start import TrainingStart, check_same_classes
from napari_autosegnet.model import Model
from napari_autosegnet.run import Report, Run, ShouldStop
from napari_autosegnet.training.calibration import calibrate
from napari_autosegnet.training.checkpoints import has_checkpoint, remove_checkpoint
from napari_autosegnet.training.trainer import Trainer, TrainingData, TrainingResult

#: Most pixels, in training patches, that are scored at the end of an epoch.
VALIDATION_PATCHES = 64

#: Called at the end of every epoch with a function that gives the model as it is then.
OnEpoch = Callable[[Callable[[], Model]], None]


class Training:
    """A training whose data is read and whose network is built.

    Parameters
    ----------
    run : Run
        Held by the caller (`jobs.running`).
    start, data
        What is trained, and on what.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``mps``.
    learned_from : LearnedFrom or None
        What the training that the run holds learned from, if that is to be resumed; None begins a new one.

    Raises
    ------
    UserError
        When the data does not do for the settings or for the model that is continued from.
    """

    def __init__(
        self,
        run: Run,
        start: TrainingStart,
        data: LabelledData,
        *,
        device: str,
        learned_from: LearnedFrom | None,
        report: Report,
    ) -> None:
        self.run, self.start, self.labelled, self.report = run, start, data, report
        settings, stacks = start.settings, data.stacks
        if start.model is not None:
            check_same_classes(start.model, stacks[0].mapping, kept_mapping(run))
        self.device, self.parts, measured = prepare(
            stacks,
            data.split,
            settings.normalisation,
            context=settings.context,
            min_size=settings.network.min_size,
            device=device,
            report=report,
        )
        self.normalisation: Normalisation = measured
        if start.model is not None:
            self.normalisation = _further_normalisation(start.model.normalisation, measured, stacks)
        if learned_from is not None:
            learned_from.check_normalisation(self.normalisation)
            self.normalisation = learned_from.normalisation
        self.specification, network = start.build(
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
        settings, architecture = self.start.settings, self.start.architecture
        if architecture is not None:
            write_atomically(self.run.training_architecture_file, architecture.to_json())
        # Last, and at once: from here on there is something to resume.
        self.run.update_config(
            data=self.labelled.description,
            network=self.start.network,
            training=settings.model_dump(mode="json"),
            training_architecture=None if architecture is None else architecture.digest,
            continued=self.start.model is not None,
            **describe_learned_from("training", self.labelled.stacks, self.normalisation, context=settings.context),
        )

    def finish(self, should_stop: ShouldStop, on_epoch: OnEpoch | None = None) -> Model:
        """Train, calibrate, measure the halo, and write ``RUN/model``."""
        told = None if on_epoch is None else lambda: on_epoch(lambda: self._model(self.trainer.current.state_dict()))
        result = self.trainer.run(report=self.report, should_stop=should_stop, on_epoch=told)
        model = self._scored(result)
        model = _with_measured_halo(model, self.labelled.stacks, self.parts, self.device, self.report, should_stop)
        model.save(self.run.model_folder)
        self.report("quality", step="train", **model.metrics["validation"])
        return model

    def _scored(self, result: TrainingResult) -> Model:
        network, settings = self.trainer.network, self.start.settings
        network.load_state_dict(result.weights)
        temperature = calibrate(
            network,
            self.data.validation_images,
            self.data.validation_targets,
            batch_size=settings.batch_size,
            threads=self.trainer.threads,
        )
        values = self.labelled.stacks[0].mapping.values
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
        first = self.labelled.stacks[0]
        return Model.create(
            weights,
            self.specification,
            classes=first.mapping.classes,
            normalisation=self.normalisation,
            image_channels=first.image.channels,
            patch_size=self.start.settings.patch_size,
            context=self.start.settings.context,
            **more,
        )


def _further_normalisation(
    kept: Normalisation, measured: Normalisation, stacks: Sequence[LabelledStack]
) -> Normalisation:
    """The normalisation that a model's weights were learned with, for images that it continues with.

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


def _with_measured_halo(
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
