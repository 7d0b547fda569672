"""The command ``napari-autosegnet``: thin commands that parse, call the package's API and print."""

from __future__ import annotations

import io
import os
import sys


def main() -> None:
    """Entry point of the console script."""
    # Threads that spin while they wait stop each other as soon as anything else runs on the machine: on
    # two cores with one other process a training step took up to 28 times as long. OpenMP reads this when torch is
    # imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started the program, such as a scheduler of jobs
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names may hold what a terminal's encoding lacks, as Windows' cp1252; stderr writes it out by itself.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        from napari_autosegnet.cli.app import run

        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:  # Ctrl-C while the program starts
        sys.exit(130)
