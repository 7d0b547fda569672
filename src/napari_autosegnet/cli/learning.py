"""What the commands that learn share: options, where the run lies, which images have which labels, when to end."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from datetime import datetime
from glob import has_magic
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from pydantic import BaseModel

from napari_autosegnet.cli.job import command_line
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
from napari_autosegnet.events import Step
from napari_autosegnet.jobs.job import LearningJob
from napari_autosegnet.settings import SplitSettings

#: Both the settings and the split have a seed.
RENAMED = {"split.seed": "split_seed"}


@dataclass(frozen=True, kw_only=True)
class Given:
    """What was given to a command that learns; each field is an option of it, or several (see `learning_command`)."""

    image: Annotated[list[Path] | None, described(LearningJob, "images")] = None
    labels: Annotated[list[Path] | None, described(LearningJob, "labels")] = None
    classes: Annotated[str | None, described(LearningJob, "classes")] = None
    time: TimePoint = None
    channels: Channels = None
    axes: Axes = None
    resume: Annotated[bool, described(LearningJob, "resume", "--resume")] = False
    device: Device = "auto"
    as_json: Json = False
    settings: Changes
    split: Changes

    def folder(self, run: Path | None) -> Path:
        """The run folder of a new job, by default one named after the first image, or of one that is resumed.

        Raises
        ------
        typer.BadParameter
            When a new job has no images, or one that is resumed has no folder or other settings.
        """
        if not self.resume:
            self.check_pairs()
            return run or default_run((self.image or [])[0])
        if run is None:
            raise typer.BadParameter("--resume needs the run folder to continue", param_hint="'--run'")
        self.refuse_changes_of_resumed()
        return run

    def refuse_changes_of_resumed(self) -> None:
        """Refuse settings beside ``--resume``."""
        if self.resume and (self.settings or self.split):
            raise typer.BadParameter(
                "the run continues with the settings that it began with; leave the others out", param_hint="'--resume'"
            )

    def check_pairs(self) -> None:
        """Refuse a command line without images or with unpaired ones."""
        images, labels = self.image or [], self.labels or []
        if not images:
            raise typer.BadParameter("give at least one image and its labels", param_hint="'--image'")
        if differ_in_number(images, labels):
            raise typer.BadParameter(
                f"{len(images)} --image but {len(labels)} --labels; give one --labels for each --image",
                param_hint="'--labels'",
            )

    def arguments(self, preset: BaseModel) -> dict[str, Any]:
        """Those of a `LearningJob`, with a preset's settings but for what was given; a resumed run keeps its own."""
        settings = self.settings
        if "epochs" in settings:
            # Who gives a number of epochs and no time wants these epochs, not the preset's time.
            settings = {"budget": None, **settings}
        return {
            "images": tuple(self.image or ()),
            "labels": tuple(self.labels or ()),
            "classes": self.classes,
            "selection": Selection(time_point=self.time, channels=self.channels, axes=self.axes),
            "settings": None if self.resume else changed(preset, settings),
            "split": changed(SplitSettings(), self.split, RENAMED) if self.split else None,
            "resume": self.resume,
            "device": self.device,
        }

    def resuming(self, step: Step, folder: Path) -> str:
        """The command line that continues a run, whose folder keeps all but the device and the form of the output."""
        device = [] if self.device == "auto" else ["--device", self.device]
        return command_line(step, "--run", folder, "--resume", *device, *(["--json"] if self.as_json else []))


def learning_command(presets: Mapping[str, BaseModel]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of `Given`, which it takes first; its own options stand before ``--resume``."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(Given, include_extras=True)
        shared = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.default is MISSING else field.default,
                annotation=hints[field.name],
            )
            for field in fields(Given)
        ]
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        names = [each.name for each in shared]

        @functools.wraps(function)
        def command(**values: Any) -> None:
            function(Given(**{name: values.pop(name) for name in names}), **values)

        between = names.index("resume")
        parameters = [*shared[:between], *own, *shared[between:]]
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
        )
        return takes_settings(settings=presets, split={"": SplitSettings()}, renamed=RENAMED)(command)

    return decorate


def differ_in_number(images: Sequence[Path], labels: Sequence[Path]) -> bool:
    """Whether there are more of one than of the other; how many files a pattern fits is found out later."""
    return len(images) != len(labels) and not any(has_magic(str(path)) for path in [*images, *labels])


def default_run(image: Path) -> Path:
    """``runs/IMAGE-DATE``; of a pattern the folder's name."""
    name = image.parent.name if has_magic(image.name) else image.name.split(".")[0]
    return Path("runs") / f"{name or 'run'}-{datetime.now():%Y%m%d-%H%M%S}"
