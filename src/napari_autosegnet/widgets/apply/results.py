"""Results of whole stacks: their layers, the model that made them, and their probabilities."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from napari_autosegnet.data.images import open_labels
from napari_autosegnet.inference.output.file_kinds import file_kind
from napari_autosegnet.ome_zarr.paths import INSTANCES, LABELS, PROBABILITIES
from napari_autosegnet.widgets.apply.section_model import summarize
from napari_autosegnet.widgets.files.readers import LayerData, labels_layer, notes_of_edits, placement_of
from napari_autosegnet.widgets.files.stack_array import StackArray
from napari_autosegnet.widgets.layers.class_colors import numbered, result_layer
from napari_autosegnet.widgets.layers.notes import METADATA


def result_layer_of(out: Path, model: Path) -> LayerData:
    """Layer of a result: of a store the store itself, of a file what is looked at is read."""
    if file_kind(out) is None:
        return labels_layer(out / LABELS)
    stack = open_labels(out)
    about = result_layer(numbered(summarize(model).classes), name=stack.name, **placement_of(stack))
    about["metadata"][METADATA]["is_file"] = True
    return StackArray(stack, "yx" if stack.is_2d else "zyx"), about, "labels"


def objects_layer_of(out: Path) -> tuple[Any, dict[str, Any], tuple[str, ...]]:
    """Layer of the numbered objects of a result, in napari's own colors: one per object; and what is doubtful of it."""
    data, about, _ = labels_layer(out / INSTANCES)
    about["metadata"] = {METADATA: {"role": "objects"}}
    return data, about, notes_of_edits(out)


def model_of(out: Path) -> str | None:
    """Fingerprint of the model that made a result; None when it is not known."""
    from napari_autosegnet.inference.output.ledger import Ledger, ledger_path

    model = Ledger.parts_of(ledger_path(out)).get("model")
    return model if isinstance(model, str) else None


def has_probabilities(out: Path) -> bool:
    """Whether the class probabilities of a result were written."""
    return (out / PROBABILITIES / "0").is_dir()


def probabilities_of(out: Path) -> Callable[[int], Any] | None:
    """Reads the class probabilities (K, y, x) of a section of a result; None when it holds none. For a thread."""
    from napari_autosegnet.ome_zarr.nodes import open_array

    if not has_probabilities(out):
        return None
    array = open_array(out / PROBABILITIES / "0")

    def read(section: int) -> Any:
        return np.asarray(array[:, section] if array.ndim == 4 else array[:])

    return read
