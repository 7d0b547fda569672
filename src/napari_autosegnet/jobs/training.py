"""One training, from labeled images and a network to the model in ``RUN/model``."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace

from napari_autosegnet.data.learned_from import LearnedFrom
from napari_autosegnet.events import QualityMeasured, Report
from napari_autosegnet.interruption import ShouldStop
from napari_autosegnet.jobs.configuration import RunConfiguration
from napari_autosegnet.jobs.model_making import ModelMaker
from napari_autosegnet.jobs.preparation import LabeledData, prepare, training_data
from napari_autosegnet.jobs.training_start import TrainingStart
from napari_autosegnet.model import Model
from napari_autosegnet.run import Run
from napari_autosegnet.training.checkpoints import has_checkpoint, remove_checkpoint
from napari_autosegnet.training.trainer import Trainer, TrainingData

#: Most pixels, in training patches, that are scored at the end of an epoch.
VALIDATION_PATCHES = 64

#: Called at the end of every epoch with a function that gives the model as it is then, and what tells it from others.
OnEpoch = Callable[[Callable[[], Model], Hashable], None]


class Training:
    """A training whose data is read and whose network is built.

    Parameters
    ----------
    run : Run
        Held by the caller (`jobs.running`).
    configuration : RunConfiguration
        What the run keeps; a new training is added to it.
    start, data
        What is trained, and on what.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``mps``.
    learned_from : LearnedFrom or None
        What the training that the run holds learned from, if that is to be resumed; None begins a new one.

    Raises
    ------
    UserError
        When the data does not fit the settings, or the model that is continued from.
    """

    def __init__(
        self,
        run: Run,
        configuration: RunConfiguration,
        start: TrainingStart,
        data: LabeledData,
        *,
        device: str,
        learned_from: LearnedFrom | None,
        report: Report,
    ) -> None:
        self.run, self.start, self.report = run, start, report
        settings = start.settings
        start.check_classes(data.stacks[0].mapping, configuration)
        prepared = prepare(data, settings, device=device, report=report)
        self.prepared = replace(prepared, normalization=start.normalization(prepared)).as_before(learned_from)
        channels = self.prepared.normalization.channels(settings.context)
        self.specification, network = start.build(channels, len(prepared.classes))
        self.data: TrainingData = training_data(
            self.prepared,
            settings,
            stride=self.specification.stride,
            validation_patches=VALIDATION_PATCHES,
            report=report,
        )
        checkpoint = run.checkpoint_file("training")
        if learned_from is None:
            # Before anything else: a crash here must not leave an older training's checkpoint to this one.
            remove_checkpoint(checkpoint)
            start.save(run, configuration, data, self.prepared)
        self.trainer = Trainer(network, self.data, settings, checkpoint=checkpoint)
        # A run that was ended before its first epoch begins again.
        if learned_from is not None and has_checkpoint(checkpoint):
            self.trainer.resume(report)

    def finish(self, should_stop: ShouldStop, on_epoch: OnEpoch | None = None) -> Model:
        """Train, calibrate, measure halo and half precision, and write ``RUN/model``."""
        maker = ModelMaker(self.prepared, self.data, self.start.settings)

        def current() -> Model:
            return maker.model(self.specification, self.trainer.learner.current.state_dict())

        def after_epoch() -> None:
            if on_epoch is not None:
                on_epoch(current, self.trainer.budget.epoch)

        result = self.trainer.run(report=self.report, should_stop=should_stop, on_epoch=after_epoch)
        model = maker.finished(self.specification, result, self.trainer.threads)
        model = maker.with_figures(model, self.report, should_stop)
        model.save(self.run.model_folder)
        self.report(QualityMeasured(step="train", **model.metrics["validation"]))
        return model
