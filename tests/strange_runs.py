"""Run folders as somebody might hand them over who means no good."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from napari_autosegnet.architecture import SearchSpace
from napari_autosegnet.events import Started
from napari_autosegnet.jobs.predict import PredictJob
from napari_autosegnet.run import Run
from napari_autosegnet.settings import PredictSettings
from run_configs import update_config

#: Turns the text red, sets the window's title, goes up a line, clears it, and turns the direction of what follows.
ORDERS = "\x1b[31m\x1b]0;owned\x07\x1b[1A\x1b[2K\x9b5n\u202e\u2028"
MARKUP = '<img src="x.png"><b>bold</b>[red]rich[/red]'
FAKED = "\nerror: faked line"
NASTY = ORDERS + MARKUP + FAKED


def write_strange_run(folder: Path) -> Run:
    """A run whose events hold orders to terminals and markup in every text."""
    run = Run.create(folder)
    update_config(run, preset=NASTY, data={}, search={})
    run.architecture_file.write_text(SearchSpace().sample(np.random.default_rng(0)).to_json())
    iou = {f"mine {NASTY}": 0.5, "cell": 0.25}
    told = [
        {"event": "started", "step": "train"},
        {"event": "device", "name": NASTY},
        {"event": "data", "text": NASTY, "classes": [NASTY]},
        {"event": "note", "text": NASTY},
        {"event": "warning", "text": NASTY},
        {"event": "epoch", "step": "train", "epoch": 1, "loss": 0.5, "mean_iou": 0.5, "iou": iou, "phase": NASTY},
        {"event": "epoch", "step": "train", "epoch": 2, "loss": 0.4, "mean_iou": 0.5, "iou": iou},
        {"event": "architecture", "architecture": {"x": NASTY}, "score": 0.5, "remark": NASTY},
        {"event": "failed", "step": "train", "text": NASTY},
    ]
    lines = [json.dumps({**event, "time": "2026-01-01T00:00:00.000+00:00" + NASTY}) for event in told]
    run.events_file.write_text("\n".join(lines) + "\n")
    return run


def write_strange_job(folder: Path, out: Path, model: Path, image: Path, *, overwrite: bool) -> Run:
    """A segmentation that broke off, whose file names a result of mine."""
    run = Run.create(folder)
    settings = PredictSettings(overwrite=overwrite)
    job = PredictJob(model=model, image=image, out=out, settings=settings, device="cpu")
    (run.path / "job.json").write_text(job.model_dump_json())
    run.report(Started(step="predict"))
    return run


def is_harmless(text: str) -> bool:
    """Whether a terminal only shows what is printed, and every line of it was meant as one."""
    lines = text.split("\n")
    return all(line.isprintable() for line in lines) and not any(line.startswith("error: faked") for line in lines)
