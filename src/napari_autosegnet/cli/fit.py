"""``napari-autosegnet fit``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from napari_autosegnet.cli.job import command_line, print_json, print_paths, run_job
from napari_autosegnet.cli.learning import Given, learning_command
from napari_autosegnet.cli.lines import print_note, print_table
from napari_autosegnet.cli.options import described
from napari_autosegnet.jobs.fit import FitJob
from napari_autosegnet.jobs.menu import MenuEntry, choose_network, model_of, read_menu
from napari_autosegnet.presets import FIT_PRESETS, FitPreset, fit_settings
from napari_autosegnet.run import Run
from napari_autosegnet.settings import FitSettings

PRESET_SETTINGS: dict[str, FitSettings] = {preset: fit_settings(preset) for preset in FIT_PRESETS}


@learning_command(PRESET_SETTINGS)
def fit(
    given: Given,
    run: Annotated[Path | None, typer.Option(help="Run folder (default runs/IMAGE-DATE)")] = None,
    preset: Annotated[FitPreset, described(FitJob, "preset")] = "standard",
    choose: Annotated[
        str | None, typer.Option(metavar="NETWORK", help="Use another network of a finished --run as its model")
    ] = None,
) -> None:
    """From labeled images to a model in one go: find the network that they need and train it.

    Networks of several sizes compete on your data; the better ones continue, and the one that --goal asks for is
    trained to the end. It is in RUN/model from the first epochs on; the others that are worth it are listed at the end.

    Example: [bold]napari-autosegnet fit --image train.tif --labels labels.tif --classes 0:membrane,255:cell
    --run runs/isbi --preset fast --budget 20m[/bold]
    """
    if choose is not None:
        if run is None:
            raise typer.BadParameter("--choose needs the run folder to choose from", param_hint="'--run'")
        choose_network(Run.open(run), choose)
        _print_result(run, given.as_json)
        return
    folder = given.folder(run)
    job = FitJob(preset=preset, **given.arguments(PRESET_SETTINGS[preset]))
    run_job(partial(job.run, folder), resume=given.resuming("fit", folder))
    _print_result(folder, given.as_json)


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
