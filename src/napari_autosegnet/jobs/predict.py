"""A model applied to an image of any size."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from napari_autosegnet.data.selection import ALL, Selection
from napari_autosegnet.errors import StoppedError, UserError
from napari_autosegnet.events import DeviceChosen, Failed, Finished, Report, Stopped, silent
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.jobs.job import JobModel
from napari_autosegnet.settings import PredictSettings

if TYPE_CHECKING:
    from napari_autosegnet.inference.output.progress import PredictionSummary


class PredictJob(JobModel):
    """Apply a model to an image; an unfinished result is continued."""

    step: Literal["predict"] = "predict"
    model: Path = Field(description="Model folder, or a run folder with a trained model")
    image: Path = Field(
        description="Image or stack: TIFF, MRC, HDF5, NIfTI, DM4, PNG, a folder of pictures, Zarr, OME-Zarr"
    )
    out: Path | None = Field(
        None,
        description="Where the labels go: NAME with .zarr, .tif, .mrc, .h5, .nii, .nii.gz, or .png; a NAME without an "
        "ending is a Zarr, too. Left out: under labels/ of an OME-Zarr image",
    )
    cubes: Path | None = Field(
        None,
        description="For sections up to four pixels apart: NAME.zarr, where the image is written with cubic voxels "
        "first; these are segmented",
    )
    mask: Path | None = Field(None, description="Compute only where this image is not 0")
    selection: Selection = Field(ALL, description="What of the image is read")
    settings: PredictSettings = PredictSettings()
    scheduler: str | None = Field(None, description="Compute on the workers of this dask scheduler")
    slurm: Path | None = Field(
        None, description="Compute in SLURM jobs: YAML file with queue, cores, memory, walltime, workers ..."
    )

    @property
    def store(self) -> Path:
        """What the result is written to: the store of what is segmented unless there is another one."""
        return self.out or self.cubes or self.image

    @property
    def segmented(self) -> tuple[Path, Selection]:
        """What the labels lie on, and what of it is read: the image, or its cubes."""
        return (self.image, self.selection) if self.cubes is None else (self.cubes, ALL)

    def run(self, *, report: Report = silent, should_stop: ShouldStop = never_stop) -> PredictionSummary:
        """Predict; see `api.predict`."""
        try:
            return self._run(report, should_stop)
        except StoppedError as error:
            report(Stopped(step="predict", reason=str(error)))
            raise

    def _run(self, report: Report, should_stop: ShouldStop) -> PredictionSummary:
        from napari_autosegnet.inference.distributed.workers import WorkerSource
        from napari_autosegnet.inference.job import VolumeRequest
        from napari_autosegnet.inference.volume import predict_volume

        started = time.monotonic()
        if self.scheduler is not None and self.slurm is not None:
            raise UserError("the workers come from a scheduler or from SLURM; give one of --scheduler and --slurm")
        if self.cubes is not None:
            self._write_cubes(self.cubes, report, should_stop)
        image_path, read = self.segmented
        request = VolumeRequest(self.model, image_path, self.out, self.settings, mask=self.mask, read=read)
        source = WorkerSource(self.settings.workers, self.scheduler, self.slurm)
        if source.is_needed:
            from napari_autosegnet.inference.distributed.cluster import predict_on_workers

            summary = predict_on_workers(request, source, device=self.device, report=report, should_stop=should_stop)
        else:
            from napari_autosegnet.device import choose_device

            model, image, mask = request.opened()
            device = choose_device(self.device)
            report(DeviceChosen(name=str(device)))
            summary = predict_volume(
                model,
                image,
                self.out,
                self.settings,
                device=device,
                mask=mask,
                report=report,
                should_stop=should_stop,
            )
        if summary.stopped:
            report(Stopped(step="predict", reason="a stop was asked for; finished blocks are kept"))
        elif summary.failed:
            report(Failed(step="predict", text=summary.failure))
        else:
            report(Finished(step="predict", seconds=time.monotonic() - started))
        return summary

    def _write_cubes(self, cubes: Path, report: Report, should_stop: ShouldStop) -> None:
        from napari_autosegnet.data.cubes import cubes_of
        from napari_autosegnet.data.images import open_selected
        from napari_autosegnet.model import Model

        if self.mask is not None:
            raise UserError("a mask lies on the image and not on its cubes; leave out --mask or --cubes")
        Model.load(self.model)  # before the minutes of writing
        cubes_of(open_selected(self.image, self.selection), cubes, report=report, should_stop=should_stop)
