"""Networks to choose from: how good each is, and how fast."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from napari_autosegnet.figures.canvas import FAINT, INK, figure_of, plain_axes, save

#: Colors of the chosen network and of the others (Okabe and Ito).
CHOSEN, OTHERS = "#d55e00", "#0072b2"


class Choice(Protocol):
    """A network and what it is worth; see `jobs.menu.MenuEntry`."""

    @property
    def name(self) -> str: ...
    @property
    def mean_iou(self) -> float: ...
    @property
    def difference(self) -> tuple[float, float]: ...
    @property
    def megapixels_per_second(self) -> float: ...
    @property
    def goals(self) -> Sequence[str]: ...
    @property
    def chosen(self) -> bool: ...


def draw_menu(choices: Sequence[Choice], path: Path) -> None:
    """Draw quality against speed by short names, with the interval of each one's difference from the best.

    Raises
    ------
    UserError
        When the file cannot be written.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = figure_of(7.2, 4.2)
    axes = figure.add_subplot()
    best = max(each.mean_iou for each in choices)
    for each in choices:
        color = CHOSEN if each.chosen else OTHERS
        speed = each.megapixels_per_second
        axes.plot([speed, speed], [best + end for end in each.difference], color=color, linewidth=1.2, alpha=0.6)
        axes.plot(speed, each.mean_iou, "o", color=color, markersize=9 if each.chosen else 7)
        words = f" ({', '.join(each.goals)})" if each.goals else ""
        axes.annotate(
            each.name + words,
            (speed, each.mean_iou),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=INK,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    speeds = [each.megapixels_per_second for each in choices]
    axes.set_xlim(min(speeds) / 2.5, max(speeds) * 2.5)
    axes.margins(y=0.18)
    plain_axes(axes, "Networks to choose from")
    axes.set_xlabel("million pixels per second", color=FAINT)
    axes.set_ylabel("mean IoU on the validation part\n(lines: difference from the best, 90 %)", color=FAINT)
    figure.set_layout_engine("constrained")
    save(figure, path, title="Networks to choose from")
