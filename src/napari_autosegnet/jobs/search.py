"""The search of an architecture."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from napari_autosegnet.architecture import Architecture
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Report, silent
from napari_autosegnet.files import write_atomically
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.jobs.job import LearningJob
from napari_autosegnet.jobs.running import running
from napari_autosegnet.presets import Preset, search_settings, train_settings
from napari_autosegnet.run import Run
from napari_autosegnet.settings import SearchSettings


class SearchJob(LearningJob):
    """Find an architecture for labeled images."""

    step: Literal["search"] = "search"
    preset: Preset = Field("standard", description="fast: a laptop; standard: one GPU; paper: AutoSegNet's own sizes")
    settings: SearchSettings | None = Field(None, description="The preset's by default")

    def run(
        self, folder: Path, *, report: Report = silent, should_stop: ShouldStop = never_stop
    ) -> Architecture | None:
        """Search in a run folder; see `api.search`."""
        from napari_autosegnet.jobs.configuration import RunConfiguration
        from napari_autosegnet.jobs.preparation import prepare, training_data
        from napari_autosegnet.networks.specification import NetworkSpecification
        from napari_autosegnet.search.search import Search
        from napari_autosegnet.training.checkpoints import has_checkpoint

        run = Run.open(folder) if self.resume else Run.create(folder)
        with running(run, "search", report, should_stop) as (report, should_stop):
            configuration = RunConfiguration.load(run)
            if self.resume:
                self.refuse_other_data()
                if configuration.search is None:
                    raise UserError(f"{folder} holds no search to resume; start it without --resume")
            elif configuration.search is not None:
                raise UserError(f"{folder} holds a search already; continue it with --resume, or choose another --run")
            else:
                configuration.preset = self.preset
                configuration.search = self.settings or search_settings(self.preset)
            settings, learned_from = configuration.search, configuration.searched_on
            data = self.open_data(run, configuration, advice="put it back, or start a new search")
            divide = None if learned_from is None else learned_from.divide
            prepared = prepare(data, settings, device=self.device, report=report, divide=divide)
            prepared = prepared.as_before(learned_from)
            size = partial(
                NetworkSpecification.for_patches,
                in_channels=prepared.normalization.channels(settings.context),
                classes=len(prepared.classes),
            )
            specification = size(settings.patch_size, settings.network)
            training = train_settings(configuration.preset)
            search = Search(
                training_data(
                    prepared,
                    settings,
                    stride=specification.stride,
                    validation_patches=2 * settings.reward_patches,
                    report=report,
                ),
                settings,
                in_channels=specification.in_channels,
                checkpoint=run.checkpoint_file("search"),
                final=size(training.patch_size, training.network),
            )
            if not self.resume:
                configuration.data = data.description
                configuration.searched_on = prepared.learned_from(configuration.data, settings.context)
                configuration.save(run)
            # A run that was ended before its first epoch begins again.
            elif has_checkpoint(run.checkpoint_file("search")):
                search.resume(report)
            result = search.run(report=report, should_stop=should_stop)
            if result is None:
                return None
            write_atomically(run.architecture_file, result.architecture.to_json())
            return result.architecture
