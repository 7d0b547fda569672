"""Pictures of architectures, runs and results, and an architecture in words.

Everything is drawn on matplotlib figures of its own, without pyplot: no display is needed and no
state is shared. Files are PNG, SVG or PDF by their suffix.
"""

# ruff: noqa: RUF001 - the multiplication signs are drawn.

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from napari_autosegnet.architecture import LAYER_INPUTS, LAYER_KINDS, OPERATIONS, Architecture, Layer, Operation
from napari_autosegnet.errors import UserError
from napari_autosegnet.run import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FORMATS = {".png": "png", ".svg": "svg", ".pdf": "pdf"}
_INK = "#2b2f36"
_FAINT = "#8a9099"
_PAPER = "#ffffff"

#: Fill and edge of an operation, its name in a box and its meaning in the legend.
OPERATION_STYLE: dict[Operation, tuple[str, str, str, str]] = {
    "sep_conv_3x3": ("#d4e9fb", "#2f7fc1", "sep conv\n3×3", "depthwise-separable convolution"),
    "sep_conv_5x5": ("#a3bff0", "#27479b", "sep conv\n5×5", "depthwise-separable convolution"),
    "hdc_3x3": ("#fcd9ae", "#d0730b", "HDC\n3×3", "hybrid dilated convolution, rates 1, 2, 3"),
    "identity": ("#f1f2f4", "#9aa1ab", "identity", "passes its input on"),
}
#: Colours of the paper's Fig. 6: green down, purple bridge, blue up, red HDC.
KIND_COLORS = {"down": "#3c8d5a", "bridge": "#7d55a5", "up": "#2878a8", "hdc": "#c2493d"}
_KIND_NOTE = {
    "down": "followed by pooling",
    "bridge": "after the hybrid dilated convolution (HDC)",
    "up": "after upsampling; long skips join h[t-1]",
}
#: Colours of what operations read: h[t-2], h[t-1], then the cells.
SOURCE_COLORS = ("#8c6d1f", "#3d4450", "#0d8a72", "#b8336a", "#6a4fb3", "#b35900", "#3b7dd8", "#5b8c00", "#a33b3b")


class NamedColor(Protocol):
    """A class as figures need it: its name and its colour (``#rrggbb``)."""

    @property
    def name(self) -> str: ...

    @property
    def color(self) -> str: ...


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
    panels = {kind: _LayerPlan(architecture.layer(kind)) for kind in LAYER_KINDS}
    levels = len(architecture.skips) if levels is None else levels
    column = max(6.0, *(panel.width for panel in panels.values()))
    top = max(panels["down"].height, _overview_height(levels))
    bottom = max(panels["bridge"].height, panels["up"].height)
    margin, gap, legend = 0.3, 0.3, 0.62
    width = 2 * column + gap + 2 * margin
    height = top + bottom + 2 * gap + legend + margin
    figure, axes = _sheet(width, height)
    left, right = margin, margin + column + gap
    row = height - margin
    _draw_overview(axes, architecture, levels, left, row, column, top)
    panels["down"].draw(axes, "down", right, row, column, top)
    row -= top + gap
    panels["bridge"].draw(axes, "bridge", left, row, column, bottom)
    panels["up"].draw(axes, "up", right, row, column, bottom)
    _draw_legend(axes, architecture, left, legend * 0.58, width - 2 * margin)
    _save(figure, path, title="Architecture", description=describe_architecture(architecture))


def draw_curves(events: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Draw the course of a run from its events: whatever of search and training there is.

    Of a search the reward, the loss of the shared weights, the controller's entropy and the share of identity;
    of a training the loss and the IoU of each class. Alarms are drawn as dashed lines. Where an
    epoch was computed twice, because a run was resumed, the later one counts.

    Raises
    ------
    UserError
        When no epoch was finished yet, or the file cannot be written.
    """
    search, train = _Course("search"), _Course("train")
    alarms: list[float] = []
    for event in events:
        search.take(event)
        train.take(event)
        if event.get("event") == "alarm" and search.epochs:
            alarms.append(max(search.epochs))
    ious = [values["iou"] for values in train.epochs.values() if isinstance(values.get("iou"), Mapping)]
    class_names = list(dict.fromkeys(name for iou in ious for name in iou))
    plots = [
        (search, "search: reward (mean IoU)", {"reward": "reward", "baseline": "baseline", "best_reward": "best"}),
        (search, "search: loss of the shared weights", {"loss": "loss"}),
        (search, "search: entropy of the controller", {"entropy": "entropy"}),
        (search, "search: share of identity", {"identity_share": "share of identity"}),
        (train, "training: loss", {"loss": "loss"}),
        (train, "training: IoU", {"mean_iou": "mean", **{f"iou/{name}": name for name in class_names}}),
    ]
    drawn = [
        (title, course, {label: points for key, label in keys.items() if (points := course.points(key))})
        for course, title, keys in plots
    ]
    drawn = [plot for plot in drawn if plot[2]]
    if not drawn:
        raise UserError("there is no curve to draw yet: the run has not finished its first epoch")
    columns = min(3, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    figure = _figure(4.4 * columns, 3.2 * rows)
    for index, (title, course, curves) in enumerate(drawn):
        axes = figure.add_subplot(rows, columns, index + 1)
        for color, (label, points) in zip(_cycle(len(curves)), curves.items(), strict=True):
            few = len(points) < 30
            axes.plot(*zip(*points, strict=True), color=color, label=label, linewidth=1.6, marker="." if few else None)
        if course is search:
            for alarm in alarms:
                axes.axvline(alarm, color=KIND_COLORS["hdc"], linewidth=1, linestyle="--")
        _plain(axes, title)
        axes.set_xlabel("epoch", color=_FAINT)
        if len(curves) > 1:
            axes.legend(frameon=False, fontsize=8)
    figure.set_layout_engine("constrained")
    _save(figure, path, title="Course of a run")


def overlay(
    image: npt.NDArray[Any],
    labels: npt.NDArray[np.uint8],
    classes: Sequence[NamedColor],
    path: Path,
    truth: npt.NDArray[np.uint8] | None = None,
    *,
    scale: tuple[float, float] | None = None,
    unit: str | None = None,
) -> None:
    """Show a section beside its segmentation: image, prediction and, with ``truth``, truth and where they differ.

    Parameters
    ----------
    image
        Grey values ``(y, x)``.
    labels
        Class numbers ``(y, x)``: 1..K, 0 where there is none.
    classes
        Names and colours of the classes, in the order of their numbers.
    path
        File to write; PNG, SVG or PDF by its suffix.
    truth
        Annotated class numbers ``(y, x)``, 0 where not annotated.
    scale
        Size of a pixel ``(y, x)`` in ``unit``; a scale bar is drawn when both are given.
    unit
        Unit of length.

    Raises
    ------
    UserError
        When the shapes differ, or the file cannot be written.
    """
    for name, array in {"labels": labels, "truth": truth}.items():
        if array is not None and array.shape != image.shape:
            raise UserError(f"the image is {image.shape} and the {name} {array.shape}; give arrays of one section")
    grey = _grey(image)
    pictures = [("image", np.repeat(grey[..., None], 3, axis=2)), ("prediction", _colored(grey, labels, classes))]
    if truth is not None:
        wrong = (labels != truth) & (truth > 0)
        share = wrong.sum() / max(1, int((truth > 0).sum()))
        pictures.append(("truth", _colored(grey, truth, classes)))
        pictures.append((f"differ: {share:.1%}", _marked(grey, wrong, truth > 0)))
    side = 4.0
    high = side * image.shape[0] / image.shape[1]
    width, height = len(pictures) * side + (len(pictures) - 1) * 0.15 + 0.3, high + 0.95
    # As many dots as pixels, so that outlines of one pixel stay; PDF and SVG scale by themselves.
    figure = _figure(width, height, dpi=min(300.0, max(100.0, image.shape[1] / side)))
    for index, (title, picture) in enumerate(pictures):
        place = ((0.15 + index * (side + 0.15)) / width, 0.55 / height, side / width, high / height)
        axes = figure.add_axes(place)
        axes.imshow(picture, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        axes.set_title(title, fontsize=11, color=_INK, pad=5)
        if index == 0 and scale is not None and unit:
            _scale_bar(axes, image.shape, scale, unit)
    _class_legend(figure, classes, with_differences=truth is not None)
    _save(figure, path, title="Segmentation")


def draw_uncertainty(probabilities: npt.NDArray[Any], path: Path, *, image: npt.NDArray[Any] | None = None) -> None:
    """Show where a network is unsure: the entropy of its class probabilities, 0 (sure) to 1 (all classes alike).

    Parameters
    ----------
    probabilities
        ``(K, y, x)``; floats, or uint8 as in a stored prediction.
    path
        File to write; PNG, SVG or PDF by its suffix.
    image
        Grey values ``(y, x)`` to show beside it.

    Raises
    ------
    UserError
        When there are not at least two classes, or the file cannot be written.
    """
    entropy = normalised_entropy(probabilities)
    side = 4.6
    high = side * entropy.shape[0] / entropy.shape[1]
    panels = 1 if image is None else 2
    figure = _figure(panels * side + 1.0, high + 0.5, dpi=min(300.0, max(100.0, entropy.shape[1] / side)))
    figure.set_layout_engine("constrained")
    if image is not None:
        axes = figure.add_subplot(1, panels, 1)
        axes.imshow(_grey(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title("image", fontsize=11, color=_INK)
    axes = figure.add_subplot(1, panels, panels)
    shown = axes.imshow(entropy, cmap="magma", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(f"uncertainty (mean {entropy.mean():.3f})", fontsize=11, color=_INK)
    bar = figure.colorbar(shown, ax=axes, fraction=0.045, pad=0.02)
    bar.set_label("entropy, share of the largest", color=_FAINT, fontsize=9)
    bar.outline.set_visible(False)
    _save(figure, path, title="Uncertainty")


def normalised_entropy(probabilities: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Entropy ``(y, x)`` of class probabilities ``(K, y, x)``, divided by that of K equal ones.

    Raises
    ------
    UserError
        When there are not at least two classes.
    """
    if probabilities.ndim != 3 or len(probabilities) < 2:
        raise UserError(
            f"uncertainty needs probabilities (classes, y, x) of two or more classes, not {probabilities.shape}"
        )
    shares = probabilities.astype(np.float64)
    total = shares.sum(axis=0)
    shares /= np.where(total > 0, total, 1)
    logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
    entropy: npt.NDArray[np.float64] = -(shares * logs).sum(axis=0) / math.log(len(shares))
    return entropy


# ----------------------------------------------------------------------------------------------
# The drawing of an architecture, in inches from the lower left corner
# ----------------------------------------------------------------------------------------------

_OP_WIDTH, _OP_HEIGHT = 0.98, 0.52
_CELL_WIDTH, _CELL_HEIGHT = 2 * _OP_WIDTH + 0.42, 1.34
_COLUMN_GAP = 0.24
_LANE = 0.17
_LABELS = 1.16  # room left of the cells for the names of the inputs
_HEAD = 0.62


class _Point(NamedTuple):
    x: float
    y: float


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
        return 0.34 + max(0, lanes) * _LANE

    def draw(self, axes: Axes, kind: str, left: float, top: float, width: float, height: float) -> None:
        color = KIND_COLORS[kind]
        _panel(axes, left, top, width, height, f"{kind} layer", _KIND_NOTE[kind], color)
        first = left + _LABELS + (width - self.width) / 2
        centres = [
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
            read = source in self.layer.inputs_read
            _pill(
                axes,
                _Point(first - 0.56, lane_of[source]),
                _source_name(source),
                SOURCE_COLORS[source],
                faint=not read,
            )
        for source, lane in lane_of.items():
            self._draw_source(axes, source, lane, first, centres, tops)
        for index in range(len(self.layer.cells)):
            self._draw_cell(axes, kind, index, centres[index], tops[self.rows[index]])
        self._draw_output(axes, centres, tops, output)

    def _draw_source(
        self, axes: Axes, source: int, lane: float, first: float, centres: list[float], tops: list[float]
    ) -> None:
        """The lane of an input or a cell, and the lines from it into the operations that read it."""
        targets = [
            _Point(_operation_x(centres[index], place), tops[self.rows[index]] - 0.12)
            for index, cell in enumerate(self.layer.cells)
            for place, node in enumerate(cell.nodes)
            if node.input == source
        ]
        if not targets:
            return
        color = SOURCE_COLORS[source % len(SOURCE_COLORS)]
        if source < LAYER_INPUTS:
            start = [_Point(first - 0.22, lane)]
        else:
            cell = source - LAYER_INPUTS
            start = [_Point(centres[cell], tops[self.rows[cell]] - _CELL_HEIGHT), _Point(centres[cell], lane)]
        last = max(target.x for target in targets)
        for target in targets:
            if target.x == last:
                _line(axes, [*start, _Point(target.x, lane), target], color, arrow=True)
            else:
                _line(axes, [_Point(target.x, lane), target], color, arrow=True)
                axes.plot([target.x], [lane], marker="o", markersize=4.5, color=color, zorder=4)

    def _draw_cell(self, axes: Axes, kind: str, index: int, centre: float, top: float) -> None:
        _rectangle(
            axes,
            centre - _CELL_WIDTH / 2,
            top - _CELL_HEIGHT,
            _CELL_WIDTH,
            _CELL_HEIGHT,
            "#fafbfc",
            "#c9ced6",
            zorder=2,
        )
        source = LAYER_INPUTS + index
        color = _FAINT if index in self.layer.loose_ends else SOURCE_COLORS[source % len(SOURCE_COLORS)]
        axes.text(
            centre - _CELL_WIDTH / 2 + 0.1,
            top - _CELL_HEIGHT + 0.1,
            f"cell {index + 1}",
            fontsize=9,
            color=color,
            va="bottom",
            zorder=6,
        )
        plus = _Point(centre, top - 1.0)
        for place, node in enumerate(self.layer.cells[index].nodes):
            fill, edge, text, _ = OPERATION_STYLE[node.operation]
            x = _operation_x(centre, place)
            _rectangle(
                axes,
                x - _OP_WIDTH / 2,
                top - 0.12 - _OP_HEIGHT,
                _OP_WIDTH,
                _OP_HEIGHT,
                fill,
                edge,
                zorder=3,
                name=f"{kind}-{index}-{place}-{node.operation}",
            )
            axes.text(
                x,
                top - 0.12 - _OP_HEIGHT / 2,
                text,
                fontsize=10,
                color=_INK,
                ha="center",
                va="center",
                linespacing=1.05,
                zorder=6,
            )
            _line(axes, [_Point(x, top - 0.12 - _OP_HEIGHT), _Point(x, plus.y), plus], _INK)
        axes.plot(*plus, marker="o", markersize=12.5, markerfacecolor=_PAPER, markeredgecolor=_INK, zorder=5)
        axes.plot(*plus, marker="+", markersize=8, color=_INK, markeredgewidth=1.3, zorder=6)
        _line(axes, [_Point(centre, plus.y), _Point(centre, top - _CELL_HEIGHT)], _INK)

    def _draw_output(self, axes: Axes, centres: list[float], tops: list[float], y: float) -> None:
        loose = self.layer.loose_ends
        left = min(centres[index] for index in loose) - 1.0
        right = max(centres[index] for index in loose) + 1.0
        text = "1×1 convolution" if len(loose) == 1 else "concatenate, 1×1 convolution"
        _rectangle(axes, left, y - 0.32, right - left, 0.32, "#e9ecf1", "#6c7480", zorder=3)
        axes.text(
            (left + right) / 2,
            y - 0.165,
            f"{text}  →  h[t]",
            fontsize=10,
            color=_INK,
            ha="center",
            va="center",
            zorder=6,
        )
        for index in loose:
            _line(
                axes,
                [_Point(centres[index], tops[self.rows[index]] - _CELL_HEIGHT), _Point(centres[index], y)],
                _INK,
                arrow=True,
            )


def _operation_x(centre: float, place: int) -> float:
    return centre + (place - 0.5) * (_OP_WIDTH + 0.16)


def _source_name(source: int) -> str:
    return ("h[t-2]", "h[t-1]")[source] if source < LAYER_INPUTS else f"cell {source - LAYER_INPUTS + 1}"


def _overview_height(levels: int) -> float:
    return _HEAD + 1.3 + levels * 0.66


def _draw_overview(
    axes: Axes, architecture: Architecture, levels: int, left: float, top: float, width: float, height: float
) -> None:
    """The network as a U: down on the left, HDC and bridge at the bottom, up on the right."""
    note = f"{levels} down layers" if levels > 1 else "1 down layer"
    _panel(axes, left, top, width, height, "network", note, _INK)
    block, tall = 1.15, 0.36
    step = (height - _HEAD - 1.3) / levels
    inset = 0.72
    slant = min(0.45, (width - 2 * inset - 2 * block - 0.9) / (2 * levels))
    ys = [top - _HEAD - 0.85 - step * level for level in range(levels + 1)]
    downs = [left + inset + block / 2 + slant * level for level in range(levels + 1)]
    ups = [left + width - inset - block / 2 - slant * level for level in range(levels + 1)]

    def place(x: float, y: float, text: str, color: str) -> None:
        _rectangle(axes, x - block / 2, y - tall / 2, block, tall, color, color, zorder=3)
        axes.text(x, y, text, fontsize=10, color=_PAPER, ha="center", va="center", zorder=6, fontweight="bold")

    def side_note(x: float, y: float, text: str, align: Literal["left", "right"]) -> None:
        axes.text(x, y, text, fontsize=8.5, color=_FAINT, ha=align, va="center", zorder=6)

    _pill(axes, _Point(downs[0], ys[0] + tall / 2 + 0.55), "image", _INK)
    _pill(axes, _Point(ups[0], ys[0] + tall / 2 + 0.55), "classes", _INK)
    _line(axes, [_Point(downs[0], ys[0] + tall / 2 + 0.41), _Point(downs[0], ys[0] + tall / 2)], _INK, arrow=True)
    _line(axes, [_Point(ups[0], ys[0] + tall / 2), _Point(ups[0], ys[0] + tall / 2 + 0.41)], _INK, arrow=True)
    side_note(downs[0] + 0.1, ys[0] + tall / 2 + 0.24, "stem", "left")
    side_note(ups[0] - 0.1, ys[0] + tall / 2 + 0.24, "1×1, softmax", "right")
    for level in range(levels):
        place(downs[level], ys[level], "down", KIND_COLORS["down"])
        place(ups[level], ys[level], "up", KIND_COLORS["up"])
        side_note(downs[level] - block / 2 - 0.08, ys[level], "1" if level == 0 else f"1/{2**level}", "right")
        ends = [_Point(downs[level] + block / 2, ys[level]), _Point(ups[level] - block / 2, ys[level])]
        joined = architecture.skip_at(levels - 1 - level)
        middle = (ends[0].x + ends[1].x) / 2
        if joined:
            _line(axes, ends, KIND_COLORS["hdc"], arrow=True, width=2.0, name=f"skip-{levels - 1 - level}")
            axes.text(
                middle, ys[level] + 0.05, "long skip", fontsize=8.5, color=KIND_COLORS["hdc"], ha="center", va="bottom"
            )
        else:
            _line(axes, ends, "#d3d7dd", dashed=True)
            axes.text(middle, ys[level] + 0.05, "no skip", fontsize=8.5, color="#b4bac3", ha="center", va="bottom")
        lane = downs[level] + slant / 2
        low, high = ys[level + 1] + tall / 2, ys[level] - tall / 2
        _line(axes, [_Point(lane, high), _Point(lane, low)], _INK, arrow=True)
        side_note(lane - 0.08, (low + high) / 2, "pool", "right")
        lane = ups[level] - slant / 2
        _line(axes, [_Point(lane, low), _Point(lane, high)], _INK, arrow=True)
        side_note(lane + 0.08, (low + high) / 2, "upsample", "left")
    place(downs[-1], ys[-1], "HDC", KIND_COLORS["hdc"])
    side_note(downs[-1] - block / 2 - 0.08, ys[-1], f"1/{2**levels}", "right")
    place(ups[-1], ys[-1], "bridge", KIND_COLORS["bridge"])
    _line(axes, [_Point(downs[-1] + block / 2, ys[-1]), _Point(ups[-1] - block / 2, ys[-1])], _INK, arrow=True)


def _draw_legend(axes: Axes, architecture: Architecture, left: float, y: float, width: float) -> None:
    used = [name for name in OPERATIONS if any(node.operation == name for node in architecture.nodes)]
    for index, name in enumerate(used):
        fill, edge, _, meaning = OPERATION_STYLE[name]
        x = left + 0.1 + index * width / len(OPERATIONS)
        _rectangle(axes, x, y - 0.11, 0.34, 0.22, fill, edge, zorder=3)
        axes.text(x + 0.44, y + 0.1, name, fontsize=10, color=_INK, va="center", fontweight="bold")
        axes.text(x + 0.44, y - 0.11, meaning, fontsize=8.5, color=_FAINT, va="center")


def _panel(axes: Axes, left: float, top: float, width: float, height: float, title: str, note: str, color: str) -> None:
    _rectangle(axes, left, top - height, width, height, _PAPER, "#dfe3e8", zorder=0)
    axes.text(left + 0.22, top - 0.31, title, fontsize=13, color=color, va="center", fontweight="bold")
    axes.text(left + width - 0.22, top - 0.31, note, fontsize=9.5, color=_FAINT, va="center", ha="right")


def _pill(axes: Axes, centre: _Point, text: str, color: str, *, faint: bool = False) -> None:
    _rectangle(
        axes, centre.x - 0.36, centre.y - 0.14, 0.72, 0.28, _PAPER, "#d3d7dd" if faint else color, zorder=4, radius=0.14
    )
    axes.text(
        *centre, text, fontsize=9.5, color="#b4bac3" if faint else color, ha="center", va="center_baseline", zorder=6
    )


def _rectangle(
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


def _line(
    axes: Axes,
    points: Sequence[_Point],
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

    vertices: list[_Point] = [points[0]]
    codes = [Outline.MOVETO]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        radius = min(0.09, math.dist(before, corner) / 2, math.dist(corner, after) / 2)
        vertices += [_towards(corner, before, radius), corner, _towards(corner, after, radius)]
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


def _towards(start: _Point, end: _Point, distance: float) -> _Point:
    length = math.dist(start, end) or 1.0
    return _Point(start.x + (end.x - start.x) * distance / length, start.y + (end.y - start.y) * distance / length)


# ----------------------------------------------------------------------------------------------
# Curves
# ----------------------------------------------------------------------------------------------


class _Course:
    """The epochs of one step of a run."""

    def __init__(self, step: str) -> None:
        self.step = step
        self.epochs: dict[float, Mapping[str, Any]] = {}

    def take(self, event: Mapping[str, Any]) -> None:
        if event.get("event") == "epoch" and event.get("step") == self.step:
            epoch = _finite(event.get("epoch"))
            if epoch is not None:
                self.epochs[epoch] = event

    def points(self, key: str) -> list[tuple[float, float]]:
        """Epochs and values of ``key`` (``iou/NAME``: of a class), where there is a finite one."""
        group, _, name = key.partition("/")
        found = []
        for epoch, values in sorted(self.epochs.items()):
            value = values.get(group)
            if name:
                value = value.get(name) if isinstance(value, Mapping) else None
            number = _finite(value)
            if number is not None:
                found.append((epoch, number))
        return found


def _finite(value: Any) -> float | None:
    """The value if it is a number that can be drawn; a damaged event may hold anything."""
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return None
    return number if abs(number) < 1e300 else None


def _cycle(count: int) -> list[str]:
    # The colours of lines are the field's usual ones for the colour-blind (Okabe and Ito).
    colors = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]
    return [colors[index % len(colors)] for index in range(count)]


def _plain(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=11, color=_INK, loc="left")
    axes.grid(color="#e6e9ed", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_FAINT, labelsize=8)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color("#c9ced6")


# ----------------------------------------------------------------------------------------------
# Sections
# ----------------------------------------------------------------------------------------------


def _grey(image: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Grey values 0..1 between the 0.5th and the 99.5th percentile."""
    low, high = np.percentile(image, (0.5, 99.5))
    grey: npt.NDArray[np.float64] = np.clip((image - float(low)) / max(float(high - low), 1e-12), 0, 1)
    return grey


def _colored(
    grey: npt.NDArray[np.float64], labels: npt.NDArray[np.uint8], classes: Sequence[NamedColor]
) -> npt.NDArray[np.float64]:
    """The grey image tinted by class, with the outlines of each class in its full colour."""
    picture = np.repeat(grey[..., None], 3, axis=2)
    edges = _edges(labels)
    for number, info in enumerate(classes, start=1):
        color = np.array([int(info.color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        inside = labels == number
        picture[inside] = 0.6 * picture[inside] + 0.4 * color
        picture[inside & edges] = color
    return picture


def _marked(
    grey: npt.NDArray[np.float64], wrong: npt.NDArray[np.bool_], annotated: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """The pale image with wrong pixels in red, and grey where nothing is annotated."""
    picture = np.repeat(0.55 + 0.45 * grey[..., None], 3, axis=2)
    picture[~annotated] *= 0.6
    picture[wrong] = np.array([0.84, 0.15, 0.16])
    return picture


def _edges(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Pixels whose right or lower neighbour is of another class."""
    edges = np.zeros(labels.shape, dtype=bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges


def _scale_bar(axes: Axes, shape: tuple[int, ...], scale: tuple[float, float], unit: str) -> None:
    from matplotlib.patches import Rectangle

    wanted = shape[1] * scale[1] / 4
    power = 10.0 ** math.floor(math.log10(wanted))
    length = max(step * power for step in (1, 2, 5) if step * power <= wanted)
    pixels = length / scale[1]
    high = shape[0] * 0.012
    x, y = shape[1] * 0.95 - pixels, shape[0] * 0.945
    box = Rectangle(
        (x - shape[1] * 0.02, y - shape[0] * 0.075), pixels + shape[1] * 0.04, shape[0] * 0.11, color="#00000099"
    )
    axes.add_patch(box)
    axes.add_patch(Rectangle((x, y), pixels, high, color=_PAPER))
    name = {"micrometer": "µm", "nanometer": "nm", "millimeter": "mm"}.get(unit, unit)
    axes.text(x + pixels / 2, y - high * 0.6, f"{length:g} {name}", color=_PAPER, fontsize=9, ha="center", va="bottom")


def _class_legend(figure: Figure, classes: Sequence[NamedColor], *, with_differences: bool) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=info.color, edgecolor=_INK, linewidth=0.6, label=info.name) for info in classes]
    if with_differences:
        handles.append(Patch(facecolor="#d62728", edgecolor=_INK, linewidth=0.6, label="differ"))
    figure.legend(
        handles=handles, loc="lower center", ncols=min(len(handles), 8), frameon=False, fontsize=10, labelcolor=_INK
    )


# ----------------------------------------------------------------------------------------------
# Figures and files
# ----------------------------------------------------------------------------------------------


def _figure(width: float, height: float, dpi: float = 150) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=dpi, facecolor=_PAPER)


def _sheet(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure to draw on in inches, from its lower left corner."""
    figure = _figure(width, height, dpi=120)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.set_axis_off()
    return figure, axes


def _save(figure: Figure, path: Path, *, title: str, description: str | None = None) -> None:
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"cannot draw {path.name}: give a file name that ends in {', '.join(_FORMATS)}")
    metadata: dict[str, Any] = {"Title": title}
    if kind == "svg":
        # Without the date the same content gives the same file.
        metadata |= {"Description": description or title, "Date": None}
    elif kind == "png" and description:
        metadata["Description"] = description.encode("ascii", "replace").decode()
    with replacing(path) as temporary:
        figure.savefig(temporary, format=kind, metadata=metadata)
