"""``napari-autosegnet export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from napari_autosegnet.cli.job import model_folder, print_json, print_paths
from napari_autosegnet.cli.lines import print_line


def export(
    model: Annotated[Path, typer.Option(help="Model folder, a zip of one, or a run folder with a trained model")],
    out: Annotated[Path, typer.Option(help="The file: NAME.onnx, or NAME.zip for bioimage.io")],
    format: Annotated[
        Literal["onnx", "bioimageio"] | None,
        typer.Option(help="onnx: one file; bioimageio: a package of the model zoo. By the ending of --out if left out"),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(help="bioimageio: image that the test image and the cover are cut from; both are shared"),
    ] = None,
    name: Annotated[str, typer.Option(help="bioimageio: name of the model")] = "",
    description: Annotated[str, typer.Option(help="bioimageio: what it segments in which images")] = "",
    author: Annotated[
        list[str] | None,
        typer.Option(metavar="'NAME (AFFILIATION)'", help="bioimageio: who made it; repeat for several"),
    ] = None,
    licence: Annotated[str, typer.Option("--licence", "--license", help="bioimageio: for example CC-BY-4.0")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object")] = False,
) -> None:
    """Write a model for other programs: an ONNX file or a bioimage.io package.

    Normalisation and softmax lie in the exported network: it takes grey values as they are.

    Example: [bold]napari-autosegnet export --model runs/isbi --format onnx --out membranes.onnx[/bold]
    """
    chosen = format or ("bioimageio" if out.suffix.lower() == ".zip" else "onnx")

    from napari_autosegnet import api

    difference = api.export(
        model_folder(model),
        out,
        format=chosen,
        image=image,
        name=name,
        description=description,
        authors=author or (),
        licence=licence,
    )
    if as_json:
        print_json({"out": out, "format": chosen, "largest_difference": difference})
        return
    print_paths(**{chosen: out})
    print_line(f"the file and the model differ by {difference:.0e} in probability at most")
    if chosen == "bioimageio" and not licence:
        print_line("before you upload it: name a licence (--licence CC-BY-4.0) and the authors (--author)")
    if chosen == "bioimageio" and image is None:
        print_line("its test image and cover are noise: give --image for a real one")
