"""The smallest halo that is good enough, measured on the training data's own images.

A deep network's receptive field is far wider than what it really uses. So tiles with smaller and smaller
surroundings are compared with whole-section inference.

Seams can only show where there are some: the sections must be larger than the tiles. So the tiles keep only a
small core (`CORE` pixels at most, a quarter of the section at most), whatever the tile of a later run is. A later
run keeps larger cores, has fewer seams per pixel, and agrees better than the figure says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from napari_autosegnet.data.images import ImageStack
from napari_autosegnet.events import Report, silent
from napari_autosegnet.inference.blocks import Block, BlockPlan, round_up
from napari_autosegnet.inference.compute.block_pixels import BlockInput, pad_to_domain
from napari_autosegnet.inference.compute.check_crops import TARGET, Crop, check_crops
from napari_autosegnet.inference.compute.predictor import WHOLE, Predictor
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.model import HaloFigure, Model

#: Kept part of the tiles that are measured, in pixels.
CORE = 128
#: Side of the crops, and the tiles in all, that are looked at per halo.
SIDE = 768
TILES = 24


def measure_halo(
    model: Model,
    images: Sequence[ImageStack],
    *,
    device: torch.device | str = "cpu",
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> HaloFigure | None:
    """Smallest halo, a multiple of the stride, at which tiles label like whole sections.

    Halos are doubled until one suffices, then halved in between.

    Parameters
    ----------
    model : Model
        The trained model.
    images : Sequence[ImageStack]
        The images that it was trained on; a few sections, spread evenly, are looked at.

    Returns
    -------
    HaloFigure | None
        The halo and its agreement. The exact halo (agreement 1) when no smaller one that these sections can
        tell apart is enough; for a network without one (PSPNet) the largest that was measured. None when the
        sections are too small to have seams, or when asked to stop: then ``auto`` means ``exact``.
    """
    predictor = Predictor(model, device, tile=WHOLE, halo=0, report=report)
    stride, exact = predictor.stride, predictor.exact_halo
    crops = [crop for crop in check_crops(model, images, SIDE) if min(crop.shape[2:]) >= 4 * stride]
    if not crops:
        return None
    whole = [_whole_labels(predictor, crop) for crop in crops]
    measured: dict[int, float] = {}

    def enough(halo: int) -> bool:
        each = -(-TILES // len(crops))
        pairs = zip(crops, whole, strict=True)
        tiles = [tile for crop, labels in pairs for tile in _tiles(predictor, crop, labels, halo, each)]
        pixels, wrong = sum(tile.expected.size for tile in tiles), 0
        for tile in tiles:
            wrong += tile.wrong(predictor)
            if exact is not None and wrong > (1 - TARGET) * pixels:
                return False  # whatever the other tiles say
        measured[halo] = 1 - wrong / pixels
        return measured[halo] >= TARGET

    # Larger halos would make the tile as large as the section, and without a seam everything agrees.
    largest = max((max(crop.shape[2:]) - _core(crop, stride)) // 2 for crop in crops) // stride * stride
    if exact is not None:
        largest = min(largest, exact - stride)
    too_small, halo = 0, stride
    while halo <= largest:
        if should_stop():
            return None
        if enough(halo):
            break
        too_small, halo = halo, max(min(2 * halo, largest), halo + stride)
    else:
        if exact is not None:
            return HaloFigure(pixels=exact, agreement=1.0)
        if not measured:
            return None
        return HaloFigure(pixels=max(measured), agreement=measured[max(measured)])
    while halo - too_small > stride:
        if should_stop():
            return None
        middle = (halo + too_small) // (2 * stride) * stride
        too_small, halo = (too_small, middle) if enough(middle) else (middle, halo)
    return HaloFigure(pixels=halo, agreement=measured[halo])


def _core(crop: Crop, stride: int) -> int:
    return round_up(min(CORE, min(crop.shape[2:]) // 4), stride)


def _plan(predictor: Predictor, crop: Crop, block: int, halo: int, tile: int) -> tuple[BlockPlan, BlockInput]:
    plan = BlockPlan(
        (crop.shape[1], crop.shape[2], crop.shape[3]),
        (1, block, block),
        stride=predictor.stride,
        halo=halo,
        tile=tile,
        context=predictor.model.context,
    )
    return plan, BlockInput(pad_to_domain(crop.pixels, predictor.stride), (0, 0, 0), constants=crop.constants)


def _labels(predictor: Predictor, plan: BlockPlan, block: Block, data: BlockInput) -> npt.NDArray[np.uint8]:
    result = predictor.block(plan, block, data)
    assert result is not None  # nobody asks it to stop
    labels: npt.NDArray[np.uint8] = result.labels[0]
    return labels


def _whole_labels(predictor: Predictor, crop: Crop) -> npt.NDArray[np.uint8]:
    """Labels (y, x) of a crop's middle section, in one window."""
    plan, data = _plan(predictor, crop, max(crop.shape[2:]), 0, WHOLE)
    return _labels(predictor, plan, plan[crop.shape[1] // 2], data)


@dataclass(frozen=True)
class _Tile:
    """A block to compute, and the labels (y, x) that whole-section inference gives it."""

    plan: BlockPlan
    block: Block
    data: BlockInput
    expected: npt.NDArray[np.uint8]

    def wrong(self, predictor: Predictor) -> int:
        """Pixels with another label."""
        return int((_labels(predictor, self.plan, self.block, self.data) != self.expected).sum())


def _tiles(predictor: Predictor, crop: Crop, whole: npt.NDArray[np.uint8], halo: int, count: int) -> Iterator[_Tile]:
    """Tiles spread evenly over a crop."""
    core = _core(crop, predictor.stride)
    plan, data = _plan(predictor, crop, core, halo, core + 2 * halo)
    middle = [plan[index] for index in plan.indices() if plan.position(index)[0] == crop.shape[1] // 2]
    for index in sorted({round(place) for place in np.linspace(0, len(middle) - 1, min(count, len(middle)))}):
        block = middle[index]
        yield _Tile(plan, block, data, whole[slice(*block.core[1]), slice(*block.core[2])])
