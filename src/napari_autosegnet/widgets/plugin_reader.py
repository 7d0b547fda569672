"""What napari's *File > Open* gets from this program: layers, and a dock that continues with a run or a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from napari_autosegnet.json_files import read_object
from napari_autosegnet.ome_zarr.metadata import image_group
from napari_autosegnet.run import is_run
from napari_autosegnet.widgets.files.image_files import image_file_layers, is_image_file
from napari_autosegnet.widgets.files.readers import LayerData, notes_of, read_ome_zarr
from napari_autosegnet.widgets.files.run_layers import run_layers
from napari_autosegnet.widgets.preferences import PLUGIN

Reader = Callable[[Any], list[LayerData]]


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """Reader for a path, or None when it is nothing of this program's."""
    if not isinstance(path, str):
        return None
    place = Path(path)
    if place.name == "model.json":
        place = place.parent
    if is_run(place):
        return lambda _: read_run(place)
    if is_model(place):
        return lambda _: read_model(place)
    if image_group(place) is not None:
        return lambda _: read_store(place)
    if is_image_file(place):
        return lambda _: read_image_file(place)
    return None


def read_store(path: Path) -> list[LayerData]:
    """Layers of an OME-Zarr; what is doubtful about it is shown as warnings."""
    layers = read_ome_zarr(path)
    _warn(notes_of(path))
    return layers


def read_image_file(path: Path) -> list[LayerData]:
    """Layers of the images in a file, read where they are looked at."""
    layers, notes = image_file_layers(path)
    _warn(notes)
    return layers


def _warn(notes: Iterable[str]) -> None:
    from napari.utils.notifications import show_warning

    for note in notes:
        show_warning(f"{note[:1].upper()}{note[1:]}.")


def is_model(path: Path) -> bool:
    return str(read_object(path / "model.json").get("format", "")).startswith("napari-autosegnet/")


def read_run(path: Path) -> list[LayerData]:
    """Images and annotation of a run; the dock continues with it."""
    _tell_dock(path)
    layers = run_layers(path)
    return layers or [(None,)]


def read_model(path: Path) -> list[LayerData]:
    """No layers: the dock's last step takes the model."""
    _tell_dock(path)
    return [(None,)]


def _tell_dock(path: Path) -> None:
    """Show the dock, if there is a window, and let it take the run or model."""
    import napari

    viewer = napari.current_viewer()
    if viewer is None:
        return
    from napari_autosegnet.widgets.dock import AutoSegNetDock  # needs Qt, and a program without a window may read, too

    # A script may have added one under a name of its own; two docks would do everything twice.
    docks = (widget for widget in viewer.window.dock_widgets.values() if isinstance(widget, AutoSegNetDock))
    dock = next(docks, None) or viewer.window.add_plugin_dock_widget(PLUGIN)[1]
    dock.bring_to_front()
    dock.open(path)
