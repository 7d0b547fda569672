"""``napari-autosegnet search``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from napari_autosegnet.cli.job import command_line, print_json, print_paths, run_job
from napari_autosegnet.cli.learning import Given, learning_command
from napari_autosegnet.cli.lines import print_note
from napari_autosegnet.cli.options import described
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import ArchitectureFound, QualityMeasured
from napari_autosegnet.jobs.search import SearchJob
from napari_autosegnet.presets import PRESETS, Preset, search_settings
from napari_autosegnet.run import Run
from napari_autosegnet.settings import SearchSettings

PRESET_SETTINGS: dict[str, SearchSettings] = {preset: search_settings(preset) for preset in PRESETS}


@learning_command(PRESET_SETTINGS)
def search(
    given: Given,
    run: Annotated[Path | None, typer.Option(help="Run folder (default runs/IMAGE-DATE)")] = None,
    preset: Annotated[Preset, described(SearchJob, "preset")] = "standard",
) -> None:
    """Find an architecture for labeled images.

    A part of the labeled sections is kept for validation; candidates are compared on it. --epochs without
    --budget lifts the preset's time budget.

    Example: [bold]napari-autosegnet search --image train.tif --labels labels.tif --classes 0:membrane,255:cell
    --run runs/isbi --preset fast --budget 10m[/bold]
    """
    folder = given.folder(run)
    job = SearchJob(preset=preset, **given.arguments(PRESET_SETTINGS[preset]))
    again = given.resuming("search", folder)
    architecture, last = run_job(partial(job.run, folder), resume=again)
    if architecture is None:
        raise UserError(f"the search was stopped before it rated any architecture; continue with: {again}")
    file = Run(folder).architecture_file
    if given.as_json:
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
