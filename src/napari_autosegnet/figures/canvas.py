"""What all figures share: paper, ink and how a file is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_autosegnet.errors import UserError
from napari_autosegnet.files import refuse_foreign, replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Who made a drawing, as matplotlib writes it into the metadata of each format: no other program's picture says this.
_MAKER = "napari-autosegnet"
_MAKER_KEY = {"png": "Software", "svg": "Creator", "pdf": "Creator"}
_MADE_HERE = {
    "png": rb"tEXtSoftware\0%s",
    "svg": rb"<dc:creator>\s*<cc:Agent>\s*<dc:title>%s</dc:title>",
    "pdf": rb"/Creator \(%s\)",
}
FORMATS = {".png": "png", ".svg": "svg", ".pdf": "pdf"}
INK = "#2b2f36"
FAINT = "#8a9099"
PAPER = "#ffffff"


def figure_of(width: float, height: float, dpi: float = 150) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=dpi, facecolor=PAPER)


def sheet(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure to draw on in inches, from its lower left corner."""
    figure = figure_of(width, height, dpi=120)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.set_axis_off()
    return figure, axes


def plain_axes(axes: Axes, title: str) -> None:
    """A title, a faint grid, and no frame."""
    axes.set_title(title, fontsize=11, color=INK, loc="left")
    axes.grid(color="#e6e9ed", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, labelsize=8)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color("#c9ced6")


def save(figure: Figure, path: Path, *, title: str, description: str | None = None) -> None:
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"cannot draw {path.name}: give a file name that ends in {', '.join(FORMATS)}")
    refuse_foreign(path, lambda content: re.search(_MADE_HERE[kind] % _MAKER.encode(), content) is not None)
    metadata: dict[str, Any] = {"Title": title, _MAKER_KEY[kind]: _MAKER}
    if kind == "svg":
        # Without the date the same content gives the same file.
        metadata |= {"Description": description or title, "Date": None}
    elif kind == "png" and description:
        metadata["Description"] = description.encode("ascii", "replace").decode()
    with replacing(path) as temporary:
        figure.savefig(temporary, format=kind, metadata=metadata)
