"""One training, from labeled images and a network to the model in ``RUN/model``."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from napari_autosegnet.data.learned_from import LearnedFrom
from napari_autosegnet.events import QualityMeasured, Report
from napari_autosegnet.interruption import ShouldStop
from napari_autosegnet.jobs.configuration import RunConfiguration
from napari_autosegnet.jobs.model_making import ModelMaker
from napari_autosegnet.jobs.preparation import LabeledData, training_data
from napari_autosegnet.jobs.training_start import TrainingStart
from napari_autosegnet.model import Model
from napari_autosegnet.run import Run
from napari_autosegnet.training.checkpoints import has_checkpoint, remove_checkpoint
from napari_autosegnet.training.trainer import Trainer

#: Called at the end of every epoch with a function that gives the model as it is then, and what tells it from others.
OnEpoch = Callable[[Callable[[], Model], Hashable], None]


def train_network(
    run: Run,
    configuration: RunConfiguration,
    start: TrainingStart,
    data: LabeledData,
    *,
    device: str,
    learned_from: LearnedFrom | None,
    on_epoch: OnEpoch | None,
    report: Report,
    should_stop: ShouldStop,
) -> Model:
    """Train, calibrate, measure halo and half precision, and write ``RUN/model``.

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
    on_epoch, report, should_stop
        What is told, and asked, meanwhile.

    Raises
    ------
    UserError
        When the data does not fit the settings, or the model that is continued from.
    """
    settings = start.settings
    prepared = start.prepare(data, configuration, learned_from, device=device, report=report)
    channels = prepared.normalization.channels(settings.context)
    specification, network = start.build(channels, len(prepared.classes))
    patches = training_data(prepared, settings, stride=specification.stride, report=report)
    checkpoint = run.checkpoint_file("training")
    if learned_from is None:
        # Before anything else: a crash here must not leave an older training's checkpoint to this one.
        remove_checkpoint(checkpoint)
        start.save(run, configuration, data, prepared)
    trainer = Trainer(network, patches, settings, checkpoint=checkpoint)
    # A run that was ended before its first epoch begins again.
    if learned_from is not None and has_checkpoint(checkpoint):
        trainer.resume(report)
    maker = ModelMaker(prepared, patches, settings)

    def current() -> Model:
        return maker.model(specification, trainer.learner.current.state_dict())

    def after_epoch() -> None:
        if on_epoch is not None:
            on_epoch(current, trainer.budget.epoch)

    result = trainer.run(report=report, should_stop=should_stop, on_epoch=after_epoch)
    model = maker.finished(specification, result, trainer.threads)
    model = maker.with_figures(model, report, should_stop)
    model.save(run.model_folder)
    report(QualityMeasured(step="train", **model.metrics["validation"]))
    return model
