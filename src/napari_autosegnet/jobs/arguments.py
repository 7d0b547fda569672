"""What a script may give in place of what a job takes: text for a path, one file for several, numbers of channels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from napari_autosegnet.data.selection import Selection
from napari_autosegnet.errors import UserError, first_problem

AnyPath = str | os.PathLike[str]
AnyPaths = AnyPath | Sequence[AnyPath]
Channels = str | int | Sequence[str | int]
#: What to do with an array.
IN_MEMORY = "save what is in memory as a file first, for example with numpy.save"


def as_path(value: AnyPath, name: str, instead: str = IN_MEMORY) -> Path:
    """One path; ``~`` is the home folder.

    ``instead`` says what to do with anything else.

    Raises
    ------
    UserError
        When it is none, an array for example.
    """
    if not isinstance(value, str | os.PathLike):
        raise UserError(f"{name} must be a path, not {type(value).__name__}; {instead}")
    return Path(os.path.expanduser(value)) if Path(value).parts[:1] == ("~",) else Path(value)


def optional_path(value: AnyPath | None, name: str) -> Path | None:
    """A path, or none where none is given."""
    return None if value is None else as_path(value, name)


def as_paths(value: AnyPaths | None, name: str) -> tuple[Path, ...]:
    """All paths of one or several; none of None.

    Raises
    ------
    UserError
        When one of them is none.
    """
    if value is None:
        return ()
    if isinstance(value, str | os.PathLike) or not isinstance(value, Sequence):
        return (as_path(value, name),)
    return tuple(as_path(each, name) for each in value)


def model_folder(path: Path) -> Path:
    """The model's folder, for a run its ``model``."""
    inside = path / "model"
    return inside if (inside / "model.json").is_file() and not (path / "model.json").is_file() else path


def as_selection(time_point: int | None, channels: Channels | None, axes: str | None) -> Selection:
    """What of a file is read; a channel by its name or number."""
    if channels is not None:
        channels = (channels,) if isinstance(channels, str | int) else channels
        channels = [str(each) if isinstance(each, int) else each for each in channels]
    return Selection(time_point=time_point, channels=channels, axes=axes)


@contextmanager
def plain_refusals() -> Iterator[None]:
    """Say in one line which argument a job does not take.

    Raises
    ------
    UserError
        In place of pydantic's own error.
    """
    try:
        yield
    except ValidationError as error:
        raise UserError(f"wrong argument {first_problem(error)}; see help() of the function") from error
