"""What is read for a block, and patience with stores that fail for a moment."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.images import ImageStack
from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.blocks import Block, BlockPlan, slices
from napari_autosegnet.inference.predictor import AppliedModel, BlockInput, pad_after

#: Waits in seconds before a read is tried again. A network store is often away for seconds, rarely for longer.
WAITS = (0.2, 1.0, 5.0)
#: What another attempt does not mend.
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


def check_image(model: AppliedModel, image: ImageStack) -> None:
    """Refuse an image that the model cannot read.

    Raises
    ------
    UserError
        When the number of channels is another, or context is needed and the sections differ in size.
    """
    if image.channels != model.image_channels:
        raise UserError(
            f"the model reads {model.image_channels} channels, {image.path or image.name} has {image.channels}; "
            "give an image like those it was trained on, or choose among its channels"
        )
    if model.context and not image.uniform:
        raise UserError(f"the model reads neighbouring sections, those of {image.path or image.name} differ in size")


def read_block(
    image: ImageStack,
    plan: BlockPlan,
    block: Block,
    mask: ImageStack | None = None,
    *,
    pixels: npt.NDArray[Any] | None = None,
) -> BlockInput:
    """Read a block with its surroundings; nothing but the mask is read where the mask is empty.

    Voxels of float images that are NaN or infinite are noted; what is NaN in a mask is outside.

    ``pixels`` (c, z, y, x), if given, is the whole of what would be read.
    """
    z, y, x = plan.surroundings(block)
    origin = (z[0], y[0], x[0])
    wanted: npt.NDArray[np.bool_] | None = None
    if mask is not None:
        values = _read(mask, *slices(block.core))
        # Masks of floats have NaN where nothing is known, and that is not inside.
        wanted = np.asarray(((values != 0) & ~np.isnan(values)).any(0))
        if not wanted.any():
            return BlockInput(np.zeros((image.channels, 0, 0, 0), image.dtype), origin, wanted)
    inside = (min(y[1], plan.shape[1]), min(x[1], plan.shape[2]))
    if pixels is None:
        pixels = _read(image, slice(*z), slice(y[0], inside[0]), slice(x[0], inside[1]))
    core = tuple(slice(span[0] - start, span[1] - start) for span, start in zip(block.core, origin, strict=True))
    missing = missing_voxels(pixels[(slice(None), *core)], wanted)
    return BlockInput(pad_after(pixels, (y[1] - inside[0], x[1] - inside[1])), origin, wanted, missing)


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


def _read(image: ImageStack, z: slice, y: slice, x: slice) -> npt.NDArray[Any]:
    """Read a region, again after a pause where the file system or network failed."""
    for wait in WAITS:
        try:
            return image.read(z, y, x)
        except UserError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or isinstance(cause, _LASTING):
                raise
        time.sleep(wait)
    return image.read(z, y, x)
