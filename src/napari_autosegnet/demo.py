"""The whole way on the built-in sample: fit a network to one micrograph, apply it to another, score."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from napari_autosegnet import api
from napari_autosegnet.data.sample import SAMPLE_CLASSES, sample_folder
from napari_autosegnet.errors import StoppedError, UserError
from napari_autosegnet.events import Note, Report, silent
from napari_autosegnet.files import write_atomically
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.jobs.configuration import RunConfiguration
from napari_autosegnet.jobs.menu import read_menu
from napari_autosegnet.presets import fit_settings
from napari_autosegnet.run import Run

#: Fraction of the budget; the rest is left for start-up, applying, scoring and pictures.
FIT_FRACTION = 0.85


def run_demo(
    out: Path,
    *,
    budget: float = 300.0,
    device: str = "auto",
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> dict[str, Any]:
    """Do the three steps and write what a user wants to see of them into ``out``.

    Parameters
    ----------
    out : Path
        Folder for all results; an unfinished demo in it is continued.
    budget : float
        Seconds for everything.

    Returns
    -------
    dict
        What ``out/summary.json`` holds: ``mean_iou``, ``iou`` by class name, ``seconds`` by step, ``paths``.

    Raises
    ------
    UserError
        When the folder holds something else, or a step fails.
    """
    summary_file = out / "summary.json"
    if summary_file.is_file():
        report(Note(text=f"{out} holds a finished demo; delete it, or give another --out, to run it again"))
        return _read_summary(summary_file)
    finished = _run_steps(out, budget, device, report, should_stop)
    return finished or {"mean_iou": None, "iou": {}, "seconds": {}, "paths": {}}


def _run_steps(out: Path, budget: float, device: str, report: Report, should_stop: ShouldStop) -> dict[str, Any] | None:
    sample = sample_folder()
    image, labels = sample / "axon-sem-a.png", sample / "axon-sem-a-labels.png"
    test_image, test_labels = sample / "axon-sem-b.png", sample / "axon-sem-b-labels.png"
    folder, result = out / "run", out / "segmentation.zarr"
    run = Run(folder)
    configuration = RunConfiguration.load(run)
    seconds: dict[str, float] = {}

    started = time.monotonic()
    if not read_menu(run):
        resume = configuration.fit is not None
        with suppress(StoppedError):
            api.fit(
                folder,
                [] if resume else [image],
                [] if resume else [labels],
                classes=None if resume else SAMPLE_CLASSES,
                preset="fast",
                settings=fit_settings("fast", budget=FIT_FRACTION * budget),
                device=device,
                resume=resume,
                report=report,
                should_stop=should_stop,
            )
    if should_stop():
        # What was reached so far stands, but a demo that is continued should take its whole time.
        run.menu_file.unlink(missing_ok=True)
        return None
    seconds["fit"] = time.monotonic() - started

    started = time.monotonic()
    api.predict(run.model_folder, test_image, result, device=device, report=report, should_stop=should_stop)
    if should_stop():
        return None
    seconds["predict"] = time.monotonic() - started

    started = time.monotonic()
    scores = api.evaluate(
        prediction=result, labels=[test_labels], images=[test_image], classes=SAMPLE_CLASSES, report=report
    )
    seconds["evaluate"] = time.monotonic() - started
    paths = {
        "run": folder,
        "model": run.model_folder,
        "labels": result,
        "overlay": out / "overlay.png",
        "architecture": out / "architecture.png",
        "menu": out / "menu.png",
        "curves": out / "curves.png",
        "uncertainty": out / "uncertainty.png",
    }
    _draw(run, test_image, test_labels, paths, device)
    summary: dict[str, Any] = {
        "mean_iou": scores.mean_iou,
        "iou": scores.iou,
        "seconds": {step: round(value, 1) for step, value in seconds.items()},
        "paths": {name: str(path.absolute()) for name, path in paths.items()},
    }
    write_atomically(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    return summary


def _draw(run: Run, image: Path, labels: Path, paths: dict[str, Path], device: str) -> None:
    from napari_autosegnet import figures
    from napari_autosegnet.data.labeled_stacks import open_labeled
    from napari_autosegnet.device import choose_device
    from napari_autosegnet.inference.compute.sections import predicted_sections
    from napari_autosegnet.model import Model
    from napari_autosegnet.settings import PredictSettings

    model = Model.load(run.model_folder)
    stack = open_labeled([image], [labels], SAMPLE_CLASSES)[0]
    predicted = predicted_sections(model, stack.image, PredictSettings(), device=choose_device(device))
    segmented, probabilities = next(predicted)
    gray = stack.image.section(0)[0]
    figures.overlay(gray, segmented, model.classes, paths["overlay"], truth=stack.target(0))
    figures.draw_uncertainty(probabilities, paths["uncertainty"], image=gray)
    network = model.specification
    assert network.network == "searched" and network.architecture is not None
    figures.draw_architecture(network.architecture, paths["architecture"], levels=network.levels)
    figures.draw_menu(read_menu(run), paths["menu"])
    figures.draw_curves(run.events(), paths["curves"])


def _read_summary(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {name: content[name] for name in ("mean_iou", "iou", "seconds", "paths")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not a summary of a demo ({error}); give another --out") from error


def check_window() -> None:
    """Refuse, before minutes of work, what cannot open a window in the end: there Qt would abort the program.

    Raises
    ------
    UserError
        When napari or a screen is missing.
    """
    if find_spec("napari") is None:
        raise UserError("napari is not installed here; install 'napari-autosegnet[all]' to look at results")
    if sys.platform == "linux" and not any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"))):
        raise UserError("there is no screen here to open napari on; leave --view out, or log in with one (ssh -X)")


def show_demo(summary: dict[str, Any]) -> None:
    """Open image and result of a finished demo in napari; returns when the window is closed."""
    import napari
    from napari.utils import DirectLabelColormap

    from napari_autosegnet.data.images import open_image, open_labels
    from napari_autosegnet.model import Model

    sample = sample_folder()
    viewer = napari.Viewer(title="napari-autosegnet demo")
    viewer.add_image(open_image(sample / "axon-sem-b.png").section(0)[0], name="axon-sem-b")
    truth = open_labels(sample / "axon-sem-b-labels.png").section(0)[0]
    classes = Model.load(Path(summary["paths"]["model"])).classes
    colors: dict[int | None, str] = {
        None: "transparent",
        0: "transparent",
        **{i: c.color for i, c in enumerate(classes, start=1)},
    }
    colormap = DirectLabelColormap(color_dict=colors)
    viewer.add_labels(truth + 1, name="truth", visible=False, colormap=colormap)
    labels = open_labels(Path(summary["paths"]["labels"]) / "labels" / "segmentation").section(0)[0]
    viewer.add_labels(labels, name="segmentation", opacity=0.5, colormap=colormap)
    napari.run()
