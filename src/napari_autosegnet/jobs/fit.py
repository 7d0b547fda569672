"""From labeled images to a model in one go: networks of several sizes compete, the chosen one is trained."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from napari_autosegnet.errors import StoppedError, UserError
from napari_autosegnet.events import QualityMeasured, Report, silent
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.jobs.job import LearningJob
from napari_autosegnet.jobs.running import running
from napari_autosegnet.presets import FitPreset, fit_settings
from napari_autosegnet.run import Run
from napari_autosegnet.settings import FitSettings

if TYPE_CHECKING:
    from napari_autosegnet.jobs.model_making import ModelMaker
    from napari_autosegnet.jobs.more_labels import MoreLabels
    from napari_autosegnet.jobs.preparation import PreparedData
    from napari_autosegnet.jobs.training import OnEpoch
    from napari_autosegnet.model import Model
    from napari_autosegnet.search.candidates import Candidate
    from napari_autosegnet.search.fit import Fit
    from napari_autosegnet.training.training_data import TrainingData

#: Sides of validation patches are a multiple of it, so that all sizes of networks take them.
STRIDE = 16
#: Seconds between two writings of the model as it is so far.
MODEL_EVERY = 20.0


class FitJob(LearningJob):
    """Find and train the network that labeled images need."""

    step: Literal["fit"] = "fit"
    preset: FitPreset = Field("standard", description="fast: a laptop; standard: one GPU")
    settings: FitSettings | None = Field(None, description="The preset's by default")

    def run(
        self,
        folder: Path,
        *,
        on_epoch: OnEpoch | None = None,
        report: Report = silent,
        should_stop: ShouldStop = never_stop,
    ) -> Model:
        """Fit in a run folder; see `api.fit`."""
        from napari_autosegnet.jobs.configuration import RunConfiguration
        from napari_autosegnet.jobs.model_making import ModelMaker
        from napari_autosegnet.jobs.more_labels import MoreLabels
        from napari_autosegnet.jobs.preparation import prepare, training_data
        from napari_autosegnet.search.fit import Fit
        from napari_autosegnet.training.checkpoints import has_checkpoint

        run = Run.open(folder) if self.resume else Run.create(folder)
        with running(run, "fit", report, should_stop) as (report, should_stop):
            configuration = RunConfiguration.load(run)
            if self.resume:
                self.refuse_other_data()
                if configuration.fit is None:
                    raise UserError(f"{folder} holds no fit to resume; start it without --resume")
            elif configuration.fit is not None or configuration.training is not None:
                raise UserError(f"{folder} holds a model already; continue with --resume, or choose another --run")
            else:
                configuration.preset, configuration.fit = self.preset, self.settings or fit_settings(self.preset)
            settings, learned_from = configuration.fit, configuration.fitted_on
            data = self.open_data(run, configuration, advice="put it back, or start a new run")
            divide = None if learned_from is None else learned_from.divide
            prepared = prepare(data, settings, device=self.device, report=report, divide=divide)
            # That of a split that has grown was measured on fewer sections.
            prepared = prepared.as_before(learned_from, checked=not configuration.labels_taken)

            def patches_of(prepared: PreparedData, report: Report) -> TrainingData:
                return training_data(prepared, settings, stride=STRIDE, report=report)

            patches = replace(patches_of(prepared, report), version=configuration.labels_taken)
            checkpoint = run.checkpoint_file("fit")
            fit = Fit(
                patches,
                settings,
                in_channels=prepared.normalization.channels(settings.context),
                checkpoint=checkpoint,
            )
            if not self.resume:
                run.withdraw("labels")
                configuration.data = data.description
                configuration.fitted_on = prepared.learned_from(configuration.data, settings.context)
                configuration.save(run)
            # A run that was ended before its first epoch begins again.
            elif has_checkpoint(checkpoint):
                fit.resume(report)
            labels = MoreLabels(run, ModelMaker(prepared, patches, settings), patches_of, report)
            keeper = _Keeper(run, labels, on_epoch)
            chosen = fit.run(report=report, should_stop=should_stop, on_epoch=keeper, more_data=labels)
            if chosen is None:
                raise StoppedError("the fit was stopped before any network was trained; continue it with --resume")
            model = _write_networks(run, fit, chosen, labels.maker, report, should_stop)
            model.save(run.model_folder)
            report(QualityMeasured(step="fit", **model.metrics["validation"]))
            return model


class _Keeper:
    """Writes the best model so far every now and then, and shows the current one at the end of each epoch."""

    def __init__(self, run: Run, labels: MoreLabels, on_epoch: OnEpoch | None) -> None:
        self._run = run
        self._labels = labels
        self._on_epoch = on_epoch
        self._written: tuple[Candidate, int] | None = None
        self._at = -MODEL_EVERY

    def __call__(self, candidate: Candidate) -> None:
        now, state = time.monotonic(), (candidate, candidate.trainer.budget.epoch)
        maker = self._labels.maker
        if now - self._at >= MODEL_EVERY and state != self._written:
            model = maker.finished(candidate.specification, candidate.result, candidate.trainer.threads)
            model.save(self._run.model_folder)
            self._run.report(QualityMeasured(step="fit", **model.metrics["validation"]))
            self._written, self._at = state, now
        if self._on_epoch is not None:
            self._on_epoch(
                lambda: maker.model(candidate.specification, candidate.weights),
                state,
            )


def _write_networks(
    run: Run, fit: Fit, chosen: Candidate, maker: ModelMaker, report: Report, should_stop: ShouldStop
) -> Model:
    """Write the model of each network, and the menu; returns the chosen one."""
    from napari_autosegnet.jobs.menu import MenuEntry, checked_model, model_of, write_menu
    from napari_autosegnet.networks.specification import parameter_count
    from napari_autosegnet.search.candidates import GOALS, choose
    from napari_autosegnet.training.validation import interval, paired_interval

    trained = fit.trained
    best = choose(trained, "accurate", fit.settings.tolerance)
    answers = {goal: choose(trained, goal, fit.settings.tolerance) for goal in GOALS}
    entries, model_of_run = [], None
    for candidate in trained:
        entry = MenuEntry(
            name=candidate.size.name,
            description=str(candidate.size),
            mean_iou=candidate.scores.mean_iou,
            interval=interval(candidate.scores),
            difference=paired_interval(candidate.scores, best.scores),
            milliseconds=candidate.latency,
            parameters=parameter_count(candidate.trainer.learner.network),
            seconds=candidate.trainer.budget.elapsed,
            epochs=candidate.trainer.budget.epoch,
            goals=tuple(goal for goal in GOALS if answers[goal] is candidate),
            chosen=candidate is chosen,
        )
        entries.append(entry)
        model = maker.finished(candidate.specification, candidate.result, candidate.trainer.threads)
        # Networks that answer no goal use the exact halo, which needs no measurement.
        if entry.goals or entry.chosen:
            model = maker.with_figures(model, report, should_stop)
        model.save(model_of(run, entry))
        if candidate is chosen:
            model_of_run = model
            if candidate.result.unchecked is not None:
                checked = replace(candidate.result, unchecked=None)
                maker.finished(candidate.specification, checked, candidate.trainer.threads).save(checked_model(run))
    write_menu(run, sorted(entries, key=lambda entry: -entry.mean_iou))
    assert model_of_run is not None
    return model_of_run
