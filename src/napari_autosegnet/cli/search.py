"""``napari-autosegnet search``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from glob import has_magic
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_autosegnet.cli.job import command_line, print_json, print_paths, resuming_command_line, run_job
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
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import ArchitectureFound, QualityMeasured
from napari_autosegnet.jobs.search import SearchJob
from napari_autosegnet.presets import PRESETS, Preset, search_settings
from napari_autosegnet.run import Run
from napari_autosegnet.settings import SearchSettings, SplitSettings

PRESET_SETTINGS: dict[str, SearchSettings] = {preset: search_settings(preset) for preset in PRESETS}
RENAMED = {"split.seed": "split_seed"}


@takes_settings(settings=PRESET_SETTINGS, split={"": SplitSettings()}, renamed=RENAMED)
def search(
    image: Annotated[list[Path] | None, described(SearchJob, "images")] = None,
    labels: Annotated[list[Path] | None, described(SearchJob, "labels")] = None,
    classes: Annotated[str | None, described(SearchJob, "classes")] = None,
    time: TimePoint = None,
    channels: Channels = None,
    axes: Axes = None,
    run: Annotated[Path | None, typer.Option(help="Run folder (default runs/IMAGE-DATE)")] = None,
    preset: Annotated[Preset, described(SearchJob, "preset")] = "standard",
    resume: Annotated[bool, described(SearchJob, "resume", "--resume")] = False,
    device: Device = "auto",
    as_json: Json = False,
    *,
    settings: Changes,
    split: Changes,
) -> None:
    """Find an architecture for labeled images.

    A part of the labeled sections is kept for validation; candidates are compared on it. --epochs without
    --budget lifts the preset's time budget.

    Example: [bold]napari-autosegnet search --image train.tif --labels labels.tif --classes 0:membrane,255:cell
    --run runs/isbi --preset fast --budget 10m[/bold]
    """
    images, targets = image or [], labels or []
    folder = run_folder(run, images, targets, resume=resume, changes={**settings, **split})
    job = SearchJob(
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
    again = resuming_command_line("search", folder, device=device, as_json=as_json)
    architecture, last = run_job(partial(job.run, folder), resume=again)
    if architecture is None:
        raise UserError(f"the search was stopped before it rated any architecture; continue with: {again}")
    file = Run(folder).architecture_file
    if as_json:
        quality, chosen = last.of(QualityMeasured), last.of(ArchitectureFound)
        print_json(
            {
                "run": folder,
                "architecture": file,
                "score": None if chosen is None else chosen.score,
                "quality": None if quality is None else quality.quality.model_dump(mode="json"),
            }
        )
    else:
        print_paths(run=folder, architecture=file)
        print_note(f"next: {command_line('train', '--run', folder)}")


def run_folder(run: Path | None, images: list[Path], labels: list[Path], *, resume: bool, changes: Changes) -> Path:
    """The run folder of a new job, by default one named after the first image, or of one that is resumed.

    Raises
    ------
    typer.BadParameter
        When a new job has no images, or one that is resumed has no folder or other settings.
    """
    if not resume:
        check_pairs(images, labels)
        return run or default_run(images[0])
    if run is None:
        raise typer.BadParameter("--resume needs the run folder to continue", param_hint="'--run'")
    refuse_changes(changes)
    return run


def refuse_changes(changes: Changes) -> None:
    """Refuse settings beside ``--resume``."""
    if changes:
        raise typer.BadParameter(
            "the run continues with the settings that it began with; leave the others out", param_hint="'--resume'"
        )


def check_pairs(images: list[Path], labels: list[Path]) -> None:
    """Refuse a command line without images or with unpaired ones."""
    if not images:
        raise typer.BadParameter("give at least one image and its labels", param_hint="'--image'")
    if differ_in_number(images, labels):
        raise typer.BadParameter(
            f"{len(images)} --image but {len(labels)} --labels; give one --labels for each --image",
            param_hint="'--labels'",
        )


def differ_in_number(images: Sequence[Path], labels: Sequence[Path]) -> bool:
    """Whether there are more of one than of the other; how many files a pattern fits is found out later."""
    return len(images) != len(labels) and not any(has_magic(str(path)) for path in [*images, *labels])


def default_run(image: Path) -> Path:
    """``runs/IMAGE-DATE``; of a pattern the folder's name."""
    name = image.parent.name if has_magic(image.name) else image.name.split(".")[0]
    return Path("runs") / f"{name or 'run'}-{datetime.now():%Y%m%d-%H%M%S}"


def end_by_epochs(settings: Changes) -> dict[str, Any]:
    """Who gives a number of epochs and no time wants these epochs, not the preset's time."""
    return {"budget": None, **settings} if "epochs" in settings else settings
