"""``napari-autosegnet resample``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from napari_autosegnet.cli.job import print_json, print_paths, run_on_image
from napari_autosegnet.cli.lines import print_note
from napari_autosegnet.cli.options import Axes, Channels, Json, TimePoint


def resample(
    image: Annotated[Path, typer.Option(help="A volume in any format that is read")],
    out: Annotated[Path, typer.Option(help="The new volume: NAME.zarr")],
    factor: Annotated[
        float | None,
        typer.Option(help="Distance between two sections in pixels (by default from the voxel size)"),
    ] = None,
    time: TimePoint = None,
    channels: Channels = None,
    axes: Axes = None,
    as_json: Json = False,
) -> None:
    """Write a volume with cubic voxels, for predict --planes all; sections in between are interpolated.

    Only two sections at a time are in memory, and nothing is overwritten.

    Example: [bold]napari-autosegnet resample --image stack.tif --out cubes.zarr[/bold]
    """
    from napari_autosegnet.data.cubes import write_cubes
    from napari_autosegnet.data.images import open_image

    opened = open_image(image, time=time, channels=channels, axes=axes)
    cubes = run_on_image("resample", opened, partial(write_cubes, opened, out, factor))
    print_note(f"{opened.sections} sections became {cubes.shape[0]}")
    if as_json:
        print_json({"image": out, "shape": cubes.shape})
    else:
        print_paths(image=out)
