"""A job for another process: ``RUN/job.json`` holds its arguments."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from napari_autosegnet.errors import StoppedError, UserError, first_problem
from napari_autosegnet.events import Started
from napari_autosegnet.files import write_atomically
from napari_autosegnet.interruption import ShouldStop
from napari_autosegnet.jobs.fit import FitJob
from napari_autosegnet.jobs.predict import PredictJob
from napari_autosegnet.jobs.search import SearchJob
from napari_autosegnet.jobs.train import TrainJob
from napari_autosegnet.json_files import read_json
from napari_autosegnet.run import Run

Step = Literal["fit", "search", "train", "predict"]
Job = Annotated[FitJob | SearchJob | TrainJob | PredictJob, Field(discriminator="step")]
_JOB: TypeAdapter[Job] = TypeAdapter(Job)


def job_file(run: Run) -> Path:
    return run.file("job.json")


def write_job(run: Run, job: Job) -> None:
    # JSON of the standard library: names of files may be no UTF-8.
    write_atomically(job_file(run), json.dumps(job.model_dump(mode="json"), indent=1) + "\n")


def read_job(run: Run) -> Job:
    """The job that stands in the run folder.

    Raises
    ------
    UserError
        When there is none or it is damaged, or it asks to replace a result or to use other computers: the folder may
        come from somebody else.
    """
    content = read_json(job_file(run), "start the step again")
    try:
        job: Job = _JOB.validate_python(content)
    except ValidationError as error:
        raise UserError(f"{job_file(run)} is damaged {first_problem(error)}; start the step again") from error
    if isinstance(job, PredictJob):
        if job.settings.overwrite:
            raise UserError(
                f"{job_file(run)} asks to replace {job.store}, which a job file must not; start the segmentation again"
            )
        if job.scheduler is not None or job.slurm is not None:
            raise UserError(
                f"{job_file(run)} asks for other computers, which a job file must not; start the segmentation again"
            )
    return job


def run_job(run: Run, job: Job, should_stop: ShouldStop) -> None:
    """Do a job in a run folder, whose events hold all reports.

    Raises
    ------
    UserError
        As the job.
    """

    def asked_here() -> bool:
        return run.should_stop(should_stop)

    match job:
        case SearchJob():
            job.run(run.path, should_stop=should_stop)
        case FitJob() | TrainJob():
            from napari_autosegnet.jobs.preview import Preview

            job.run(run.path, on_epoch=Preview(run, job.device, asked_here), should_stop=should_stop)
        case PredictJob():
            # A prediction knows no run folder; this one is there for the job alone.
            with run.locked():
                run.withdraw()
                run.report(Started(step="predict"))
                with suppress(StoppedError):  # told
                    job.run(report=run.report, should_stop=asked_here)
