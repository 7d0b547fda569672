"""The training of a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from napari_autosegnet.data.selection import ALL
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Report, silent
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.jobs.job import LearningJob
from napari_autosegnet.jobs.running import running
from napari_autosegnet.run import Run
from napari_autosegnet.settings import Network, TrainSettings

if TYPE_CHECKING:
    from napari_autosegnet.jobs.training import OnEpoch
    from napari_autosegnet.model import Model


class TrainJob(LearningJob):
    """Train a network, on the images of the run's search unless others are given."""

    step: Literal["train"] = "train"
    architecture: Path | None = Field(None, description="An architecture.json instead of what the run found")
    network: Network = Field(
        "searched",
        description="searched; plain: a chain of the search's operations, without a search; unet, unet-half (at half "
        "the resolution), pspnet: to compare with; forest: a random forest on pixel features, for a few strokes, in "
        "seconds",
    )
    settings: TrainSettings | None = Field(None, description="Those of the run's preset by default")
    continue_with: tuple[Path, ...] = Field(
        (), description="Start from the run's last weights with these new labels, once for each of its images"
    )

    def refuse_other_data(self) -> None:
        """New labels, too."""
        if self.continue_with:
            raise UserError("--resume continues with the labels that the run began with; give it or --continue-with")
        super().refuse_other_data()

    def run(
        self,
        folder: Path,
        *,
        on_epoch: OnEpoch | None = None,
        report: Report = silent,
        should_stop: ShouldStop = never_stop,
    ) -> Model:
        """Train in a run folder; see `api.train`."""
        from napari_autosegnet.jobs.configuration import RunConfiguration
        from napari_autosegnet.jobs.forest_training import train_forest
        from napari_autosegnet.jobs.preparation import LabeledData
        from napari_autosegnet.jobs.training import train_network
        from napari_autosegnet.jobs.training_start import TrainingStart

        run = Run.open(folder) if self.resume or not self.images else Run.create(folder)
        with running(run, "train", report, should_stop) as (report, should_stop):
            configuration, learned_from = RunConfiguration.load(run), None
            if self.resume:
                self.refuse_other_data()
                start = TrainingStart.resume(run, configuration)
                learned_from = configuration.trained_on
            elif self.continue_with:
                start = TrainingStart.continue_from(run, configuration, self.settings)
            else:
                start = TrainingStart.fresh(run, configuration, self.network, self.architecture, self.settings)
            if self.resume:
                advice = (
                    "put it back, start a new run, or train on from a finished model with new labels: "
                    "--continue-with, in napari 'Add labels and continue'"
                )
                data = self.open_data(run, configuration, advice=advice)
            elif self.images:
                labels = self.labels or self.continue_with
                data = LabeledData.given(self.images, labels, self.classes, self.selection, self.split)
            elif self.selection != ALL:
                raise UserError(
                    "the run's own images are read as before; leave out --time, --channels and --axes, or give --image"
                )
            else:
                data = LabeledData.kept(run, configuration.data, self.continue_with, self.split)
            if start.network == "forest":
                return train_forest(
                    run, configuration, start, data, learned_from=learned_from, report=report, should_stop=should_stop
                )
            return train_network(
                run,
                configuration,
                start,
                data,
                device=self.device,
                learned_from=learned_from,
                on_epoch=on_epoch,
                report=report,
                should_stop=should_stop,
            )
