"""What a run keeps of its search and its training: ``RUN/config.json``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from napari_autosegnet.addresses import absolute, address_of
from napari_autosegnet.data.annotations import LabelMapping
from napari_autosegnet.data.learned_from import LearnedFrom
from napari_autosegnet.data.pairs import given_pairs
from napari_autosegnet.data.readers.formats import is_there
from napari_autosegnet.data.regions import Split
from napari_autosegnet.data.selection import Selection
from napari_autosegnet.errors import UserError, first_problem
from napari_autosegnet.files import relative, write_atomically
from napari_autosegnet.plain_text import counted
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
            configuration = cls.model_validate(run.read_config())
        except ValidationError as error:
            raise UserError(f"{run.config_file} is damaged {first_problem(error)}; start a new run") from error
        folder = run.path.absolute()
        configuration.data = configuration._data_at(lambda path: path if address_of(path) else folder / path)
        return configuration

    def find_data(
        self, learned_from: LearnedFrom | None, images: Sequence[Path], labels: Sequence[Path], advice: str
    ) -> None:
        """Take images and labels from where they lie now, by default from where they were.

        Raises
        ------
        UserError
            When the run does not say what it has learned from, or a file is gone or holds other pixels; ``advice``
            says what to do about the latter.
        """
        if learned_from is None or self.data is None:
            raise UserError("the run does not say what it has learned from, so it cannot be resumed; start a new run")
        if images or labels:
            found = given_pairs(images or self.data.images, labels or self.data.labels)
            moved = dict(zip(("images", "labels"), (tuple(map(absolute, paths)) for paths in found), strict=True))
            if len(moved["images"]) != len(learned_from.pairs):
                began = counted(len(learned_from.pairs), "image")
                raise UserError(
                    f"the run began with {began}, and {len(moved['images'])} given; give the same, in their order"
                )
            self.data, advice = self.data.model_copy(update=moved), "give the same images and labels, in their order"
        learned_from.check_data(self.data.images, self.data.labels, self.data.selection, advice=advice)

    def found_among(self, files: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
        """Where images and labels may lie that are gone: files that are called as they are, for a job that resumes.

        Whether they are the same, the job finds out. What is not found stays as it is.
        """
        if self.data is None:
            return {}
        kept = {"images": self.data.images, "labels": self.data.labels}
        found = {name: tuple(_found(path, files) for path in paths) for name, paths in kept.items()}
        return {name: paths for name, paths in found.items() if paths != kept[name]}

    def save(self, run: Run) -> None:
        """Write it into the run folder, without what is not known."""
        # What the dock writes lies in the run, which may be moved as a whole.
        kept = self.model_copy(update={"data": self._data_at(lambda path: Path(relative(path, run.path)))})
        content = {name: value for name, value in kept.model_dump(mode="json").items() if value is not None}
        write_atomically(run.config_file, json.dumps(content, indent=1) + "\n")

    def _data_at(self, place: Callable[[Path], Path]) -> RunData | None:
        """The data, with all paths as ``place`` gives them."""
        if self.data is None:
            return None
        images, labels = (tuple(map(place, paths)) for paths in (self.data.images, self.data.labels))
        return self.data.model_copy(update={"images": images, "labels": labels})


def _found(path: Path, files: Sequence[Path]) -> Path:
    """Of files, the one whose path ends most like one that is gone; that itself where it is not, or none is like it."""
    names = path.parts[::-1]

    def alike(file: Path) -> int:
        return len(list(takewhile(lambda both: both[0] == both[1], zip(names, file.parts[::-1], strict=False))))

    best = max(files, key=alike, default=path)
    # Of an array in a Zarr, the name alone says nothing: it is 0.
    return path if is_there(path) or alike(best) < (1 if path.suffix else 2) else best
