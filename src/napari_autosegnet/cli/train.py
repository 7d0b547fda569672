"""``napari-autosegnet train``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from napari_autosegnet.cli.job import command_line, print_json, print_paths, run_job
from napari_autosegnet.cli.learning import Given, learning_command
from napari_autosegnet.cli.lines import print_note
from napari_autosegnet.cli.options import described
from napari_autosegnet.events import QualityMeasured
from napari_autosegnet.jobs.configuration import RunConfiguration
from napari_autosegnet.jobs.train import TrainJob
from napari_autosegnet.presets import PRESETS, Preset, train_settings
from napari_autosegnet.run import Run
from napari_autosegnet.settings import Network, TrainSettings

PRESET_SETTINGS: dict[str, TrainSettings] = {preset: train_settings(preset) for preset in PRESETS}


@learning_command(PRESET_SETTINGS)
def train(
    given: Given,
    run: Annotated[Path, typer.Option(help="Run folder, with or without a search in it")],
    architecture: Annotated[Path | None, described(TrainJob, "architecture")] = None,
    network: Annotated[Network, described(TrainJob, "network")] = "searched",
    preset: Annotated[
        Preset | None,
        typer.Option(
            help="fast: a laptop; standard: one GPU; paper: AutoSegNet's own sizes "
            "(default what the run was searched with, else standard)",
            show_default=False,
        ),
    ] = None,
    continue_with: Annotated[list[Path] | None, described(TrainJob, "continue_with", metavar="LABELS")] = None,
) -> None:
    """Train a network from scratch: what a run found, an architecture file, a plain chain, U-Net, or PSPNet.

    Without --image, the images and labels of the run are taken. The best weights by validation mean IoU end up in
    RUN/model. --epochs without --budget lifts the preset's time budget.

    Example: [bold]napari-autosegnet train --run runs/isbi --preset fast --budget 30m[/bold]
    """
    if not given.resume and (given.image or given.labels):
        given.check_pairs()
    given.refuse_changes_of_resumed()
    if architecture is not None and network != "searched":
        raise typer.BadParameter(f"--network {network} has an architecture of its own", param_hint="'--architecture'")

    if preset is None and not given.resume:
        preset = RunConfiguration.load(Run(run)).preset
    job = TrainJob(
        architecture=architecture,
        network=network,
        continue_with=tuple(continue_with or ()),
        **given.arguments(PRESET_SETTINGS[preset or "standard"]),
    )
    _, last = run_job(partial(job.run, run), resume=given.resuming("train", run))
    folder = Run(run).model_folder
    if given.as_json:
        measured = last.of(QualityMeasured)
        quality = {} if measured is None else measured.quality.model_dump(mode="json")
        print_json({"run": run, "model": folder, **quality})
    else:
        print_paths(run=run, model=folder)
        print_note(f"next: {command_line('predict', '--model', folder)} --image IMAGE --out RESULT")
