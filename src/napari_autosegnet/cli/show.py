"""``napari-autosegnet show``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_autosegnet import figures
from napari_autosegnet.architecture import Architecture, SearchSpace
from napari_autosegnet.cli.fit import print_menu
from napari_autosegnet.cli.job import print_json
from napari_autosegnet.cli.lines import print_line
from napari_autosegnet.cli.runs import describe
from napari_autosegnet.errors import UserError
from napari_autosegnet.jobs.arguments import model_folder
from napari_autosegnet.jobs.menu import MenuEntry, read_menu
from napari_autosegnet.run import Run

_GIVE = "give an architecture.json, a model folder, a zip of one, or a run folder"


def show(
    what: Annotated[
        Path, typer.Argument(metavar="WHAT", help="An architecture.json, a model, or a run", show_default=False)
    ],
    out: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Draw it: .svg, .png, or .pdf")] = None,
    curves: Annotated[bool, typer.Option("--curves", help="Draw the run's curves instead of its architecture")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """Show an architecture, a model, or a run as text and as a picture.

    Example: [bold]napari-autosegnet show runs/isbi --out architecture.svg[/bold]
    """
    if curves and out is None:
        raise typer.BadParameter("say where to draw them with --out FILE.svg", param_hint="'--curves'")
    if curves and not _is_run(what):
        raise UserError(f"{what} is not a run folder (it has no config.json); only runs have curves")
    shown = _Shown.of(what)
    # Before anything is printed: what cannot be drawn has no other result either.
    if curves and out is not None:
        figures.draw_curves(Run.open(what).events(), out)
    elif out is not None:
        if shown.architecture is None:
            raise UserError(f"{what} has no searched architecture to draw; draw the curves of a run with --curves")
        figures.draw_architecture(shown.architecture, out, levels=shown.levels)
    if as_json:
        print_json(shown.as_json())
    else:
        shown.print()


@dataclass(frozen=True)
class _Shown:
    """What there is to show: facts by name, an architecture, and the networks of a fit."""

    values: dict[str, Any]
    architecture: Architecture | None
    levels: int | None = None
    menu: Sequence[MenuEntry] = ()

    @classmethod
    def of(cls, path: Path) -> _Shown:
        if _is_run(path):
            run = Run.open(path)
            values, menu = describe(run), read_menu(run)
            if run.has_architecture:
                return cls(values, Architecture.load(run.architecture_file), menu=menu)
            if not run.model_folder.is_dir():
                return cls(values, None, menu=menu)
            shown = _of_model(path)
            return cls({**values, **shown.values}, shown.architecture, shown.levels, menu)
        if not path.is_file() or path.suffix.lower() == ".zip":
            return _of_model(path)
        try:
            return cls({}, Architecture.load(path))
        except UserError:
            if path.suffix.lower() == ".json":
                raise
            raise UserError(f"{path} is not an architecture, a model, or a run; {_GIVE}") from None

    def as_json(self) -> dict[str, Any]:
        content = None if self.architecture is None else self.architecture.model_dump(mode="json")
        networks = {"networks": [entry.model_dump(mode="json") for entry in self.menu]} if self.menu else {}
        return {**self.values, "architecture": content, **networks}

    def print(self) -> None:
        for name, value in self.values.items():
            print_line(f"{name.replace('_', ' '):<12} {_plain(value)}")
        if self.values:
            print_line()
        if self.architecture is not None:
            for line in figures.describe_architecture(self.architecture).split("\n"):
                print_line(line)
        elif "network" in self.values:
            print_line(f"no searched architecture: {self.values['network']}")
        else:
            print_line("no architecture yet")
        if self.menu:
            print_line()
            print_menu(self.menu)


def _is_run(path: Path) -> bool:
    return (path / "config.json").is_file()


def _of_model(path: Path) -> _Shown:
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
    values = {
        "network": "plain" if is_plain else network.network,
        **size,
        "classes": [each.name for each in model.classes],
        "patch_size": model.patch_size,
        "context": model.context,
        "halo": None if model.halo is None else model.halo.model_dump(mode="json"),
        "half_precision": dict(model.half_precision),
        "metrics": model.metrics,
    }
    return _Shown(values, architecture, size.get("levels"))


def _plain(value: Any) -> str:
    if value is None or value == {}:
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(each) for each in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
