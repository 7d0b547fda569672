"""``napari-autosegnet demo``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from napari_autosegnet.cli.job import command_line, print_json, print_paths, run_job, same_command_line
from napari_autosegnet.cli.lines import print_line, print_note
from napari_autosegnet.cli.options import Device, parse_duration
from napari_autosegnet.errors import UserError


def demo(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for the results")] = Path("demo"),
    view: Annotated[bool, typer.Option("--view", help="Open the results in napari at the end")] = False,
    budget: Annotated[
        float,
        typer.Option(
            parser=parse_duration, metavar="TIME", help="Time for all steps together (default 5m)", show_default=False
        ),
    ] = 300.0,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object")] = False,
) -> None:
    """Run all steps on a built-in sample: fit, apply, score. A few minutes on 2 cores.

    The sample is an electron micrograph of nerve fibers in three classes; one half of it is learned
    from, the other is segmented.

    Example: [bold]napari-autosegnet demo --out demo --view[/bold]
    """
    from napari_autosegnet.demo import check_window, run_demo, show_demo

    if view:
        check_window()
    again = same_command_line(context)
    summary, _ = run_job(partial(run_demo, out, budget=budget, device=device), resume=again)
    if summary["mean_iou"] is None:
        raise UserError(f"the demo was stopped before it was done; continue with: {again}")
    if as_json:
        print_json(summary)
    else:
        for name, iou in summary["iou"].items():
            print_line(f"IoU {name:<12} {iou:.3f}")
        print_line(f"mean IoU         {summary['mean_iou']:.3f}")
        print_paths(summary=out / "summary.json", **{name: Path(path) for name, path in summary["paths"].items()})
        if not view:
            print_note(f"look at it in napari: {command_line('demo', '--out', out, '--view')}")
    if view:
        # Work is done, so a signal now ends the program, and with it the window.
        show_demo(summary)
