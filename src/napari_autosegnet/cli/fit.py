"""``napari-autosegnet fit``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from napari_autosegnet.cli.job import command_line, print_json, print_paths, resuming_command_line, run_job
from napari_autosegnet.cli.learning import RENAMED, end_by_epochs, run_folder
from napari_autosegnet.cli.lines import print_note, print_table
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
from napari_autosegnet.jobs.fit import FitJob
from napari_autosegnet.jobs.menu import MenuEntry, choose_network, model_of, read_menu
from napari_autosegnet.presets import FIT_PRESETS, FitPreset, fit_settings
from napari_autosegnet.run import Run
from napari_autosegnet.settings import FitSettings, SplitSettings

PRESET_SETTINGS: dict[str, FitSettings] = {preset: fit_settings(preset) for preset in FIT_PRESETS}


@takes_settings(settings=PRESET_SETTINGS, split={"": SplitSettings()}, renamed=RENAMED)
def fit(
    image: Annotated[list[Path] | None, described(FitJob, "images")] = None,
    labels: Annotated[list[Path] | None, described(FitJob, "labels")] = None,
    classes: Annotated[str | None, described(FitJob, "classes")] = None,
    time: TimePoint = None,
    channels: Channels = None,
    axes: Axes = None,
    run: Annotated[Path | None, typer.Option(help="Run folder (default runs/IMAGE-DATE)")] = None,
    preset: Annotated[FitPreset, described(FitJob, "preset")] = "standard",
    resume: Annotated[bool, described(FitJob, "resume", "--resume")] = False,
    choose: Annotated[
        str | None, typer.Option(metavar="NETWORK", help="Use another network of a finished --run as its model")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
    *,
    settings: Changes,
    split: Changes,
) -> None:
    """From labeled images to a model in one go: find the network that they need, and train it.

    Networks of several sizes compete on your data; the better ones continue, and the one that --goal asks for is
    trained to the end. It is in RUN/model from the first epochs on; the others that are worth it are listed at the end.

    Example: [bold]napari-autosegnet fit --image train.tif --labels labels.tif --classes 0:membrane,255:cell
    --run runs/isbi --preset fast --budget 20m[/bold]
    """
    images, targets = image or [], labels or []
    if choose is not None:
        if run is None:
            raise typer.BadParameter("--choose needs the run folder to choose from", param_hint="'--run'")
        choose_network(Run.open(run), choose)
        _print_result(run, as_json)
        return
    folder = run_folder(run, images, targets, resume=resume, changes={**settings, **split})
    job = FitJob(
        images=tuple(images),
        labels=tuple(targets),
        classes=classes,
        selection=Selection(time_point=time, channels=channels, axes=axes),
        preset=preset,
        settings=None if resume else changed(PRESET_SETTINGS[preset], end_by_epochs(settings)),
        split=None if resume else changed(SplitSettings(), split, RENAMED),
        device=device,
        resume=resume,
    )
    again = resuming_command_line("fit", folder, device=device, as_json=as_json)
    run_job(partial(job.run, folder), resume=again)
    _print_result(folder, as_json)


def _print_result(folder: Path, as_json: bool) -> None:
    run = Run(folder)
    menu = read_menu(run)
    chosen = next(entry.name for entry in menu if entry.chosen)
    if as_json:
        networks = [
            {
                **entry.model_dump(mode="json"),
                "megapixels_per_second": entry.megapixels_per_second,
                "model": model_of(run, entry),
            }
            for entry in menu
        ]
        print_json({"run": folder, "model": run.model_folder, "chosen": chosen, "networks": networks})
        return
    print_menu(menu)
    if len(menu) > 1:
        print_note(f"to take another one: {command_line('fit', '--run', folder, '--choose')} NETWORK")
    print_paths(run=folder, model=run.model_folder)
    print_note(f"next: {command_line('predict', '--model', run.model_folder)} --image IMAGE --out RESULT")


def print_menu(menu: Sequence[MenuEntry]) -> None:
    """The networks of a fit as a table, the best first."""
    rows = [("network", "", "mean IoU", "against the best", "Mpx/s", "weights", "trained", "is")]
    for entry in menu:
        words = [*entry.goals, *(["the run's model"] if entry.chosen else [])]
        rows.append(
            (
                entry.name,
                entry.description,
                f"{entry.mean_iou:.3f} ({entry.interval[0]:.3f} to {entry.interval[1]:.3f})",
                f"{entry.difference[0]:+.3f} to {entry.difference[1]:+.3f}" if any(entry.difference) else "-",
                f"{entry.megapixels_per_second:.1f}",
                f"{entry.parameters / 1e6:.2f} M",
                f"{entry.seconds:.0f} s",
                ", ".join(words),
            )
        )
    print_table(rows)
