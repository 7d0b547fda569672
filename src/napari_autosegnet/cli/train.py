"""``napari-autosegnet train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_autosegnet.cli.job import command_line, print_json, print_paths, resuming_command_line, run_job
from napari_autosegnet.cli.lines import print_note
from napari_autosegnet.cli.options import Axes, Changes, Channels, TimePoint, changed, takes_settings
from napari_autosegnet.cli.search import LABELS_HELP, RENAMED, check_pairs, end_by_epochs
from napari_autosegnet.config import PRESETS, Network, Preset, SplitSettings, TrainSettings, train_settings
from napari_autosegnet.quality import Quality
from napari_autosegnet.run import Run

PRESET_SETTINGS: dict[str, TrainSettings] = {preset: train_settings(preset) for preset in PRESETS}


@takes_settings(settings=PRESET_SETTINGS, split={"": SplitSettings()}, renamed=RENAMED)
def train(
    run: Annotated[Path, typer.Option(help="Run folder, with or without a search in it")],
    image: Annotated[
        list[Path] | None, typer.Option(help="Image or stack; what the run was searched with by default")
    ] = None,
    labels: Annotated[list[Path] | None, typer.Option(help=LABELS_HELP)] = None,
    classes: Annotated[
        str | None, typer.Option(help="Label values and their classes, for example 0:membrane,255:cell")
    ] = None,
    time: TimePoint = None,
    channels: Channels = None,
    axes: Axes = None,
    architecture: Annotated[
        Path | None, typer.Option(help="An architecture.json instead of what the run found")
    ] = None,
    network: Annotated[
        Network,
        typer.Option(
            help="searched; plain: a chain of the search's operations, without a search; unet, pspnet: to compare with"
        ),
    ] = "searched",
    preset: Annotated[
        Preset | None,
        typer.Option(
            help="fast: a laptop; standard: one GPU; paper: AutoSegNet's own sizes "
            "(default what the run was searched with, else standard)",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the training in --run where it stopped")] = False,
    continue_with: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="LABELS",
            help="Start from the run's last weights with these new labels, once for each of its images",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object")] = False,
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
    if resume and (settings or split):
        raise typer.BadParameter(
            "the run goes on with the settings that it began with; leave the others out", param_hint="'--resume'"
        )
    if architecture is not None and network != "searched":
        raise typer.BadParameter(f"--network {network} has an architecture of its own", param_hint="'--architecture'")

    from napari_autosegnet import api
    from napari_autosegnet.jobs.configuration import RunConfiguration

    own = (
        None
        if resume
        else changed(PRESET_SETTINGS[preset or RunConfiguration.load(Run(run)).preset], end_by_epochs(settings))
    )
    own_split = changed(SplitSettings(), split, RENAMED) if split else None

    _, last = run_job(
        lambda report, should_stop: api.train(
            run,
            images=images,
            labels=targets,
            classes=classes,
            time_point=time,
            channels=channels,
            axes=axes,
            architecture=architecture,
            network=network,
            settings=own,
            split=own_split,
            device=device,
            resume=resume,
            continue_with=continue_with,
            report=report,
            should_stop=should_stop,
        ),
        resume=resuming_command_line("train", run, device=device, as_json=as_json),
    )
    folder = Run(run).model_folder
    if as_json:
        quality = Quality.of(last.of("quality"))
        print_json({"run": run, "model": folder, **({} if quality is None else quality.model_dump(mode="json"))})
    else:
        print_paths(run=run, model=folder)
        print_note(f"next: {command_line('predict', '--model', folder)} --image IMAGE --out RESULT")
