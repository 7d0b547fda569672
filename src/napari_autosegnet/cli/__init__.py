"""The command ``napari-autosegnet``: thin commands that parse, call the package's API and print."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the console script."""
    from napari_autosegnet.cli.app import run

    sys.exit(run(sys.argv[1:]))
