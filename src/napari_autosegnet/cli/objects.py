"""``napari-autosegnet objects``: what was edited by hand in numbered objects."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from napari_autosegnet.cli.groups import command_group
from napari_autosegnet.cli.job import print_json, print_paths, run_job
from napari_autosegnet.cli.options import Json

app = command_group("Write numbered objects with the edits that were made in napari.")


@app.callback()
def objects() -> None:
    """Write numbered objects with the edits that were made in napari."""


@app.command()
def export(
    result: Annotated[Path, typer.Argument(help="Store with numbered objects", show_default=False)],
    out: Annotated[Path, typer.Option(help="The new store: NAME.zarr")],
    as_json: Json = False,
) -> None:
    """Write a new store with all edits applied, and the table of its objects; the result stays as it is.

    Example: [bold]napari-autosegnet objects export cells.zarr --out mended.zarr[/bold]
    """
    from napari_autosegnet import api

    written, _ = run_job(partial(api.export_objects, result, out))
    if as_json:
        print_json({"objects": written})
    else:
        print_paths(objects=written)
