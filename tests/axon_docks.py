"""Docks beside a part of the labeled axons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_autosegnet.widgets.dock import AutoSegNetDock


def axon_dock(viewer: Any) -> AutoSegNetDock:
    """A dock in a viewer with 256 x 256 pixels of axons, all of them annotated."""
    from napari_autosegnet.widgets.dock import AutoSegNetDock
    from napari_autosegnet.widgets.files.sample_data import axons_labeled

    (image, about_image, _), (labels, about_labels, _) = axons_labeled()
    viewer.add_image(image[:256, :256], **about_image)
    viewer.add_labels(labels[:256, :256], **about_labels)
    dock = AutoSegNetDock(viewer)
    viewer.window.add_dock_widget(dock)
    return dock
