"""What the commands that learn share: where the run lies, which images have which labels, and when to end."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from glob import has_magic
from pathlib import Path

import typer

from napari_autosegnet.cli.options import Changes

#: Both the settings and the split have a seed.
RENAMED = {"split.seed": "split_seed"}


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


def end_by_epochs(settings: Changes) -> Changes:
    """Who gives a number of epochs and no time wants these epochs, not the preset's time."""
    return {"budget": None, **settings} if "epochs" in settings else settings
