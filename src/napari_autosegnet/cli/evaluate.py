"""``napari-autosegnet evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_autosegnet.cli.job import model_folder, print_json, run_job
from napari_autosegnet.cli.lines import print_line
from napari_autosegnet.cli.options import Axes, Channels, TimePoint
from napari_autosegnet.cli.search import differ_in_number
from napari_autosegnet.config import GreyValuesChoice


def evaluate(
    labels: Annotated[list[Path], typer.Option(help="True labels, or a pattern in quotes; repeat for several")],
    prediction: Annotated[Path | None, typer.Option(help="Predicted labels, as predict writes them")] = None,
    model: Annotated[Path | None, typer.Option(help="Or a model (or run) folder, applied to the images")] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(
            help="With --model: the image of each --labels; the files of two folders or patterns are paired by name"
        ),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Label values and their classes, for example 0:membrane,255:cell")
    ] = None,
    time: TimePoint = None,
    channels: Channels = None,
    axes: Axes = None,
    sections: Annotated[str | None, typer.Option(help="Score only these sections, for example 24-29")] = None,
    overlays: Annotated[
        Path | None, typer.Option(help="Folder for PNGs of prediction and truth over the image")
    ] = None,
    grey_values: Annotated[
        GreyValuesChoice,
        typer.Option(
            help="With --model, an image in another range than the model's is scaled where that can be told, else "
            "refused (checked), or taken as it is (as-is)"
        ),
    ] = "checked",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as one JSON object")] = False,
) -> None:
    """Score a prediction, or a model on labelled images: IoU, Dice, accuracy, V_rand, V_info.

    Pixels that are not annotated count nowhere.

    Example: [bold]napari-autosegnet evaluate --model runs/isbi --image train.tif --labels labels.tif
    --classes 0:membrane,255:cell --sections 24-29[/bold]
    """
    images = image or []
    if (prediction is None) == (model is None):
        raise typer.BadParameter("give either --prediction or --model", param_hint="'--prediction'")
    if model is not None and differ_in_number(images, labels):
        raise typer.BadParameter(
            f"{len(labels)} --labels but {len(images)} --image; --model needs one --image for each --labels",
            param_hint="'--image'",
        )
    folder = None if model is None else model_folder(model)

    from napari_autosegnet import api

    scores, _ = run_job(
        lambda report, should_stop: api.evaluate(
            labels=labels,
            images=images,
            prediction=prediction,
            model=folder,
            classes=classes,
            time_point=time,
            channels=channels,
            axes=axes,
            sections=sections,
            overlays=overlays,
            grey_values=grey_values,
            device=device,
            report=report,
            should_stop=should_stop,
        )
    )
    # A score that does not apply (V_rand without a boundary class) is left out.
    values = {name: value for name, value in scores.model_dump(mode="json").items() if value is not None}
    if as_json:
        print_json(values)
    else:
        for line in [*score_table(values).split("\n"), "", scores.quality.sentence()]:
            print_line(line)


def score_table(values: dict[str, Any]) -> str:
    """The scores as a table of plain text: a row per class, the overall figures below."""
    width = max(len("class"), *(len(name) for name in values["iou"]))
    lines = [f"{'class':<{width}}     IoU    Dice"]
    for name, iou in values["iou"].items():
        lines.append(f"{name:<{width}}  {_score(iou)}  {_score(values['dice'].get(name))}")
    overall = {
        "mean IoU": "mean_iou",
        "accuracy": "accuracy",
        "V_rand": "v_rand",
        "V_info": "v_info",
        "calibration error": "expected_calibration_error",
    }
    lines.append("")
    lines += [f"{title:<18}{_score(values[name])}" for title, name in overall.items() if name in values]
    return "\n".join(lines)


def _score(value: float | None) -> str:
    return f"{value:6.4f}" if value is not None else "     -"
