"""What all commands have in common, and commands that are groups of others."""

from __future__ import annotations

from typing import Any

import typer

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"]}


def command_group(help: str) -> typer.Typer:
    """A command with commands of its own, such as ``runs list``."""
    return typer.Typer(
        help=help, no_args_is_help=True, add_completion=False, rich_markup_mode="rich", context_settings=CONTEXT
    )
