"""What a run keeps of its search and its training: ``RUN/config.json``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from napari_autosegnet.addresses import absolute, address_of
from napari_autosegnet.data.learned_from import LearnedFrom, RunData
from napari_autosegnet.data.pairs import given_pairs
from napari_autosegnet.data.readers.formats import is_there
from napari_autosegnet.errors import UserError, first_problem
from napari_autosegnet.events import LearningStep
from napari_autosegnet.files import relative, write_atomically
from napari_autosegnet.plain_text import counted
from napari_autosegnet.presets import Preset
from napari_autosegnet.run import Run
from napari_autosegnet.run.folder import CONFIG_VERSION
from napari_autosegnet.settings import FitSettings, Network, SearchSettings, TrainSettings

_LEARNED_FROM: dict[LearningStep, str] = {"fit": "fitted_on", "search": "searched_on", "train": "trained_on"}


class RunConfiguration(BaseModel):
    """The run's data, the settings of its search and its training, and what each of them learned from.

    Attributes
    ----------
    preset
        Of the search; a training takes the same one by default.
    data
        Of the job that was begun last; a new training takes the same by default.
    labels_taken
        How many times a fit took labels that were painted meanwhile.
    network, training_architecture
        What the training trains, and the digest of its architecture.
    fitted_on, searched_on, trained_on
        What each learned from. It is resumed on just that, whatever other jobs of the run read.
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
            configuration = cls.model_validate(run.read_config())
        except ValidationError as error:
            raise UserError(f"{run.config_file} is damaged {first_problem(error)}; start a new run") from error
        folder = run.path.absolute()
        configuration._place(lambda path: path if address_of(path) else folder / path)
        return configuration

    def learned_from(self, step: LearningStep) -> LearnedFrom | None:
        """What a job of the run learned from."""
        learned: LearnedFrom | None = getattr(self, _LEARNED_FROM[step])
        return learned

    def find_data(self, step: LearningStep, images: Sequence[Path], labels: Sequence[Path], advice: str) -> RunData:
        """The data that a job began with, from where images and labels lie now, by default from where they were.

        Raises
        ------
        UserError
            When the run does not say what it has learned from, or a file is gone or holds other pixels; ``advice``
            says what to do about the latter.
        """
        learned_from = self.learned_from(step)
        if learned_from is None:
            raise UserError("the run does not say what it has learned from, so it cannot be resumed; start a new run")
        before = data = learned_from.data
        if images or labels:
            found = given_pairs(images or data.images, labels or data.labels)
            moved = dict(zip(("images", "labels"), (tuple(map(absolute, paths)) for paths in found), strict=True))
            if len(moved["images"]) != len(learned_from.pairs):
                began = counted(len(learned_from.pairs), "image")
                raise UserError(
                    f"the run began with {began}, and {len(moved['images'])} given; give the same, in their order"
                )
            data, advice = data.model_copy(update=moved), "give the same images and labels, in their order"
        learned_from.check_data(data, advice=advice)
        if data != before:
            places = zip((*before.images, *before.labels), (*data.images, *data.labels), strict=True)
            # Other jobs of the run read them, too.
            moves = {old: new for old, new in places if not is_there(old)}
            self._place(lambda path: moves.get(path, path))
            setattr(self, _LEARNED_FROM[step], learned_from.model_copy(update={"data": data}))
        return data

    def save(self, run: Run) -> None:
        """Write it into the run folder, without what is not known."""
        # What the dock writes lies in the run, which may be moved as a whole.
        kept = self.model_copy()
        kept._place(lambda path: Path(relative(path, run.path)))
        content = {name: value for name, value in kept.model_dump(mode="json").items() if value is not None}
        write_atomically(run.config_file, json.dumps(content, indent=1) + "\n")

    def _place(self, place: Callable[[Path], Path]) -> None:
        """Set all paths to what ``place`` gives for them."""
        if self.data is not None:
            self.data = self.data.placed(place)
        for name in _LEARNED_FROM.values():
            learned_from = getattr(self, name)
            if learned_from is not None:
                setattr(self, name, learned_from.model_copy(update={"data": learned_from.data.placed(place)}))
