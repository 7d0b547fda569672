"""A model applied to an image of any size."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from napari_autosegnet.data.selection import ALL, Selection
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import DeviceChosen, Finished, Report, Stopped, silent
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.jobs.job import JobModel
from napari_autosegnet.settings import PredictSettings

if TYPE_CHECKING:
    from napari_autosegnet.inference.volume import PredictionSummary


class PredictJob(JobModel):
    """Apply a model to an image; an unfinished result is continued."""

    step: Literal["predict"] = "predict"
    model: Path = Field(description="Model folder, or a run folder with a trained model")
    image: Path = Field(
        description="Image or stack: TIFF, MRC, HDF5, NIfTI, DM4, PNG, a folder of pictures, Zarr, OME-Zarr"
    )
    out: Path | None = Field(
        None,
        description="Where the labels go: NAME with .zarr, .tif, .mrc, .h5, .nii, or .nii.gz; without it under "
        "labels/ of an OME-Zarr image",
    )
    mask: Path | None = Field(None, description="Compute only where this image is not 0")
    selection: Selection = Field(ALL, description="What of the image is read")
    settings: PredictSettings = PredictSettings()
    scheduler: str | None = Field(None, description="Let the workers of this dask scheduler do it")
    slurm: Path | None = Field(
        None, description="Let SLURM jobs do it: YAML file with queue, cores, memory, walltime, workers ..."
    )

    @property
    def store(self) -> Path:
        """What the result is written to: the image's own store unless there is another one."""
        return self.out or self.image

    def run(self, *, report: Report = silent, should_stop: ShouldStop = never_stop) -> PredictionSummary:
        """Predict; see `api.predict`."""
        from napari_autosegnet.inference.distributed.workers import WorkerSource
        from napari_autosegnet.inference.job import VolumeRequest
        from napari_autosegnet.inference.volume import predict_volume

        started = time.monotonic()
        if self.scheduler is not None and self.slurm is not None:
            raise UserError("the workers come from a scheduler or from SLURM; give one of --scheduler and --slurm")
        request = VolumeRequest(self.model, self.image, self.out, self.settings, mask=self.mask, read=self.selection)
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
        else:
            report(Finished(step="predict", seconds=time.monotonic() - started))
        return summary
