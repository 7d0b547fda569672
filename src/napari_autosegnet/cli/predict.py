"""``napari-autosegnet predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_autosegnet.cli.job import carry_out, command_line, model_folder, print_json, print_paths
from napari_autosegnet.cli.options import Changes, changed, takes_settings
from napari_autosegnet.config import PredictSettings


@takes_settings(settings={"": PredictSettings()})
def predict(
    model: Annotated[Path, typer.Option(help="Model folder, or a run folder with a trained model")],
    image: Annotated[Path, typer.Option(help="Image or stack: TIFF, PNG, a folder of these, Zarr, OME-Zarr")],
    out: Annotated[Path, typer.Option(help="Where the labels go: NAME.tif, or a store NAME.zarr")],
    mask: Annotated[Path | None, typer.Option(help="Compute only where this image is not 0")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an unfinished result; happens by itself anyway")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object")] = False,
    *,
    settings: Changes,
) -> None:
    """Apply a model to an image or stack of any size.

    An unfinished result is gone on with, block by block.

    Example: [bold]napari-autosegnet predict --model runs/isbi --image stack.ome.zarr --out cells.zarr[/bold]
    """
    if resume and settings.get("overwrite"):
        raise typer.BadParameter("either go on with the result or start again, not both", param_hint="'--resume'")
    own = changed(PredictSettings(), settings)
    folder = model_folder(model)

    from napari_autosegnet import api

    summary, _ = carry_out(
        lambda report, should_stop: api.predict(
            folder,
            image,
            out,
            mask=mask,
            settings=own,
            device=device,
            report=report,
            should_stop=should_stop,
        ),
        resume=command_line("predict", "--model", model, "--image", image, "--out", out),
    )
    if as_json:
        print_json({"out": out, **summary.model_dump(mode="json")})
    else:
        print_paths(labels=out)
