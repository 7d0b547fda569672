"""``napari-autosegnet predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_autosegnet.cli.job import print_json, print_paths, run_job, same_command_line
from napari_autosegnet.cli.lines import print_note
from napari_autosegnet.cli.options import (
    Axes,
    Changes,
    Channels,
    Device,
    Json,
    TimePoint,
    changed,
    described,
    takes_settings,
)
from napari_autosegnet.data.selection import Selection
from napari_autosegnet.jobs.arguments import model_folder
from napari_autosegnet.jobs.predict import PredictJob
from napari_autosegnet.settings import PredictSettings


@takes_settings(settings={"": PredictSettings()})
def predict(
    model: Annotated[Path, described(PredictJob, "model")],
    image: Annotated[Path, described(PredictJob, "image")],
    out: Annotated[Path | None, described(PredictJob, "out")] = None,
    cubes: Annotated[Path | None, described(PredictJob, "cubes")] = None,
    mask: Annotated[Path | None, described(PredictJob, "mask")] = None,
    time: TimePoint = None,
    channels: Channels = None,
    axes: Axes = None,
    scheduler: Annotated[str | None, described(PredictJob, "scheduler", metavar="ADDRESS")] = None,
    slurm: Annotated[Path | None, described(PredictJob, "slurm")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an unfinished result, which happens without it, too")
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
    *,
    context: typer.Context,
    settings: Changes,
) -> None:
    """Apply a model to an image or stack of any size.

    An unfinished result is continued, block by block. Blocks that fail again and again are named at the end, the
    rest is finished, and the exit status is 1.

    Example: [bold]napari-autosegnet predict --model runs/isbi --image stack.ome.zarr --out cells.zarr[/bold]
    """
    if resume and settings.get("overwrite"):
        raise typer.BadParameter("either continue the result or start again, not both", param_hint="'--resume'")
    job = PredictJob(
        model=model_folder(model),
        image=image,
        out=out,
        cubes=cubes,
        mask=mask,
        selection=Selection(time_point=time, channels=channels, axes=axes),
        settings=changed(PredictSettings(), settings),
        device=device,
        scheduler=scheduler,
        slurm=slurm,
    )
    # With --overwrite it would not be continued but started again.
    summary, _ = run_job(job.run, resume=same_command_line(context, "--overwrite"))
    if as_json:
        print_json({"out": summary.path, **summary.model_dump(mode="json")})
    else:
        parts = {"labels": out or summary.labels, "instances": summary.instances}
        print_paths(**{name: path for name, path in parts.items() if path is not None})
    if summary.failed:
        for failed in summary.failed:
            print_note(f"error: {failed}")
        raise typer.Exit(1)
