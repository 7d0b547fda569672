"""Runs in the runs folder: what each one is, how new, and whether somebody works on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from napari_autosegnet.errors import UserError
from napari_autosegnet.jobs.job_file import job_file
from napari_autosegnet.json_files import read_json
from napari_autosegnet.run import Run, find_runs
from napari_autosegnet.widgets.jobs.worker_process import find

Kind = Literal["network", "segmentation"]


@dataclass(frozen=True)
class RunEntry:
    """A run folder; ``segmentation`` holds a result only, ``network`` a search or a training."""

    path: Path
    kind: Kind
    active: bool
    changed: float


def newest_runs(folder: Path, max_runs: int = 100) -> list[RunEntry]:
    """The newest runs of a folder, newest first. Reads files: call it in a thread."""
    dated = sorted(((_changed(run.path), run.path) for run in find_runs(folder, depth=1)), reverse=True)[:max_runs]
    return [RunEntry(path, _kind(path), is_active(Run(path)), changed) for changed, path in dated]


def step_of(run: Run) -> Literal["annotate", "learn", "apply"]:
    """The step at which to continue a run."""
    if is_active(run) and _step_of_job(run) in ("fit", "search", "train"):
        return "learn"
    if run.has_model:
        return "apply"
    return "learn" if run.config_file.is_file() or run.has_architecture else "annotate"


def _changed(path: Path) -> float:
    times = [path.stat().st_mtime]
    events = path / "events.jsonl"
    if events.exists():
        times.append(events.stat().st_mtime)
    return max(times)


def _kind(path: Path) -> Kind:
    if (path / "config.json").is_file() or (path / "annotation" / "annotation.json").is_file():
        return "network"
    return "segmentation" if _step_of_job(Run(path)) == "predict" else "network"


def _step_of_job(run: Run) -> object:
    """Step of the last job of a run; None when there was none, or its file is damaged or leads elsewhere."""
    try:
        content = read_json(job_file(run), "start the step again")
    except UserError:
        return None
    return content.get("step", "") if isinstance(content, dict) else None


def is_active(run: Run) -> bool:
    """Whether somebody works on a run, or is about to; of a folder that leads elsewhere it is not asked."""
    try:
        # A worker takes a while to load what it needs, and holds the run only then.
        return run.is_active or find(run) is not None
    except UserError:
        return False
