"""Labels that are painted while a fit runs: handed over in its folder, and learned from at its next epoch.

::

    RUN/annotation/2/       labels of the run's images, complete before the request is written
        requests/labels     which files these are; it stays until a later one replaces it

Whoever paints writes both, the worker reads them and keeps in ``config.json`` what it learns from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from napari_autosegnet.addresses import absolute, address_of
from napari_autosegnet.data.regions import Region, Split, region_pixels
from napari_autosegnet.data.split_growth import grown_split
from napari_autosegnet.errors import UserError, first_problem
from napari_autosegnet.events import LabelsTaken, Report, WarningRaised, silent
from napari_autosegnet.files import relative
from napari_autosegnet.jobs.configuration import RunConfiguration
from napari_autosegnet.jobs.preparation import LabeledData, PreparedData, prepare
from napari_autosegnet.json_files import read_json
from napari_autosegnet.run import Run

if TYPE_CHECKING:
    from napari_autosegnet.data.labeled_stacks import LabeledStack
    from napari_autosegnet.jobs.model_making import ModelMaker
    from napari_autosegnet.training.training_data import TrainingData

_ADVICE = "continue painting, and it is written again"


class _Handed(BaseModel):
    """Images, and the files that hold their labels now."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: tuple[Path, ...]
    labels: tuple[Path, ...]

    @classmethod
    def read(cls, run: Run) -> _Handed:
        """What was handed over last.

        Raises
        ------
        UserError
            When it cannot be read.
        """
        file = run.request_file("labels")
        try:
            handed = cls.model_validate(read_json(file, _ADVICE))
        except ValidationError as error:
            raise UserError(f"{file} is damaged {first_problem(error)}; {_ADVICE}") from error
        folder = run.path.absolute()
        images, labels = (
            tuple(path if address_of(path) else folder / path for path in paths)
            for paths in (handed.images, handed.labels)
        )
        return cls(images=images, labels=labels)


def hand_over_labels(run: Run, images: Sequence[Path], labels: Sequence[Path]) -> None:
    """Ask the fit that works in a run to learn from these labels of its images from its next epoch on.

    Images that are not the run's are left out. Labels hold the run's classes by the values that it began with.
    """
    # What the dock writes lies in the run, which may be moved before it is looked at.
    sides = {"images": images, "labels": labels}
    handed = {side: [relative(absolute(each), run.path) for each in paths] for side, paths in sides.items()}
    run.request("labels", json.dumps(handed, indent=1) + "\n")


def follow_moved_files(run: Run, moves: Mapping[Path, Path]) -> None:
    """Labels that wait for the fit are those of its images wherever they, and labels that it knows, lie now."""
    try:
        handed = _Handed.read(run)
    except UserError:
        return  # nothing was handed over, or whoever takes it will say what is wrong
    hand_over_labels(run, *([moves.get(path, path) for path in paths] for paths in (handed.images, handed.labels)))


class MoreLabels:
    """What is handed over to a fit (a `search.fit.MoreData`).

    Parameters
    ----------
    run : Run
        Held by the caller.
    maker : ModelMaker
        Of what the fit learns from.
    patches : callable
        Makes patches of what was prepared.
    report : Report

    Attributes
    ----------
    maker : ModelMaker
        Of what the fit learns from by now.
    """

    def __init__(
        self, run: Run, maker: ModelMaker, patches: Callable[[PreparedData, Report], TrainingData], report: Report
    ) -> None:
        self.maker = maker
        self._run = run
        self._patches = patches
        self._report = report
        self._file = run.request_file("labels")
        self._seen: int | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether something was handed over that was not looked at yet."""
        return self._written() not in (None, self._seen)

    def take(self, epoch: int) -> TrainingData | None:
        """Learn from what was handed over; None, and a warning, where it cannot be learned from."""
        # First: what is handed over from here on is looked at next time.
        self._seen = self._written()
        try:
            configuration = RunConfiguration.load(self._run)
            labels = self._handed(configuration)
            return None if labels is None else self._read(labels, configuration, epoch)
        except UserError as error:
            self._report(WarningRaised(text=f"the new strokes are not learned from: {error}"))
            return None

    def _written(self) -> int | None:
        try:
            return self._file.stat().st_mtime_ns
        except OSError:
            return None

    def _handed(self, configuration: RunConfiguration) -> tuple[Path, ...] | None:
        """Labels of all images of the run, of which some are new; None where none are."""
        handed = _Handed.read(self._run)
        assert configuration.fitted_on is not None
        data = configuration.fitted_on.data
        new = dict(zip(handed.images, handed.labels, strict=False))
        labels = tuple(new.get(image, old) for image, old in zip(data.images, data.labels, strict=True))
        return None if labels == data.labels else labels

    def _read(self, labels: Sequence[Path], configuration: RunConfiguration, epoch: int) -> TrainingData:
        settings, old = self.maker.settings, self.maker.prepared
        assert configuration.fitted_on is not None
        data = LabeledData.kept(self._run, configuration.fitted_on.data, labels)

        def divide(stacks: Sequence[LabeledStack]) -> Split:
            return grown_split(old.split, stacks, data.split, context=settings.context)

        # What there is to tell of the images was told when the fit began.
        prepared = prepare(data, settings, device=str(old.device), report=silent, divide=divide)
        normalization = old.normalization
        if normalization.seen is not None and prepared.normalization.seen is not None:
            seen = normalization.seen.with_more(prepared.normalization.seen)
            normalization = normalization.model_copy(update={"seen": seen})
        prepared = replace(prepared, normalization=normalization)
        patches = replace(self._patches(prepared, silent), version=configuration.labels_taken + 1)
        configuration.data = data.description
        configuration.fitted_on = prepared.learned_from(configuration.data, settings.context)
        configuration.labels_taken = patches.version
        # Before a checkpoint knows of it: one that does not is rated again.
        configuration.save(self._run)
        self.maker = replace(self.maker, prepared=prepared, data=patches)
        learned, checked = (_pixels(prepared, part) for part in (prepared.split.training, prepared.split.validation))
        files = tuple(map(str, labels))
        self._report(LabelsTaken(epoch=epoch, labels=files, training_pixels=learned, validation_pixels=checked))
        return patches


def _pixels(prepared: PreparedData, regions: Sequence[Region]) -> dict[str, int]:
    """Annotated pixels of each class in some regions."""
    return dict(zip(prepared.classes, region_pixels(prepared.stacks, regions).sum(0).tolist(), strict=True))
