"""The result of a prediction, whatever kind of file it is: which one a path means, and its errors."""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from napari_autosegnet.config import PredictSettings
from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.blocks import Block, Level, PyramidPlan, Shape, pyramid_levels
from napari_autosegnet.inference.ome_metadata import OmeVersion
from napari_autosegnet.inference.picture_output import PngOutput, TiffOutput
from napari_autosegnet.inference.store import PlainZarrOutput, ZarrOutput

if TYPE_CHECKING:
    from napari_autosegnet.data.annotations import ClassInfo
    from napari_autosegnet.data.images import ImageStack
    from napari_autosegnet.inference.predictor import BlockResult

#: Errors that no other attempt at a block mends: disk full, quota, read-only.
FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Output(Protocol):
    """A result that is written block by block."""

    #: The file or folder beside which the ledger lies.
    path: Path
    #: What the user asked to be shown: the labels.
    labels_path: Path
    pyramid: PyramidPlan

    def exists(self) -> bool:
        """Whether there is a result, finished or not."""
        ...

    def is_occupied(self) -> bool:
        """Whether something lies where the result goes, a result or not."""
        ...

    def prepare(self) -> None:
        """Make what is missing of the store; existing blocks stay."""
        ...

    def attach(self) -> None:
        """Open the store that another process prepared."""
        ...

    def remove(self) -> None:
        """Delete the result, and nothing else."""
        ...

    def write(self, block: Block, result: BlockResult) -> None:
        """Write a block and wait until it is on the disk."""
        ...

    def subsample(self, level: int, position: Shape) -> None:
        """Write one block of a lower pyramid level from the level above."""
        ...


def open_output(
    out: Path | None,
    image: ImageStack,
    classes: Sequence[ClassInfo],
    settings: PredictSettings,
    *,
    chunks: Shape,
    block: Shape,
) -> Output:
    """Output for a path: ``.tif`` and ``.png`` are files, anything else is a Zarr store.

    Without a path the result goes under the image's own ``labels/``, in the image's version of OME-Zarr.

    Raises
    ------
    UserError
        When the image has no store of its own and no path is given, or the kind of file cannot hold the result.
    """
    own_version = None if image.path is None else ome_version(image.path)
    within = out is None or (image.path is not None and out.resolve() == image.path.resolve())
    if within and (image.path is None or own_version is None):
        raise UserError("the image is no OME-Zarr that could hold the result; give --out, such as --out result.zarr")
    version: OmeVersion = "0.4" if settings.format == "ome-zarr-0.4" else "0.5"
    if within:
        assert image.path is not None and own_version is not None
        place, version = image.path, own_version
    else:
        assert out is not None
        place = out
        kind = place.suffix.lower()
        if kind in (".jpg", ".jpeg", ".bmp", ".npy", ".h5", ".hdf5", ".n5"):
            raise UserError(f"labels cannot be written as {place.suffix}; give --out with .zarr, .tif or .png")
        if settings.instances and (kind in (".tif", ".tiff", ".png") or settings.format == "zarr"):
            raise UserError("numbered objects need an OME-Zarr store; give --out with .zarr, and no --format zarr")
        if kind in (".tif", ".tiff"):
            return TiffOutput(place, image, len(classes) if settings.probabilities else 0, block)
        if kind == ".png":
            return PngOutput(place, image, settings.probabilities, block)
        if settings.format == "zarr":
            return PlainZarrOutput(
                place,
                image,
                len(classes) if settings.probabilities else 0,
                chunks=chunks,
                block=block,
                sharded=settings.sharded,
            )
    return ZarrOutput(
        place,
        image,
        classes,
        chunks=chunks,
        block=block,
        levels=_levels(image, settings.levels),
        probabilities=settings.probabilities or settings.instances,
        instances=settings.instances,
        version=version,
        sharded=settings.sharded,
        within_image=within,
    )


def ome_version(path: Path) -> OmeVersion | None:
    """Version of the OME-Zarr image at a path; None when it is something else."""
    for name, version in (("zarr.json", "0.5"), (".zattrs", "0.4")):
        file = path / name
        if not file.is_file():
            continue
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        attributes = content.get("attributes", {}).get("ome", {}) if version == "0.5" else content
        if isinstance(attributes, dict) and "multiscales" in attributes:
            return "0.5" if version == "0.5" else "0.4"
    return None


def disk_error(error: OSError, path: Path) -> UserError:
    """The line for an output that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"no space left for {path}; free some and give the same command again: it goes on from here")
    return UserError(f"cannot write {path}: {error.strerror or error}; give the same command again to go on")


def _levels(image: ImageStack, wanted: int | None) -> tuple[Level, ...]:
    """Pyramid of the result: that of the source, where it has one and halves or so; else halved y and x."""
    count = wanted or image.pyramid_levels
    source = _source_shapes(image) if image.pyramid_levels > 1 else []
    levels = [Level(image.shape, (1, 1, 1))]
    for shape in source[1:count]:
        above = levels[-1].shape
        factor = tuple(max(1, round(large / small)) for large, small in zip(above, shape, strict=True))
        reach = tuple(-(-large // step) for large, step in zip(above, factor, strict=True))
        if any(not most - 1 <= small <= most for small, most in zip(shape, reach, strict=True)):
            break
        levels.append(Level(shape, (factor[0], factor[1], factor[2])))
    if len(levels) < count:
        more = pyramid_levels(levels[-1].shape, count - len(levels) + 1)
        levels.extend(more[1:])
    return tuple(levels)


def _source_shapes(image: ImageStack) -> list[Shape]:
    """Shapes (z, y, x) of the source's levels."""
    import zarr

    if image.path is None:
        return []
    group = zarr.open_group(image.path, mode="r")
    attributes = dict(group.attrs)
    about: Any = attributes.get("ome", attributes)
    multiscale = about["multiscales"][0]
    names = [axis["name"] for axis in multiscale["axes"]]
    shapes: list[Shape] = []
    for dataset in multiscale["datasets"]:
        array = group[dataset["path"]]
        assert not isinstance(array, zarr.Group)
        size = dict(zip(names, array.shape, strict=True))
        shapes.append((int(size.get("z", 1)), int(size["y"]), int(size["x"])))
    return shapes
