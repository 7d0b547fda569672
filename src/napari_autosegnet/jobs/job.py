"""What the arguments of jobs have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_autosegnet.addresses import address_of
from napari_autosegnet.data.selection import ALL, Selection
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import LearningStep
from napari_autosegnet.run import Run
from napari_autosegnet.settings import SplitSettings

if TYPE_CHECKING:
    from napari_autosegnet.jobs.configuration import RunConfiguration
    from napari_autosegnet.jobs.preparation import LabeledData


class JobModel(BaseModel):
    """The arguments of a job; the descriptions are the help texts of the commands."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, or mps")

    @model_validator(mode="after")
    def _refuse_secrets(self) -> Self:
        """Before anything of the job is kept in a folder."""
        for value in vars(self).values():
            for path in value if isinstance(value, tuple) else (value,):
                if isinstance(path, Path):
                    address_of(path)
        return self


class LearningJob(JobModel):
    """A job that learns from labeled images, in a run folder."""

    step: LearningStep
    images: tuple[Path, ...] = Field(
        (),
        description="Image or stack: TIFF, MRC, HDF5, NIfTI, DM4, PNG, a folder of pictures, Zarr, OME-Zarr; "
        "repeat for several, or give a pattern in quotes, 'images/*.tif'",
    )
    labels: tuple[Path, ...] = Field(
        (),
        description="Its labels, of the same shape, once for each image; the files of two folders or patterns are "
        "paired by their names",
    )
    classes: str | None = Field(None, description="Label values and their classes, for example 0:membrane,255:cell")
    selection: Selection = Field(ALL, description="What of the images and labels is read")
    split: SplitSettings | None = Field(None, description="How the labels are divided for training and validation")
    resume: bool = Field(
        False,
        description="Continue the job in --run where it stopped; --image and --labels only if they were moved since",
    )

    def refuse_other_data(self) -> None:
        """Refuse other classes, or parts of files, beside ``resume``: they would be ignored.

        Raises
        ------
        UserError
            When there are any.
        """
        if self.classes or self.selection != ALL:
            raise UserError(
                "a run that is resumed continues with the classes, time point, channels and axes that it began with; "
                "leave these out, or start without --resume"
            )

    def open_data(self, run: Run, configuration: RunConfiguration, *, advice: str) -> LabeledData:
        """Open its images and labels; of a job that is resumed those that it began with, which must hold the same.

        If they were moved, ``images`` and ``labels`` say where they are, and the run remembers it.

        Raises
        ------
        UserError
            When they cannot be opened, or do not; ``advice`` says what to do then.
        """
        from napari_autosegnet.jobs.more_labels import follow_moved_files
        from napari_autosegnet.jobs.preparation import LabeledData

        if not self.resume:
            return LabeledData.given(self.images, self.labels, self.classes, self.selection, self.split)
        before = configuration.learned_from(self.step)
        data = configuration.find_data(self.step, self.images, self.labels, advice)
        if before is not None and (self.images or self.labels):
            places = zip((*before.data.images, *before.data.labels), (*data.images, *data.labels), strict=True)
            follow_moved_files(run, dict(places))
            configuration.save(run)
        return LabeledData.kept(run, data)
