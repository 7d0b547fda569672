"""What this program notes in the metadata of layers, of which it needs to know later what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from napari.layers import Layer

#: Key of the notes in a layer's metadata.
METADATA = "napari-autosegnet"

Role = Literal["result", "preview", "uncertainty", "objects", "marker", "strokes"]


def notes(layer: Layer) -> dict[str, Any]:
    """What was noted of a layer; empty for one that this program knows nothing of."""
    kept = layer.metadata.get(METADATA)
    return kept if isinstance(kept, dict) else {}


def note(layer: Layer, **more: Any) -> None:
    """Note more of a layer."""
    layer.metadata[METADATA] = {**notes(layer), **more}


def role(layer: Layer) -> Role | None:
    """What this program made the layer for; None for the user's own layers."""
    return notes(layer).get("role")
