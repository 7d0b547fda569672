"""Runs in the runs folder: what each one is, how new, and whether somebody works on it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from napari_autosegnet.run import Run

Kind = Literal["network", "segmentation"]


@dataclass(frozen=True)
class RunEntry:
    """A run folder; ``segmentation`` holds a result only, ``network`` a search or a training."""

    path: Path
    kind: Kind
    active: bool
    changed: float


def find_runs(folder: Path, most: int = 100) -> list[RunEntry]:
    """The newest runs of a folder, newest first. Reads files: call it in a thread."""
    found = []
    try:
        paths = [path for path in folder.iterdir() if path.is_dir()]
    except OSError:
        return []
    dated = sorted(((_changed(path), path) for path in paths), reverse=True)
    for changed, path in dated:
        kind = _kind(path)
        if kind is not None:
            found.append(RunEntry(path, kind, Run(path).is_active, changed))
        if len(found) == most:
            break
    return found


def step_of(run: Run) -> Literal["annotate", "search", "retrain", "apply"]:
    """The step at which one goes on with a run."""
    try:
        job = json.loads((run.path / "job.json").read_text(encoding="utf-8")).get("step")
    except (OSError, ValueError, AttributeError):
        job = None
    if run.is_active and job in ("search", "train"):
        return "search" if job == "search" else "retrain"
    if (run.model_folder / "model.json").is_file():
        return "apply"
    if run.architecture_file.is_file():
        return "retrain"
    return "search" if run.config_file.is_file() else "annotate"


def is_run(path: Path) -> bool:
    """Whether a folder is a run, however little is in it."""
    return _kind(path) is not None or (path / "events.jsonl").is_file() or (path / "model" / "model.json").is_file()


def _changed(path: Path) -> float:
    times = [path.stat().st_mtime]
    events = path / "events.jsonl"
    if events.exists():
        times.append(events.stat().st_mtime)
    return max(times)


def _kind(path: Path) -> Kind | None:
    if (path / "config.json").is_file() or (path / "annotation" / "annotation.json").is_file():
        return "network"
    try:
        content = json.loads((path / "job.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict):
        return None
    return "segmentation" if content.get("step") == "predict" else "network"
