"""What the user set under napari's Preferences: runs folder, device, workers, a folder of sample stacks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

PLUGIN = "napari-autosegnet"
#: Where runs go when nothing is set.
RUNS_FOLDER = Path("~/autosegnet-runs")


@dataclass(frozen=True)
class Preferences:
    """See ``configurations`` in ``napari.yaml``; ``samples_folder`` is None when it is not set."""

    runs_folder: Path = field(default_factory=RUNS_FOLDER.expanduser)
    device: str = "auto"
    workers: int = 1
    samples_folder: Path | None = None


def read_preferences() -> Preferences:
    """The preferences as they are now."""
    from napari.settings import get_plugin_settings

    try:
        settings = get_plugin_settings(PLUGIN).autosegnet
    except KeyError:  # the plugin is imported, but not installed in this napari
        return Preferences()
    return Preferences(
        runs_folder=Path(settings.runs_folder.strip() or RUNS_FOLDER).expanduser(),
        device=settings.device,
        workers=settings.workers,
        samples_folder=Path(settings.samples_folder.strip()).expanduser() if settings.samples_folder.strip() else None,
    )
