"""Images to predict from, and predictions that are refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from napari_autosegnet.data.images import ImageStack, open_image
from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.compute.sections import predicted_sections
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.model import Model
from napari_autosegnet.settings import PredictSettings

SETTINGS = PredictSettings(halo=4, tile=64)
OVERWRITE = SETTINGS.model_copy(update={"overwrite": True})


def write_ome(path: Path, array: np.ndarray, version: str = "0.5", axes: str = "zyx") -> Path:
    """An OME-Zarr image of one level."""
    kinds = {"t": "time", "c": "channel"}
    about: dict[str, Any] = {
        "axes": [{"name": axis, "type": kinds.get(axis, "space")} for axis in axes],
        "datasets": [
            {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0] * len(axes)}]},
        ],
    }
    if version == "0.4":
        attributes: dict[str, Any] = {"multiscales": [about | {"version": "0.4"}]}
    else:
        attributes = {"ome": {"version": "0.5", "multiscales": [about]}}
    group = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3, attributes=attributes)
    encoding: Any = {"name": "v2" if version == "0.4" else "default", "separator": "/"}
    group.create_array("0", data=array, chunk_key_encoding=encoding)
    return path


def refused(model: Model, image: Path, out: Path | None, said: str, **more: Any) -> None:
    """A prediction, also one that overwrites, is refused and leaves all files as they are."""
    mask = None if "mask" not in more else open_image(more.pop("mask"))
    for settings in (SETTINGS, OVERWRITE):
        with pytest.raises(UserError, match=said) as raised:
            predict_volume(model, open_image(image), out, settings.model_copy(update=more), mask=mask)
        assert "\n" not in str(raised.value) and "--overwrite" not in str(raised.value)


def labels_of(result: Path) -> np.ndarray:
    """Labels of a result at full resolution."""
    return np.asarray(zarr.open_group(result, mode="r")["labels/segmentation/0"])


def predict_sections(
    model: Any, image: ImageStack, sections: Sequence[int] | None = None, settings: Any = None, **more: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n, y, x) and probabilities (K, n, y, x) of all sections, or of some."""
    predicted = predicted_sections(model, image, settings or PredictSettings(), sections=sections, **more)
    labels, probabilities = zip(*predicted, strict=True)
    return np.stack(labels), np.stack(probabilities, axis=1)
