"""All commands, and how they end: exit status and one line for each mistake."""

from __future__ import annotations

import errno
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from napari_autosegnet.cli.groups import CONTEXT
from napari_autosegnet.cli.lines import print_note
from napari_autosegnet.errors import UserError

PROGRAM = "napari-autosegnet"

#: The commands and what each does; one module each, imported when the command is called. So the list
#: of commands comes at once.
COMMANDS = {
    "demo": "Run all steps on a built-in sample: fit, apply, score. A few minutes on 2 cores.",
    "fit": "From labeled images to a model in one go: find the network that they need and train it.",
    "search": "Find an architecture for labeled images.",
    "train": "Train a network from scratch: what a run found, an architecture file, a plain chain, U-Net, or PSPNet.",
    "predict": "Apply a model to an image or stack of any size.",
    "evaluate": "Score a prediction, or a model on labeled images: IoU, Dice, accuracy, V_rand, V_info.",
    "export": "Write a model for other programs: an ONNX file or a bioimage.io package.",
    "convert": "Write labels as MRC, HDF5, NIfTI, or TIFF, for other programs.",
    "resample": "Write a volume with cubic voxels, for predict --planes all; sections in between are interpolated.",
    "objects": "Write numbered objects with the edits that were made in napari.",
    "show": "Show an architecture, a model, or a run as text and as a picture.",
    "runs": "List, follow, pause, resume, and stop runs.",
}


#: Errors of the machine, not of the program: a line says more than a traceback.
_MACHINE_ERRORS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "choose another disk, or let the program write larger files (ulimit -f)",
    errno.EROFS: "choose another folder",
    errno.EACCES: "choose another folder or change its permissions",
    errno.EPERM: "choose another folder or change its permissions",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EIO: "check the disk, or the connection to it",
    errno.ESTALE: "check the connection to the network drive",
    errno.EMFILE: "let the program open more files (ulimit -n)",
}


#: What typer, in words of pydantic, asks of an option that is a number.
_KINDS = {"integer": "must be a whole number", "number": "must be a number"}


class CommandGroup(TyperGroup):
    """A group that knows its commands' names and loads only the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """What the list of commands needs; `resolve_command` gives the command itself."""
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name]) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        # Handed down to the command's own context, for `job.same_command_line`.
        ctx.obj = tuple(rest)
        return name, load_command(name) if name in COMMANDS else command, rest


def load_command(name: str) -> Any:
    """The command of one of `COMMANDS` with all its options."""
    module = importlib.import_module(f"napari_autosegnet.cli.{name}")
    if hasattr(module, "app"):
        return typer.main.get_command(module.app)
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
    function = getattr(module, name)
    alone.command(name, help=help_text(function), context_settings=CONTEXT)(function)
    return typer.main.get_command(alone)


def help_text(function: Callable[..., Any]) -> str:
    """The docstring with each paragraph on one line, so that it is wrapped to the terminal's width."""
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


app = typer.Typer(
    name=PROGRAM,
    cls=CommandGroup,
    help="Search, train, and apply a segmentation network for your own microscopy stacks.\n\n"
    "Start with: [bold]napari-autosegnet demo[/bold]",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings=CONTEXT,
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"{PROGRAM} {version(PROGRAM)}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of the program itself."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Parameters
    ----------
    arguments
        Without the program's name.

    Returns
    -------
    int
        Exit status: 0 on success, 1 for an error of the user, 2 for a wrong command line, 130, 143 and
        129 after Ctrl-C, SIGTERM and the end of a terminal.
    """
    try:
        os.getcwd()  # without it torch would end the program with an unclear message
    except OSError:
        return _fail("the folder that you are in is gone; change to another one with cd", 1)
    try:
        status = typer.main.get_command(app)(
            args=[_at_home(word) for word in arguments], prog_name=PROGRAM, standalone_mode=False
        )
        sys.stdout.flush()
    except UserError as error:
        return _fail(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # Whoever read our output has enough; python would complain once more while closing it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in _MACHINE_ERRORS:
            raise
        place = f" {error.filename}" if error.filename else ""
        return _fail(f"{error.strerror}{place}; {_MACHINE_ERRORS[error.errno]}", 1)
    except Exception as error:
        # Wrong usage. typer's exceptions for it were click's in older versions and share only their shape.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            return 2
        command = " ".join([PROGRAM, *(word for word in arguments[:1] if word in COMMANDS)])
        # What typer says of a word that is not one of several.
        text = message().rstrip(".").replace(": Value error, ", ": ")
        text = re.sub(r"Input should be a valid (integer|number)\b[^(]*", lambda kind: _KINDS[kind[1]], text)
        if "unexpected extra argument" in text:
            text += "; put a pattern in quotes: --image 'images/*.tif'"
        return _fail(f"{text} (see {command} --help)", int(getattr(error, "exit_code", 2)))
    return status if isinstance(status, int) else 0


def _at_home(word: str) -> str:
    """A word whose path begins with ``~``, which shells leave as it is within quotes and behind ``--out=``."""
    return re.sub(r"\A(--[a-z-]+=)?(~)(?=[/\\]|\Z)", lambda match: (match[1] or "") + os.path.expanduser("~"), word)


def _fail(message: str, status: int) -> int:
    print_note(f"error: {' '.join(message.split())}")
    return status
