"""Pictures of architectures, runs and results, and an architecture in words.

Everything is drawn on matplotlib figures of its own, without pyplot: no display is needed and no
state is shared. Files are PNG, SVG or PDF by their suffix.
"""

from napari_autosegnet.figures.architecture_drawing import (
    KIND_COLORS,
    SOURCE_COLORS,
    describe_architecture,
    draw_architecture,
    operation_style,
)
from napari_autosegnet.figures.curves import draw_curves
from napari_autosegnet.figures.menu import draw_menu
from napari_autosegnet.figures.sections import draw_uncertainty, normalized_entropy, overlay

__all__ = [
    "KIND_COLORS",
    "SOURCE_COLORS",
    "describe_architecture",
    "draw_architecture",
    "draw_curves",
    "draw_menu",
    "draw_uncertainty",
    "normalized_entropy",
    "operation_style",
    "overlay",
]
