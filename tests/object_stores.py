"""Small stores of numbered objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_autosegnet.data.annotations import default_classes
from napari_autosegnet.inference.blocks import PyramidPlan, pyramid_levels
from napari_autosegnet.inference.output.ledger import Ledger, instance_ledger_path
from napari_autosegnet.inference.output.store import LabelPyramid
from napari_autosegnet.ome_zarr.new_metadata import image_label, multiscale
from napari_autosegnet.ome_zarr.paths import INSTANCES, LABELS
from napari_autosegnet.ome_zarr.write import list_label, write_group, write_image
from napari_autosegnet.units import Placement


def write_objects(store: Path, objects: np.ndarray, placement: Placement, **more: Any) -> Path:
    """A store of objects (z, y, x) or (y, x) with two levels, in small chunks."""
    volume = objects.reshape((1, *objects.shape)[-3:])
    levels = pyramid_levels(volume.shape, 2)
    about = {"chunks": (2, 8, 8), "dtype": np.uint32, **more}
    pyramid = LabelPyramid(store / INSTANCES, PyramidPlan(levels, (2, 16, 16)), is_2d=objects.ndim == 2, **about)
    version = "0.4" if more.get("zarr_format") == 2 else "0.5"
    entry = multiscale(
        store.stem,
        "zyx"[-objects.ndim :],
        placement,
        [("0", (1, 1, 1)), ("1", (1, 2, 2))],
        version=version,
        type="nearest",
    )
    write_group(
        store,
        {
            "multiscales": [
                multiscale(
                    store.stem, "zyx"[-objects.ndim :], placement, [(f"{INSTANCES}/0", (1, 1, 1))], version=version
                )
            ]
        },
        version,
    )
    list_label(store / "labels", "instances", version)
    write_group(pyramid.folder, {"multiscales": [entry], "image-label": image_label(version=version)}, version)
    pyramid.make()
    for level in (0, 1):
        for place in np.ndindex(pyramid.plan.grid(level)):
            core = pyramid.plan.core(level, place)
            step = 2**level
            part = volume[:, ::step, ::step][tuple(slice(*span) for span in core)]
            pyramid.write(core, part, level)
    return store


def write_classes(store: Path, labels: np.ndarray, names: Sequence[str], of_objects: Sequence[str]) -> None:
    """Say of which classes a store of objects is, as a prediction does; in ``labels``, 1 is the first of the names."""
    write_image(
        store / LABELS,
        labels.shape,
        np.uint8,
        (lambda _: labels) if labels.ndim == 2 else labels.__getitem__,
        placement=Placement(),
        classes=list(enumerate(default_classes(names), start=1)),
    )
    list_label(store / "labels", "segmentation", "0.5")
    settings = {"instance_classes": [names.index(name) for name in of_objects]}
    Ledger.begin(instance_ledger_path(store), {"settings": settings})
