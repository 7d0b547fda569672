"""Shapes that a drawing is made of: panels, pills, rectangles, and lines with rounded corners."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from napari_autosegnet.figures.canvas import FAINT, INK, PAPER

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Point(NamedTuple):
    """A place on a sheet, in inches from its lower left corner."""

    x: float
    y: float


def panel(axes: Axes, left: float, top: float, width: float, height: float, title: str, note: str, color: str) -> None:
    """A frame with a title on the left and a note on the right of its head."""
    rectangle(axes, left, top - height, width, height, PAPER, "#dfe3e8", zorder=0)
    axes.text(left + 0.22, top - 0.31, title, fontsize=13, color=color, va="center", fontweight="bold")
    axes.text(left + width - 0.22, top - 0.31, note, fontsize=9.5, color=FAINT, va="center", ha="right")


def pill(axes: Axes, center: Point, text: str, color: str, *, faint: bool = False) -> None:
    """A name in a rounded frame."""
    rectangle(
        axes, center.x - 0.36, center.y - 0.14, 0.72, 0.28, PAPER, "#d3d7dd" if faint else color, zorder=4, radius=0.14
    )
    axes.text(
        *center, text, fontsize=9.5, color="#b4bac3" if faint else color, ha="center", va="center_baseline", zorder=6
    )


def box(
    axes: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    fill: str,
    edge: str,
    text: str,
    *,
    ink: str = INK,
    weight: str = "normal",
    name: str | None = None,
) -> None:
    """A `rectangle` with a text in its middle."""
    rectangle(axes, x, y, width, height, fill, edge, zorder=3, name=name)
    middle = (x + width / 2, y + height / 2)
    axes.text(
        *middle, text, fontsize=10, color=ink, ha="center", va="center", linespacing=1.05, fontweight=weight, zorder=6
    )


def rectangle(
    axes: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    fill: str,
    edge: str,
    *,
    zorder: float,
    radius: float = 0.07,
    name: str | None = None,
) -> None:
    """A filled rectangle with rounded corners; ``name`` is its id in an SVG."""
    from matplotlib.patches import FancyBboxPatch

    patch = FancyBboxPatch(
        (x, y),
        width,
        height,
        boxstyle=f"round,pad=0,rounding_size={radius}",
        facecolor=fill,
        edgecolor=edge,
        linewidth=1.2,
        zorder=zorder,
    )
    patch.set_gid(name)
    axes.add_patch(patch)


def line(
    axes: Axes,
    points: Sequence[Point],
    color: str,
    *,
    arrow: bool = False,
    dashed: bool = False,
    width: float = 1.5,
    name: str | None = None,
) -> None:
    """A line through ``points`` with rounded corners, with an arrow head at its end if asked for."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Outline

    vertices: list[Point] = [points[0]]
    codes = [Outline.MOVETO]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        radius = min(0.09, math.dist(before, corner) / 2, math.dist(corner, after) / 2)
        vertices += [_toward(corner, before, radius), corner, _toward(corner, after, radius)]
        codes += [Outline.LINETO, Outline.CURVE3, Outline.CURVE3]
    vertices.append(points[-1])
    codes.append(Outline.LINETO)
    patch = FancyArrowPatch(
        path=Outline([tuple(vertex) for vertex in vertices], codes),
        color=color,
        linewidth=width,
        arrowstyle="-|>,head_length=5,head_width=2.6" if arrow else "-",
        shrinkA=0,
        shrinkB=0,
        fill=arrow,
        linestyle=(0, (3, 3)) if dashed else "solid",
        zorder=3,
        capstyle="butt",
        joinstyle="miter",
    )
    patch.set_gid(name)
    axes.add_patch(patch)


def _toward(start: Point, end: Point, distance: float) -> Point:
    length = math.dist(start, end) or 1.0
    return Point(start.x + (end.x - start.x) * distance / length, start.y + (end.y - start.y) * distance / length)
