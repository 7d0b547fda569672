"""``napari-autosegnet convert``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from napari_autosegnet.cli.job import print_json, print_paths, run_on_image
from napari_autosegnet.cli.options import Axes, Json, TimePoint


def convert(
    labels: Annotated[Path, typer.Option(help="Labels, or numbered objects, in any format that is read")],
    out: Annotated[Path, typer.Option(help="The file: NAME with .mrc, .h5, .nii, .nii.gz, or .tif")],
    time: TimePoint = None,
    axes: Axes = None,
    as_json: Json = False,
) -> None:
    """Write labels as MRC, HDF5, NIfTI, or TIFF, for other programs.

    Scale and unit are kept. Only one section at a time is in memory, and no file is overwritten.

    Example: [bold]napari-autosegnet convert --labels cells.zarr --out cells.mrc[/bold]
    """
    from napari_autosegnet.data.images import open_labels
    from napari_autosegnet.inference.output.label_file import write_labels

    opened = open_labels(labels, time=time, axes=axes)
    run_on_image("convert", opened, partial(write_labels, opened, out))
    if as_json:
        print_json({"labels": out})
    else:
        print_paths(labels=out)
