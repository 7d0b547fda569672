"""The curves of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_autosegnet.errors import UserError
from napari_autosegnet.figures.architecture_drawing import KIND_COLORS
from napari_autosegnet.figures.canvas import FAINT, INK, figure_of, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
        (train, "training: loss", {"loss": "training", "validation_loss": "validation"}),
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
    figure = figure_of(4.4 * columns, 3.2 * rows)
    for index, (title, course, curves) in enumerate(drawn):
        axes = figure.add_subplot(rows, columns, index + 1)
        for color, (label, points) in zip(_cycle(len(curves)), curves.items(), strict=True):
            few = len(points) < 30
            axes.plot(*zip(*points, strict=True), color=color, label=label, linewidth=1.6, marker="." if few else None)
        if (top := highest_shown(curves)) is not None:
            axes.set_ylim(0, top)
        if course is search:
            for alarm in alarms:
                axes.axvline(alarm, color=KIND_COLORS["hdc"], linewidth=1, linestyle="--")
        _plain(axes, title)
        axes.set_xlabel("epoch", color=FAINT)
        if len(curves) > 1:
            axes.legend(frameon=False, fontsize=8)
    figure.set_layout_engine("constrained")
    save(figure, path, title="Course of a run")


def highest_shown(curves: Mapping[str, list[tuple[float, float]]]) -> float | None:
    """Where a plot ends if the first epoch, before anything was learned, would leave no room for the others."""
    first = max((points[0][1] for points in curves.values()), default=0.0)
    later = max((value for points in curves.values() for _, value in points[1:]), default=0.0)
    return 1.1 * later if 0 < later < first / 3 else None


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
    axes.set_title(title, fontsize=11, color=INK, loc="left")
    axes.grid(color="#e6e9ed", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, labelsize=8)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color("#c9ced6")
