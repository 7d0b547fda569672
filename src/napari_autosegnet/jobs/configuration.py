"""What a run keeps of its search and its training: ``RUN/config.json``."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from napari_autosegnet.data.annotations import LabelMapping
from napari_autosegnet.data.learned_from import LearnedFrom
from napari_autosegnet.data.selection import Selection
from napari_autosegnet.data.split import Split
from napari_autosegnet.errors import UserError, first_problem
from napari_autosegnet.files import write_atomically
from napari_autosegnet.presets import Preset
from napari_autosegnet.run import Run
from napari_autosegnet.run.folder import CONFIG_VERSION
from napari_autosegnet.settings import FitSettings, Network, SearchSettings, SplitSettings, TrainSettings


class RunData(BaseModel):
    """Images and labels of a run, and how they are read and divided.

    ``time_point``, ``channels`` and ``axes`` are those of the `Selection`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    time_point: int | None = None
    channels: tuple[str, ...] | None = None
    axes: str | None = None
    images: tuple[Path, ...] = ()
    labels: tuple[Path, ...] = ()
    mapping: LabelMapping | None = None
    split: SplitSettings = SplitSettings()

    @property
    def selection(self) -> Selection:
        """What of the images and labels is read."""
        return Selection(time_point=self.time_point, channels=self.channels, axes=self.axes)


class RunConfiguration(BaseModel):
    """The run's data, the settings of its search and its training, and what each of them learned from.

    Attributes
    ----------
    preset
        Of the search; a training takes the same one by default.
    grown_split, labels_taken
        How a fit's labels are divided since some were painted meanwhile, and how many times that was.
    network, training_architecture
        What the training trains, and the digest of its architecture.
    fitted_on, searched_on, trained_on
        Checksums of what was learned from, and the normalization.
    continued
        Whether the training began with the weights of the run's model.
    """

    # Fields that others keep here stay.
    model_config = ConfigDict(extra="allow")

    version: int = CONFIG_VERSION
    preset: Preset = "standard"
    data: RunData | None = None
    fit: FitSettings | None = None
    fitted_on: LearnedFrom | None = None
    grown_split: Split | None = None
    labels_taken: int = 0
    search: SearchSettings | None = None
    searched_on: LearnedFrom | None = None
    network: Network | None = None
    training: TrainSettings | None = None
    training_architecture: str | None = None
    trained_on: LearnedFrom | None = None
    continued: bool = False

    @classmethod
    def load(cls, run: Run) -> RunConfiguration:
        """The configuration of a run; an empty one when it has none.

        Raises
        ------
        UserError
            When it cannot be read or is damaged.
        """
        if not run.config_file.exists():
            return cls()
        try:
            return cls.model_validate(run.read_config())
        except ValidationError as error:
            raise UserError(f"{run.config_file} is damaged {first_problem(error)}; start a new run") from error

    def check_unchanged(self, learned_from: LearnedFrom | None, advice: str) -> None:
        """Refuse to resume what learned from other pixels than the run's images and labels hold now.

        Raises
        ------
        UserError
            When the run does not say, or a file holds other pixels; ``advice`` says what to do then.
        """
        if learned_from is None or self.data is None:
            raise UserError("the run does not say what it has learned from, so it cannot be resumed; start a new run")
        learned_from.check_data(self.data.images, self.data.labels, self.data.selection, advice=advice)

    def save(self, run: Run) -> None:
        """Write it into the run folder, without what is not known."""
        content = {name: value for name, value in self.model_dump(mode="json").items() if value is not None}
        write_atomically(run.config_file, json.dumps(content, indent=1) + "\n")
