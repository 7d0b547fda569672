"""What is read for a block."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.images import ImageStack
from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.blocks import Block, BlockPlan, slices
from napari_autosegnet.inference.compute.block_pixels import BlockInput, pad_after
from napari_autosegnet.inference.compute.faint import FaintRun, faint_runs
from napari_autosegnet.inference.compute.patience import read_patiently
from napari_autosegnet.inference.compute.survey import ImageSurvey
from napari_autosegnet.model import Model
from napari_autosegnet.plain_text import counted


def check_image(model: Model, image: ImageStack) -> None:
    """Refuse an image that the model cannot read.

    Raises
    ------
    UserError
        When the number of channels is another, or context is needed and the sections differ in size.
    """
    if image.channels != model.image_channels:
        raise UserError(
            f"{image.path or image.name} has {counted(image.channels, 'channel')}, and the model was trained on images "
            f"with {model.image_channels}; give an image like those, or choose among its channels (--channels)"
        )
    if model.context and not image.uniform:
        raise UserError(f"the model reads neighboring sections, those of {image.path or image.name} differ in size")


def read_block(
    image: ImageStack,
    plan: BlockPlan,
    block: Block,
    mask: ImageStack | None = None,
    *,
    survey: ImageSurvey | None = None,
    pixels: npt.NDArray[Any] | None = None,
) -> BlockInput:
    """Read a block with its surroundings; nothing but the mask is read where the mask is empty.

    Voxels of float images that are NaN or infinite are noted; what is NaN in a mask is outside.

    Parameters
    ----------
    image, mask : ImageStack
        ``mask`` may be None.
    plan, block : BlockPlan, Block
    survey : ImageSurvey, optional
        Of the image: then constant sections are noted, and what each section is normalized by.
    pixels : (c, z, y, x), optional
        The whole of what would be read.
    """
    z, y, x = plan.surroundings(block)
    origin = (z[0], y[0], x[0])
    wanted: npt.NDArray[np.bool_] | None = None
    if mask is not None:
        values = read_patiently(mask, *slices(block.core))
        # Masks of floats have NaN where nothing is known, and that is not inside.
        wanted = np.asarray(((values != 0) & ~np.isnan(values)).any(0))
        if not wanted.any():
            return BlockInput(np.zeros((image.channels, 0, 0, 0), image.dtype), origin, wanted)
    inside = [(span[0], min(span[1], size)) for span, size in zip((z, y, x), plan.shape, strict=True)]
    if pixels is None:
        pixels = read_patiently(image, *(slice(*span) for span in inside))
    core = tuple(slice(span[0] - start, span[1] - start) for span, start in zip(block.core, origin, strict=True))
    missing = missing_voxels(pixels[(slice(None), *core)], wanted)
    blank = constants = None
    faint: tuple[FaintRun, ...] = ()
    if survey is not None:
        constant = survey.constant(range(*block.core[0]), pixels[:, core[0]])
        blank = constant if constant.any() else None
        if not constant.all():
            faint = faint_runs(range(*block.core[0]), pixels[:, core[0]], survey.faint_range)
        constants = survey.constants([min(section, plan.shape[0] - 1) for section in range(*z)])
    pixels = pad_after(pixels, [span[1] - end for span, (_, end) in zip((z, y, x), inside, strict=True)])
    return BlockInput(pixels, origin, wanted, missing, blank, constants, faint)


def missing_voxels(
    pixels: npt.NDArray[Any], wanted: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.bool_] | None:
    """Where pixels (c, ...) are NaN or infinite in any channel, among the wanted ones; None: nowhere.

    Networks compute with 32 bits, so what is larger than those can say is infinite.
    """
    if pixels.dtype.kind != "f":
        return None
    with np.errstate(over="ignore"):
        missing = ~np.isfinite(pixels if pixels.itemsize <= 4 else pixels.astype(np.float32)).all(0)
    if wanted is not None:
        missing &= wanted
    return missing if missing.any() else None
