"""``napari-autosegnet evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_autosegnet.cli.job import print_json, run_job
from napari_autosegnet.cli.learning import differ_in_number
from napari_autosegnet.cli.lines import print_line
from napari_autosegnet.cli.options import Axes, Channels, Device, Json, TimePoint, described
from napari_autosegnet.data.selection import Selection
from napari_autosegnet.jobs.arguments import model_folder
from napari_autosegnet.jobs.evaluate import EvaluateJob
from napari_autosegnet.plain_text import counted
from napari_autosegnet.settings import GrayValuesChoice


def evaluate(
    labels: Annotated[list[Path], described(EvaluateJob, "labels")],
    prediction: Annotated[Path | None, described(EvaluateJob, "prediction")] = None,
    objects: Annotated[Path | None, described(EvaluateJob, "objects")] = None,
    model: Annotated[Path | None, described(EvaluateJob, "model")] = None,
    image: Annotated[list[Path] | None, described(EvaluateJob, "images")] = None,
    classes: Annotated[str | None, described(EvaluateJob, "classes")] = None,
    time: TimePoint = None,
    channels: Channels = None,
    axes: Axes = None,
    sections: Annotated[str | None, described(EvaluateJob, "sections")] = None,
    overlays: Annotated[Path | None, described(EvaluateJob, "overlays")] = None,
    gray_values: Annotated[GrayValuesChoice, described(EvaluateJob, "gray_values")] = "checked",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Score a prediction, or a model on labeled images: IoU, Dice, accuracy, V_rand, V_info.

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
    job = EvaluateJob(
        labels=tuple(labels),
        images=tuple(images),
        prediction=prediction,
        objects=objects,
        model=None if model is None else model_folder(model),
        classes=classes,
        selection=Selection(time_point=time, channels=channels, axes=axes),
        sections=sections,
        overlays=overlays,
        gray_values=gray_values,
        device=device,
    )
    scores, _ = run_job(job.run)
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
    objects = values.get("objects")
    if objects is not None:
        lines += ["", f"{counted(objects['found'], 'object')}, {objects['objects']} true"]
        lines += [f"{title:<18}{_score(objects[name])}" for title, name in (("V_rand", "v_rand"), ("V_info", "v_info"))]
        for name in ("precision", "recall"):
            lines += [f"{name} at {iou:<{14 - len(name)}}{_score(value)}" for iou, value in objects[name].items()]
    return "\n".join(lines)


def _score(value: float | None) -> str:
    return f"{value:6.4f}" if value is not None else "     -"
