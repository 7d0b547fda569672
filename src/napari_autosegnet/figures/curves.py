"""The curves of a run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Event, Step
from napari_autosegnet.figures.architecture_drawing import KIND_COLORS
from napari_autosegnet.figures.canvas import FAINT, figure_of, plain_axes, save
from napari_autosegnet.run import RunHistory

#: Colors of lines, told apart by color-blind eyes (Okabe and Ito).
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def draw_curves(events: Iterable[Event], path: Path) -> None:
    """Draw the course of a run from its events: whatever of fit, search and training there is.

    Of a fit the mean IoU and the loss of each network; of a search the reward, the loss of the shared weights, the
    controller's entropy and the fraction of identities; of a training the loss and the IoU of each class. Warnings are
    drawn as dashed lines. Where an epoch was computed twice, because a run was resumed, the later one counts.

    Raises
    ------
    UserError
        When no epoch was finished yet, or the file cannot be written.
    """
    history = RunHistory.of(events)
    classes = {f"iou/{name}": name for name in history.class_names("train")}
    plots: list[tuple[Step, str, dict[str, str]]] = [
        ("search", "search: reward (mean IoU)", {"reward": "reward", "baseline": "baseline", "best_reward": "best"}),
        ("search", "search: loss of the shared weights", {"loss": "loss"}),
        ("search", "search: entropy of the controller", {"entropy": "entropy"}),
        ("search", "search: fraction of identities", {"identity_fraction": "fraction of identities"}),
        ("train", "training: loss", {"loss": "training", "validation_loss": "validation"}),
        ("train", "training: IoU", {"mean_iou": "mean", **classes}),
    ]
    networks = history.networks("fit")
    drawn: list[tuple[str, Step, dict[str, list[tuple[int, float]]]]] = [
        (title, "fit", {network: history.points("fit", key, network) for network in networks})
        for title, key in (("fit: mean IoU on the validation part", "mean_iou"), ("fit: loss", "loss"))
        if networks
    ]
    drawn += [
        (title, step, {label: points for key, label in keys.items() if (points := history.points(step, key))})
        for step, title, keys in plots
    ]
    drawn = [plot for plot in drawn if plot[2]]
    if not drawn:
        raise UserError("there is no curve to draw yet: the run has not finished its first epoch")
    columns = min(3, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    figure = figure_of(4.4 * columns, 3.2 * rows)
    for index, (title, step, curves) in enumerate(drawn):
        axes = figure.add_subplot(rows, columns, index + 1)
        for color, (label, points) in zip(itertools.cycle(_COLORS), curves.items(), strict=False):
            few = len(points) < 30
            axes.plot(*zip(*points, strict=True), color=color, label=label, linewidth=1.6, marker="." if few else None)
        if (top := highest_shown(curves)) is not None:
            axes.set_ylim(0, top)
        if step == "search":
            for warning in history.warnings:
                axes.axvline(warning, color=KIND_COLORS["hdc"], linewidth=1, linestyle="--")
        plain_axes(axes, title)
        axes.set_xlabel("epoch", color=FAINT)
        if len(curves) > 1:
            axes.legend(frameon=False, fontsize=8)
    figure.set_layout_engine("constrained")
    save(figure, path, title="Course of a run")


def highest_shown(curves: Mapping[str, Sequence[tuple[float, float]]]) -> float | None:
    """Where a plot ends if the first epoch, before anything was learned, would leave no room for the others."""
    first = max((points[0][1] for points in curves.values()), default=0.0)
    later = max((value for points in curves.values() for _, value in points[1:]), default=0.0)
    return 1.1 * later if 0 < later < first / 3 else None
