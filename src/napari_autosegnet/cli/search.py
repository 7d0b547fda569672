"""``napari-autosegnet search``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from napari_autosegnet.cli.job import command_line, print_json, print_paths, resuming_command_line, run_job
from napari_autosegnet.cli.learning import RENAMED, end_by_epochs, run_folder
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
