"""``napari-autosegnet export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from napari_autosegnet.cli.job import print_json, print_paths
from napari_autosegnet.cli.lines import print_line
from napari_autosegnet.cli.options import Json, described
from napari_autosegnet.jobs.arguments import model_folder
from napari_autosegnet.jobs.export import ExportFormat, ExportJob


def export(
    model: Annotated[Path, described(ExportJob, "model")],
    out: Annotated[Path, described(ExportJob, "out")],
    format: Annotated[ExportFormat | None, described(ExportJob, "format")] = None,
    image: Annotated[Path | None, described(ExportJob, "image")] = None,
    name: Annotated[str, described(ExportJob, "name")] = "",
    description: Annotated[str, described(ExportJob, "description")] = "",
    author: Annotated[list[str] | None, described(ExportJob, "authors", metavar="'NAME (AFFILIATION)'")] = None,
    license: Annotated[str, described(ExportJob, "license", "--license")] = "",
    as_json: Json = False,
) -> None:
    """Write a model for other programs: an ONNX file or a bioimage.io package.

    Normalization and softmax are part of the exported network: it takes gray values as they are.

    Example: [bold]napari-autosegnet export --model runs/isbi --format onnx --out membranes.onnx[/bold]
    """
    chosen: ExportFormat = format or ("bioimageio" if out.suffix.lower() == ".zip" else "onnx")
    job = ExportJob(
        model=model_folder(model),
        out=out,
        format=chosen,
        image=image,
        name=name,
        description=description,
        authors=tuple(author or ()),
        license=license,
    )
    difference = job.run()
    if as_json:
        print_json({"out": out, "format": chosen, "largest_difference": difference})
        return
    print_paths(**{chosen: out})
    print_line(f"the file and the model differ by {difference:.0e} in probability at most")
    if chosen == "bioimageio" and not license:
        print_line("before you upload it: name a license (--license CC-BY-4.0) and the authors (--author)")
    if chosen == "bioimageio" and image is None:
        print_line("its test image and cover are noise: give --image for a real one")
