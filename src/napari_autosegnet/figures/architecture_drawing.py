"""An architecture as a drawing and in words."""

# ruff: noqa: RUF001 - the multiplication signs are drawn.

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from napari_autosegnet.architecture import LAYER_INPUTS, LAYER_KINDS, OPERATIONS, Architecture, Layer, Operation
from napari_autosegnet.figures.canvas import FAINT, INK, PAPER, save, sheet
from napari_autosegnet.figures.shapes import Point, box, line, panel, pill, rectangle

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class OperationStyle(NamedTuple):
    """How an operation is drawn: its colors, and its name and meaning in a picture and, shorter, in the dock."""

    fill: str
    edge: str
    name: str
    meaning: str
    short_name: str
    short_meaning: str


_STYLES: dict[Operation, OperationStyle] = {
    "sep_conv_3x3": OperationStyle(
        "#d4e9fb", "#2f7fc1", "sep conv\n3×3", "depthwise-separable convolution", "s3", "separable 3×3"
    ),
    "sep_conv_5x5": OperationStyle(
        "#a3bff0", "#27479b", "sep conv\n5×5", "depthwise-separable convolution", "s5", "separable 5×5"
    ),
    "hdc_3x3": OperationStyle(
        "#fcd9ae", "#d0730b", "HDC\n3×3", "hybrid dilated convolution, rates 1, 2, 3", "HDC", "dilated"
    ),
    "identity": OperationStyle("#f1f2f4", "#9aa1ab", "identity", "passes its input on", "=", "as it is"),
    "conv_3x3": OperationStyle("#cdebd3", "#2e8b57", "conv\n3×3", "convolution", "c3", "convolution 3×3"),
}


def operation_style(operation: Operation) -> OperationStyle:
    """Its style; an operation without one of its own is drawn gray, with its name."""
    words = operation.replace("_", " ")
    plain = OperationStyle("#e6e8eb", "#6c7480", words.replace(" ", "\n"), words, operation[:3], words)
    return _STYLES.get(operation, plain)


#: Colors of the paper's Fig. 6: green down, purple bridge, blue up, red HDC.
KIND_COLORS = {"down": "#3c8d5a", "bridge": "#7d55a5", "up": "#2878a8", "hdc": "#c2493d"}
_KIND_NOTE = {
    "down": "followed by pooling",
    "bridge": "after the hybrid dilated convolution (HDC)",
    "up": "after upsampling; long skips join h[t-1]",
}
#: Colors of what operations read: h[t-2], h[t-1], then the cells.
SOURCE_COLORS = ("#8c6d1f", "#3d4450", "#0d8a72", "#b8336a", "#6a4fb3", "#b35900", "#3b7dd8", "#5b8c00", "#a33b3b")


def describe_architecture(architecture: Architecture) -> str:
    """The architecture in words, for the terminal: a line per cell, the outputs, the long skips."""
    lines = []
    for kind in LAYER_KINDS:
        layer = architecture.layer(kind)
        for index, cell in enumerate(layer.cells):
            nodes = " + ".join(f"{node.operation}({_source_name(node.input)})" for node in cell.nodes)
            lines.append(f"{kind if index == 0 else '':7} cell {index + 1} = {nodes}")
        lines.append(f"{'':7} output = {' | '.join(f'cell {index + 1}' for index in layer.loose_ends)}")
    skips = ", ".join("yes" if skip else "no" for skip in architecture.skips)
    lines.append(f"long skips, from the bridge outwards: {skips}")
    counts = Counter(node.operation for node in architecture.nodes)
    lines.append("operations: " + ", ".join(f"{counts[name]} {name}" for name in OPERATIONS if counts[name]))
    return "\n".join(lines)


def draw_architecture(architecture: Architecture, path: Path, *, levels: int | None = None) -> None:
    """Draw an architecture: the network as a U with its long skips, and the three searched layers.

    Parameters
    ----------
    architecture
        What to draw.
    path
        File to write; PNG, SVG or PDF by its suffix.
    levels
        Down layers of the network that is drawn; as many as there are skip bits by default.

    Raises
    ------
    UserError
        When the suffix is none of these, or the file cannot be written.
    """
    plans = {kind: _LayerPlan(architecture.layer(kind)) for kind in LAYER_KINDS}
    levels = len(architecture.skips) if levels is None else levels
    column = max(6.0, *(plan.width for plan in plans.values()))
    top = max(plans["down"].height, _overview_height(levels))
    bottom = max(plans["bridge"].height, plans["up"].height)
    margin, gap, legend = 0.3, 0.3, 0.62
    width = 2 * column + gap + 2 * margin
    height = top + bottom + 2 * gap + legend + margin
    figure, axes = sheet(width, height)
    left, right = margin, margin + column + gap
    row = height - margin
    _draw_overview(axes, architecture, levels, left, row, column, top)
    plans["down"].draw(axes, "down", right, row, column, top)
    row -= top + gap
    plans["bridge"].draw(axes, "bridge", left, row, column, bottom)
    plans["up"].draw(axes, "up", right, row, column, bottom)
    _draw_legend(axes, architecture, left, legend * 0.58, width - 2 * margin)
    save(figure, path, title="Architecture", description=describe_architecture(architecture))


# ----------------------------------------------------------------------------------------------
# The drawing of an architecture, in inches from the lower left corner
# ----------------------------------------------------------------------------------------------

_OP_WIDTH, _OP_HEIGHT = 0.98, 0.52
_CELL_WIDTH, _CELL_HEIGHT = 2 * _OP_WIDTH + 0.42, 1.34
_COLUMN_GAP = 0.24
_LANE = 0.17
_LABELS = 1.16  # room left of the cells for the names of the inputs
_HEAD = 0.62


class _LayerPlan:
    """Where the parts of a layer go.

    Each cell has a column of its own and stands in the row below the last cell that it reads. Each
    source (an input or a cell that is read) has one horizontal lane below its row, from which lines drop
    into the operations that read it: no line crosses a box, because above a cell its column is
    empty down to the lanes, and below it too.
    """

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.rows: list[int] = []
        for cell in layer.cells:
            reads = [self.rows[node.input - LAYER_INPUTS] for node in cell.nodes if node.input >= LAYER_INPUTS]
            self.rows.append(max(reads, default=-1) + 1)
        loose = layer.loose_ends
        # Lanes below each row: those of the cells in it that are read.
        self.lanes = [
            [index for index, row in enumerate(self.rows) if row == r and index not in loose]
            for r in range(max(self.rows) + 1)
        ]
        cells = len(layer.cells)
        self.width = _LABELS + cells * _CELL_WIDTH + (cells - 1) * _COLUMN_GAP + 0.22
        gaps = sum(self._gap(len(lanes)) for lanes in self.lanes)
        self.height = _HEAD + 0.72 + len(self.lanes) * _CELL_HEIGHT + gaps + 0.62

    @staticmethod
    def _gap(lanes: int) -> float:
        return 0.34 + lanes * _LANE

    def draw(self, axes: Axes, kind: str, left: float, top: float, width: float, height: float) -> None:
        color = KIND_COLORS[kind]
        panel(axes, left, top, width, height, f"{kind} layer", _KIND_NOTE[kind], color)
        first = left + _LABELS + (width - self.width) / 2
        centers = [
            first + index * (_CELL_WIDTH + _COLUMN_GAP) + _CELL_WIDTH / 2 for index in range(len(self.layer.cells))
        ]
        spare = (height - self.height) / (len(self.lanes) + 1)
        inputs = top - _HEAD - 0.12
        lane_of: dict[int, float] = {0: inputs - 0.02, 1: inputs - 0.36}
        y = inputs - 0.72 - spare / 2
        tops: list[float] = []
        for lanes in self.lanes:
            tops.append(y)
            y -= _CELL_HEIGHT
            for place, cell in enumerate(lanes):
                lane_of[LAYER_INPUTS + cell] = y - 0.17 - place * _LANE - spare / 2
            y -= self._gap(len(lanes)) + spare
        output = y + spare / 2 + 0.02
        for source in range(LAYER_INPUTS):
            is_read = source in self.layer.inputs_read
            center = Point(first - 0.56, lane_of[source])
            pill(axes, center, _source_name(source), SOURCE_COLORS[source], faint=not is_read)
        for source, lane in lane_of.items():
            self._draw_source(axes, source, lane, first, centers, tops)
        for index in range(len(self.layer.cells)):
            self._draw_cell(axes, kind, index, centers[index], tops[self.rows[index]])
        self._draw_output(axes, centers, tops, output)

    def _draw_source(
        self, axes: Axes, source: int, lane: float, first: float, centers: list[float], tops: list[float]
    ) -> None:
        """The lane of an input or a cell, and the lines from it into the operations that read it."""
        targets = [
            Point(_operation_x(centers[index], place), tops[self.rows[index]] - 0.12)
            for index, cell in enumerate(self.layer.cells)
            for place, node in enumerate(cell.nodes)
            if node.input == source
        ]
        if not targets:
            return
        color = SOURCE_COLORS[source % len(SOURCE_COLORS)]
        if source < LAYER_INPUTS:
            start = [Point(first - 0.22, lane)]
        else:
            cell = source - LAYER_INPUTS
            start = [Point(centers[cell], tops[self.rows[cell]] - _CELL_HEIGHT), Point(centers[cell], lane)]
        last = max(target.x for target in targets)
        for target in targets:
            if target.x == last:
                line(axes, [*start, Point(target.x, lane), target], color, arrow=True)
            else:
                line(axes, [Point(target.x, lane), target], color, arrow=True)
                axes.plot([target.x], [lane], marker="o", markersize=4.5, color=color, zorder=4)

    def _draw_cell(self, axes: Axes, kind: str, index: int, center: float, top: float) -> None:
        left, bottom = center - _CELL_WIDTH / 2, top - _CELL_HEIGHT
        rectangle(axes, left, bottom, _CELL_WIDTH, _CELL_HEIGHT, "#fafbfc", "#c9ced6", zorder=2)
        source = LAYER_INPUTS + index
        color = FAINT if index in self.layer.loose_ends else SOURCE_COLORS[source % len(SOURCE_COLORS)]
        axes.text(left + 0.1, bottom + 0.1, f"cell {index + 1}", fontsize=9, color=color, va="bottom", zorder=6)
        plus = Point(center, top - 1.0)
        operations = top - 0.12 - _OP_HEIGHT
        for place, node in enumerate(self.layer.cells[index].nodes):
            fill, edge, text, *_ = operation_style(node.operation)
            x = _operation_x(center, place)
            name = f"{kind}-{index}-{place}-{node.operation}"
            box(axes, x - _OP_WIDTH / 2, operations, _OP_WIDTH, _OP_HEIGHT, fill, edge, text, name=name)
            line(axes, [Point(x, operations), Point(x, plus.y), plus], INK)
        axes.plot(*plus, marker="o", markersize=12.5, markerfacecolor=PAPER, markeredgecolor=INK, zorder=5)
        axes.plot(*plus, marker="+", markersize=8, color=INK, markeredgewidth=1.3, zorder=6)
        line(axes, [Point(center, plus.y), Point(center, bottom)], INK)

    def _draw_output(self, axes: Axes, centers: list[float], tops: list[float], y: float) -> None:
        loose = self.layer.loose_ends
        left = min(centers[index] for index in loose) - 1.0
        right = max(centers[index] for index in loose) + 1.0
        text = "1×1 convolution" if len(loose) == 1 else "concatenate, 1×1 convolution"
        box(axes, left, y - 0.32, right - left, 0.32, "#e9ecf1", "#6c7480", f"{text}  →  h[t]")
        for index in loose:
            bottom = tops[self.rows[index]] - _CELL_HEIGHT
            line(axes, [Point(centers[index], bottom), Point(centers[index], y)], INK, arrow=True)


def _operation_x(center: float, place: int) -> float:
    return center + (place - 0.5) * (_OP_WIDTH + 0.16)


def _source_name(source: int) -> str:
    return ("h[t-2]", "h[t-1]")[source] if source < LAYER_INPUTS else f"cell {source - LAYER_INPUTS + 1}"


def _overview_height(levels: int) -> float:
    return _HEAD + 1.3 + levels * 0.66


def _draw_overview(
    axes: Axes, architecture: Architecture, levels: int, left: float, top: float, width: float, height: float
) -> None:
    """The network as a U: down on the left, HDC and bridge at the bottom, up on the right."""
    note = f"{levels} down layers" if levels > 1 else "1 down layer"
    panel(axes, left, top, width, height, "network", note, INK)
    block, tall = 1.15, 0.36
    step = (height - _HEAD - 1.3) / levels
    inset = 0.72
    slant = min(0.45, (width - 2 * inset - 2 * block - 0.9) / (2 * levels))
    ys = [top - _HEAD - 0.85 - step * level for level in range(levels + 1)]
    downs = [left + inset + block / 2 + slant * level for level in range(levels + 1)]
    ups = [left + width - inset - block / 2 - slant * level for level in range(levels + 1)]

    def place(x: float, y: float, text: str, color: str) -> None:
        box(axes, x - block / 2, y - tall / 2, block, tall, color, color, text, ink=PAPER, weight="bold")

    def side_note(x: float, y: float, text: str, align: Literal["left", "right"]) -> None:
        axes.text(x, y, text, fontsize=8.5, color=FAINT, ha=align, va="center", zorder=6)

    pill(axes, Point(downs[0], ys[0] + tall / 2 + 0.55), "image", INK)
    pill(axes, Point(ups[0], ys[0] + tall / 2 + 0.55), "classes", INK)
    line(axes, [Point(downs[0], ys[0] + tall / 2 + 0.41), Point(downs[0], ys[0] + tall / 2)], INK, arrow=True)
    line(axes, [Point(ups[0], ys[0] + tall / 2), Point(ups[0], ys[0] + tall / 2 + 0.41)], INK, arrow=True)
    side_note(downs[0] + 0.1, ys[0] + tall / 2 + 0.24, "stem", "left")
    side_note(ups[0] - 0.1, ys[0] + tall / 2 + 0.24, "1×1, softmax", "right")
    for level in range(levels):
        place(downs[level], ys[level], "down", KIND_COLORS["down"])
        place(ups[level], ys[level], "up", KIND_COLORS["up"])
        side_note(downs[level] - block / 2 - 0.08, ys[level], "1" if level == 0 else f"1/{2**level}", "right")
        ends = [Point(downs[level] + block / 2, ys[level]), Point(ups[level] - block / 2, ys[level])]
        joined = architecture.skip_at(levels - 1 - level)
        middle = (ends[0].x + ends[1].x) / 2
        if joined:
            line(axes, ends, KIND_COLORS["hdc"], arrow=True, width=2.0, name=f"skip-{levels - 1 - level}")
            axes.text(
                middle, ys[level] + 0.05, "long skip", fontsize=8.5, color=KIND_COLORS["hdc"], ha="center", va="bottom"
            )
        else:
            line(axes, ends, "#d3d7dd", dashed=True)
            axes.text(middle, ys[level] + 0.05, "no skip", fontsize=8.5, color="#b4bac3", ha="center", va="bottom")
        lane = downs[level] + slant / 2
        low, high = ys[level + 1] + tall / 2, ys[level] - tall / 2
        line(axes, [Point(lane, high), Point(lane, low)], INK, arrow=True)
        side_note(lane - 0.08, (low + high) / 2, "pool", "right")
        lane = ups[level] - slant / 2
        line(axes, [Point(lane, low), Point(lane, high)], INK, arrow=True)
        side_note(lane + 0.08, (low + high) / 2, "upsample", "left")
    place(downs[-1], ys[-1], "HDC", KIND_COLORS["hdc"])
    side_note(downs[-1] - block / 2 - 0.08, ys[-1], f"1/{2**levels}", "right")
    place(ups[-1], ys[-1], "bridge", KIND_COLORS["bridge"])
    line(axes, [Point(downs[-1] + block / 2, ys[-1]), Point(ups[-1] - block / 2, ys[-1])], INK, arrow=True)


def _draw_legend(axes: Axes, architecture: Architecture, left: float, y: float, width: float) -> None:
    used = [name for name in OPERATIONS if any(node.operation == name for node in architecture.nodes)]
    for index, name in enumerate(used):
        fill, edge, _, meaning, *_ = operation_style(name)
        x = left + 0.1 + index * width / len(OPERATIONS)
        rectangle(axes, x, y - 0.11, 0.34, 0.22, fill, edge, zorder=3)
        axes.text(x + 0.44, y + 0.1, name, fontsize=10, color=INK, va="center", fontweight="bold")
        axes.text(x + 0.44, y - 0.11, meaning, fontsize=8.5, color=FAINT, va="center")
