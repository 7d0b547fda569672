"""``napari-autosegnet show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_autosegnet.architecture import Architecture, SearchSpace
from napari_autosegnet.cli.fit import print_menu
from napari_autosegnet.cli.job import print_json
from napari_autosegnet.cli.lines import print_line
from napari_autosegnet.cli.runs import describe
from napari_autosegnet.errors import UserError
from napari_autosegnet.jobs.arguments import model_folder
from napari_autosegnet.jobs.menu import read_menu
from napari_autosegnet.run import Run

_GIVE = "give an architecture.json, a model folder, a zip of one, or a run folder"


def show(
    what: Annotated[
        Path, typer.Argument(metavar="WHAT", help="An architecture.json, a model or a run", show_default=False)
    ],
    out: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Draw it: .svg, .png or .pdf")] = None,
    curves: Annotated[bool, typer.Option("--curves", help="Draw the run's curves instead of its architecture")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """Show an architecture, a model or a run as text, and as a picture.

    Example: [bold]napari-autosegnet show runs/isbi --out architecture.svg[/bold]
    """
    if curves and out is None:
        raise typer.BadParameter("say where to draw them with --out FILE.svg", param_hint="'--curves'")
    from napari_autosegnet import figures

    run = Run.open(what) if (what / "config.json").is_file() else None
    if curves and run is None:
        raise UserError(f"{what} is not a run folder (it has no config.json); only runs have curves")

    architecture: Architecture | None = None
    levels: int | None = None
    values: dict[str, Any] = {} if run is None else describe(run)
    menu = [] if run is None else read_menu(run)
    if run is not None and run.architecture_file.is_file():
        architecture = Architecture.load(run.architecture_file)
    elif what.is_file() and what.suffix.lower() != ".zip":
        try:
            architecture = Architecture.load(what)
        except UserError:
            if what.suffix.lower() == ".json":
                raise
            raise UserError(f"{what} is no architecture, model or run; {_GIVE}") from None
    elif run is None or run.model_folder.is_dir():
        model = _model_values(what)
        architecture, levels = model.pop("architecture"), model.get("levels")
        values |= model

    # Before anything is printed: what cannot be drawn has no other result either.
    if out is not None:
        if curves and run is not None:
            figures.draw_curves(run.events(), out)
        elif architecture is not None:
            figures.draw_architecture(architecture, out, levels=levels)
        else:
            raise UserError(f"{what} has no searched architecture to draw; draw the curves of a run with --curves")
    if as_json:
        content = None if architecture is None else architecture.model_dump(mode="json")
        networks = {"networks": [entry.model_dump(mode="json") for entry in menu]} if menu else {}
        print_json({**values, "architecture": content, **networks})
    else:
        for name, value in values.items():
            print_line(f"{name.replace('_', ' '):<12} {_plain(value)}")
        if values:
            print_line()
        if architecture is not None:
            text = figures.describe_architecture(architecture)
        else:
            text = f"no searched architecture: {values['network']}" if "network" in values else "no architecture yet"
        for line in text.split("\n"):
            print_line(line)
        if menu:
            print_line()
            print_menu(menu)


def _model_values(path: Path) -> dict[str, Any]:
    """What a model says about itself."""
    if not path.exists():
        raise UserError(f"{path} does not exist; {_GIVE}")
    if path.is_dir() and not (model_folder(path) / "model.json").is_file():
        raise UserError(f"{path} is not a run (it has no config.json) and not a model (it has no model.json); {_GIVE}")
    from napari_autosegnet.model import Model

    model = Model.load(model_folder(path))
    network = model.specification
    architecture = network.architecture
    is_plain = architecture is not None and architecture == SearchSpace(levels=len(architecture.skips)).plain
    if network.network == "forest":
        size: dict[str, Any] = {"trees": network.trees, "nodes": network.nodes, "sigmas": list(network.sigmas)}
    else:
        size = {
            "levels": network.levels,
            "base_width": network.base_width,
            "max_width": network.max_width,
            "parameters": sum(parameter.numel() for parameter in model.network("cpu").parameters()),
        }
    return {
        "network": "plain" if is_plain else network.network,
        **size,
        "classes": [each.name for each in model.classes],
        "patch_size": model.patch_size,
        "context": model.context,
        "halo": None if model.halo is None else model.halo.model_dump(mode="json"),
        "half_precision": dict(model.half_precision),
        "metrics": model.metrics,
        "architecture": network.architecture,
    }


def _plain(value: Any) -> str:
    if value is None or value == {}:
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(each) for each in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
