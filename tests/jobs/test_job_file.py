"""Jobs that are written for another process, and read there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import small_jobs
from napari_autosegnet.data.selection import Selection
from napari_autosegnet.errors import UserError
from napari_autosegnet.jobs.job_file import read_job, write_job
from napari_autosegnet.jobs.predict import PredictJob
from napari_autosegnet.jobs.search import SearchJob
from napari_autosegnet.jobs.train import TrainJob
from napari_autosegnet.jobs.worker_info import read_info
from napari_autosegnet.run import Run

READ = Selection(time_point=1, channels=("dna", "2"), axes="tczyx")


@pytest.mark.parametrize(
    "job",
    [
        SearchJob(
            images=(Path("a\udcff.tif"),), labels=(Path("b.tif"),), classes="0:a,1:b", settings=small_jobs.SEARCH
        ),
        TrainJob(settings=small_jobs.TRAIN, selection=READ, continue_with=(Path("more.tif"),)),
        PredictJob(model=Path("model"), image=Path("a.tif"), out=Path("b.zarr"), selection=READ, device="cpu"),
    ],
)
def test_a_job_is_read_as_it_was_written(job: Any, tmp_path: Path) -> None:
    write_job(Run(tmp_path), job)
    assert read_job(Run(tmp_path)) == job


def test_a_job_that_cannot_be_read_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read .*job.json"):
        read_job(Run(tmp_path))
    (tmp_path / "job.json").write_text('{"step": "dance"}')
    with pytest.raises(UserError, match="is damaged"):
        read_job(Run(tmp_path))
    (tmp_path / "worker.json").write_text("{")
    assert read_info(Run(tmp_path)) is None


@pytest.mark.parametrize("other", [{"scheduler": "tcp://elsewhere:8786"}, {"slurm": Path("cluster.yaml")}])
def test_a_file_does_not_send_a_job_to_other_computers(other: dict[str, Any], tmp_path: Path) -> None:
    write_job(Run(tmp_path), PredictJob(model=Path("model"), image=Path("a.tif"), **other))
    with pytest.raises(UserError, match="asks for other computers"):
        read_job(Run(tmp_path))
