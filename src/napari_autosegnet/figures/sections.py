"""Labels and uncertainty over the section that they belong to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.annotations import ClassInfo
from napari_autosegnet.errors import UserError
from napari_autosegnet.figures.canvas import FAINT, INK, figure_of, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def overlay(
    image: npt.NDArray[Any],
    labels: npt.NDArray[np.uint8],
    classes: Sequence[ClassInfo],
    path: Path,
    truth: npt.NDArray[np.uint8] | None = None,
) -> None:
    """Show a section beside its segmentation: image, prediction and, with ``truth``, truth and where they differ.

    Parameters
    ----------
    image
        Gray values ``(y, x)``.
    labels
        Class numbers ``(y, x)``: 1..K, 0 where there is none.
    classes
        Names and colors of the classes, in the order of their numbers.
    path
        File to write; PNG, SVG or PDF by its suffix.
    truth
        Annotated class numbers ``(y, x)``, 0 where not annotated.

    Raises
    ------
    UserError
        When the shapes differ, or the file cannot be written.
    """
    for name, array in {"labels": labels, "truth": truth}.items():
        if array is not None and array.shape != image.shape:
            raise UserError(f"the image is {image.shape} and the {name} {array.shape}; give arrays of one section")
    gray = to_gray(image)
    pictures = [("image", np.repeat(gray[..., None], 3, axis=2)), ("prediction", _colored(gray, labels, classes))]
    if truth is not None:
        wrong = (labels != truth) & (truth > 0)
        fraction = wrong.sum() / max(1, int((truth > 0).sum()))
        pictures.append(("truth", _colored(gray, truth, classes)))
        pictures.append((f"differ: {fraction:.1%}", _marked(gray, wrong, truth > 0)))
    side = 4.0
    high = side * image.shape[0] / image.shape[1]
    width, height = len(pictures) * side + (len(pictures) - 1) * 0.15 + 0.3, high + 0.95
    # As many dots as pixels, so that outlines of one pixel stay; PDF and SVG scale by themselves.
    figure = figure_of(width, height, dpi=min(300.0, max(100.0, image.shape[1] / side)))
    for index, (title, picture) in enumerate(pictures):
        place = ((0.15 + index * (side + 0.15)) / width, 0.55 / height, side / width, high / height)
        axes = figure.add_axes(place)
        axes.imshow(picture, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        axes.set_title(title, fontsize=11, color=INK, pad=5)
    _class_legend(figure, classes, with_differences=truth is not None)
    save(figure, path, title="Segmentation")


def draw_uncertainty(probabilities: npt.NDArray[Any], path: Path, *, image: npt.NDArray[Any] | None = None) -> None:
    """Show where a network is unsure: the entropy of its class probabilities, 0 (sure) to 1 (all classes alike).

    Parameters
    ----------
    probabilities
        ``(K, y, x)``; floats, or uint8 as in a stored prediction.
    path
        File to write; PNG, SVG or PDF by its suffix.
    image
        Gray values ``(y, x)`` to show beside it.

    Raises
    ------
    UserError
        When there are not at least two classes, or the file cannot be written.
    """
    entropy = normalized_entropy(probabilities)
    side = 4.6
    high = side * entropy.shape[0] / entropy.shape[1]
    panels = 1 if image is None else 2
    figure = figure_of(panels * side + 1.0, high + 0.5, dpi=min(300.0, max(100.0, entropy.shape[1] / side)))
    figure.set_layout_engine("constrained")
    if image is not None:
        axes = figure.add_subplot(1, panels, 1)
        axes.imshow(to_gray(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title("image", fontsize=11, color=INK)
    axes = figure.add_subplot(1, panels, panels)
    shown = axes.imshow(entropy, cmap="magma", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(f"uncertainty (mean {entropy.mean():.3f})", fontsize=11, color=INK)
    bar = figure.colorbar(shown, ax=axes, fraction=0.045, pad=0.02)
    bar.set_label("entropy, fraction of the largest", color=FAINT, fontsize=9)
    bar.outline.set_visible(False)
    save(figure, path, title="Uncertainty")


def normalized_entropy(probabilities: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
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
    fractions = probabilities.astype(np.float64)
    total = fractions.sum(axis=0)
    fractions /= np.where(total > 0, total, 1)
    logs = np.log(fractions, where=fractions > 0, out=np.zeros_like(fractions))
    entropy: npt.NDArray[np.float64] = -(fractions * logs).sum(axis=0) / math.log(len(fractions))
    return entropy


def to_gray(image: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Gray values 0..1 between the 0.5th and the 99.5th percentile; NaN and infinite pixels are black."""
    known = np.isfinite(image)
    low, high = np.percentile(image[known], (0.5, 99.5)) if known.any() else (0.0, 1.0)
    image = np.where(known, image, low)
    gray: npt.NDArray[np.float64] = np.clip((image - float(low)) / max(float(high - low), 1e-12), 0, 1)
    return gray


def _colored(
    gray: npt.NDArray[np.float64], labels: npt.NDArray[np.uint8], classes: Sequence[ClassInfo]
) -> npt.NDArray[np.float64]:
    """The gray image tinted by class, with the outlines of each class in its full color."""
    from matplotlib.colors import to_rgb

    picture = np.repeat(gray[..., None], 3, axis=2)
    edges = _edges(labels)
    for number, info in enumerate(classes, start=1):
        color = np.array(to_rgb(info.color))
        inside = labels == number
        picture[inside] = 0.6 * picture[inside] + 0.4 * color
        picture[inside & edges] = color
    return picture


def _marked(
    gray: npt.NDArray[np.float64], wrong: npt.NDArray[np.bool_], annotated: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """The pale image with wrong pixels in red, and gray where nothing is annotated."""
    picture = np.repeat(0.55 + 0.45 * gray[..., None], 3, axis=2)
    picture[~annotated] *= 0.6
    picture[wrong] = np.array([0.84, 0.15, 0.16])
    return picture


def _edges(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Pixels whose right or lower neighbor is of another class."""
    edges = np.zeros(labels.shape, dtype=bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges


def _class_legend(figure: Figure, classes: Sequence[ClassInfo], *, with_differences: bool) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=info.color, edgecolor=INK, linewidth=0.6, label=info.name) for info in classes]
    if with_differences:
        handles.append(Patch(facecolor="#d62728", edgecolor=INK, linewidth=0.6, label="differ"))
    figure.legend(
        handles=handles, loc="lower center", ncols=min(len(handles), 8), frameon=False, fontsize=10, labelcolor=INK
    )
