"""``napari-autosegnet convert``."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import Annotated

import typer

from napari_autosegnet.cli.job import print_json, print_paths, run_job
from napari_autosegnet.cli.options import Axes, Json, TimePoint
from napari_autosegnet.events import Finished, Report
from napari_autosegnet.interruption import ShouldStop


def convert(
    labels: Annotated[Path, typer.Option(help="Labels, or numbered objects, in any format that is read")],
    out: Annotated[Path, typer.Option(help="The file: NAME with .mrc, .h5, .nii, .nii.gz, or .tif")],
    time: TimePoint = None,
    axes: Axes = None,
    as_json: Json = False,
) -> None:
    """Write labels as MRC, HDF5, NIfTI or TIFF, for other programs.

    Scale and unit go along. A section at a time is in memory, and no file is overwritten.

    Example: [bold]napari-autosegnet convert --labels cells.zarr --out cells.mrc[/bold]
    """
    from napari_autosegnet.data.images import open_labels, tell_notes
    from napari_autosegnet.inference.output.label_file import write_labels

    opened = open_labels(labels, time=time, axes=axes)

    def work(*, report: Report, should_stop: ShouldStop) -> None:
        started = monotonic()
        tell_notes([opened], report)
        write_labels(opened, out, report=report, should_stop=should_stop)
        report(Finished(step="convert", seconds=monotonic() - started))

    run_job(work)
    if as_json:
        print_json({"labels": out})
    else:
        print_paths(labels=out)
