"""``napari-autosegnet predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_autosegnet.cli.job import model_folder, print_json, print_paths, run_job, same_command_line
from napari_autosegnet.cli.lines import print_note
from napari_autosegnet.cli.options import Axes, Changes, Channels, TimePoint, changed, takes_settings
from napari_autosegnet.config import PredictSettings


@takes_settings(settings={"": PredictSettings()})
def predict(
    model: Annotated[Path, typer.Option(help="Model folder, or a run folder with a trained model")],
    image: Annotated[Path, typer.Option(help="Image or stack: TIFF, PNG, a folder of these, Zarr, OME-Zarr")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where the labels go: NAME.tif, or a store NAME.zarr; without it under labels/ of an OME-Zarr image"
        ),
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="Compute only where this image is not 0")] = None,
    time: TimePoint = None,
    channels: Channels = None,
    axes: Axes = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Let the workers of this dask scheduler do it")
    ] = None,
    slurm: Annotated[
        Path | None,
        typer.Option(help="Let SLURM jobs do it: YAML file with queue, cores, memory, walltime, workers ..."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an unfinished result; happens by itself anyway")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object")] = False,
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
        raise typer.BadParameter("either go on with the result or start again, not both", param_hint="'--resume'")
    own = changed(PredictSettings(), settings)
    folder = model_folder(model)

    from napari_autosegnet import api

    summary, _ = run_job(
        lambda report, should_stop: api.predict(
            folder,
            image,
            out,
            mask=mask,
            time_point=time,
            channels=channels,
            axes=axes,
            settings=own,
            device=device,
            scheduler=scheduler,
            slurm=slurm,
            report=report,
            should_stop=should_stop,
        ),
        # With --overwrite it would not go on but start again.
        resume=same_command_line(context, "--overwrite"),
    )
    if as_json:
        print_json({"out": summary.path, **summary.model_dump(mode="json")})
    else:
        parts = {"labels": out or summary.labels, "instances": summary.instances}
        print_paths(**{name: path for name, path in parts.items() if path is not None})
    if summary.failed:
        for failed in summary.failed:
            print_note(f"error: {failed}")
        print_note(f"error: {len(summary.failed)} of {summary.blocks} blocks failed; all others are done")
        raise typer.Exit(1)
