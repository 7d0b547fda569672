"""``napari-autosegnet train``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from napari_autosegnet.cli.job import command_line, print_json, print_paths, resuming_command_line, run_job
from napari_autosegnet.cli.learning import RENAMED, check_pairs, end_by_epochs, refuse_changes
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
from napari_autosegnet.events import QualityMeasured
from napari_autosegnet.jobs.train import TrainJob
from napari_autosegnet.presets import PRESETS, Preset, train_settings
from napari_autosegnet.run import Run
from napari_autosegnet.settings import Network, SplitSettings, TrainSettings

PRESET_SETTINGS: dict[str, TrainSettings] = {preset: train_settings(preset) for preset in PRESETS}


@takes_settings(settings=PRESET_SETTINGS, split={"": SplitSettings()}, renamed=RENAMED)
def train(
    run: Annotated[Path, typer.Option(help="Run folder, with or without a search in it")],
    image: Annotated[
        list[Path] | None, typer.Option(help="Image or stack; what the run was searched with by default")
    ] = None,
    labels: Annotated[list[Path] | None, described(TrainJob, "labels")] = None,
    classes: Annotated[str | None, described(TrainJob, "classes")] = None,
    time: TimePoint = None,
    channels: Channels = None,
    axes: Axes = None,
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
    resume: Annotated[bool, described(TrainJob, "resume", "--resume")] = False,
    continue_with: Annotated[list[Path] | None, described(TrainJob, "continue_with", metavar="LABELS")] = None,
    device: Device = "auto",
    as_json: Json = False,
    *,
    settings: Changes,
    split: Changes,
) -> None:
    """Train a network from scratch: what a run found, an architecture file, a plain chain, U-Net or PSPNet.

    The best weights by validation mean IoU end up in RUN/model. --epochs without --budget lifts the
    preset's time budget.

    Example: [bold]napari-autosegnet train --run runs/isbi --preset fast --budget 30m[/bold]
    """
    images, targets = image or [], labels or []
    if images or targets:
        check_pairs(images, targets)
    if resume:
        refuse_changes({**settings, **split})
    if architecture is not None and network != "searched":
        raise typer.BadParameter(f"--network {network} has an architecture of its own", param_hint="'--architecture'")

    job = TrainJob(
        images=tuple(images),
        labels=tuple(targets),
        classes=classes,
        selection=Selection(time_point=time, channels=channels, axes=axes),
        architecture=architecture,
        network=network,
        settings=None if resume else changed(_preset_settings(preset, run), end_by_epochs(settings)),
        split=changed(SplitSettings(), split, RENAMED) if split else None,
        device=device,
        resume=resume,
        continue_with=tuple(continue_with or ()),
    )
    again = resuming_command_line("train", run, device=device, as_json=as_json)
    _, last = run_job(partial(job.run, run), resume=again)
    folder = Run(run).model_folder
    if as_json:
        measured = last.of(QualityMeasured)
        quality = {} if measured is None else measured.quality.model_dump(mode="json")
        print_json({"run": run, "model": folder, **quality})
    else:
        print_paths(run=run, model=folder)
        print_note(f"next: {command_line('predict', '--model', folder)} --image IMAGE --out RESULT")


def _preset_settings(preset: Preset | None, run: Path) -> TrainSettings:
    from napari_autosegnet.jobs.configuration import RunConfiguration

    return PRESET_SETTINGS[preset or RunConfiguration.load(Run(run)).preset]
