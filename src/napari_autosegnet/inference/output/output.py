"""The result of a prediction, whatever kind of file it is: which one a path means, and its errors."""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from napari_autosegnet.errors import UserError
from napari_autosegnet.files import refuse_address
from napari_autosegnet.inference.blocks import Block, Level, PyramidPlan, Shape, pyramid_levels
from napari_autosegnet.inference.output.file_kinds import WRITTEN, file_kind, is_store_name
from napari_autosegnet.inference.output.picture_output import FileOutput, PngOutput
from napari_autosegnet.inference.output.places import Part, is_same, lies_in
from napari_autosegnet.inference.output.store import PlainZarrOutput, ZarrOutput
from napari_autosegnet.ome_zarr.metadata import OmeVersion, ome_version, pixel_folders
from napari_autosegnet.ome_zarr.paths import is_array, is_node
from napari_autosegnet.settings import PredictSettings

if TYPE_CHECKING:
    from napari_autosegnet.data.annotations import ClassInfo
    from napari_autosegnet.data.images import ImageStack
    from napari_autosegnet.inference.compute.block_pixels import BlockResult

#: Errors that no other attempt at a block mends: disk full, quota, read-only.
FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Output(Protocol):
    """A result that is written block by block."""

    #: The file or folder beside which the ledger lies.
    path: Path
    #: What the user asked to be shown: the labels.
    labels_path: Path
    #: All that a result of this kind can consist of, and those that this one does.
    places: dict[Part, Path]
    parts: tuple[Part, ...]
    pyramid: PyramidPlan

    def foreign(self, ours: Collection[Part]) -> Path | None:
        """What lies where the result goes and is none, given what the ledger says that an earlier run wrote."""
        ...

    def strange(self, ours: Collection[Part]) -> Path | None:
        """The first link, or file of somebody else, in what an earlier run wrote: `remove` would take it along."""
        ...

    def remove_partials(self) -> None:
        """Remove what a killed run did not finish: it takes space, and the disk may have been full."""
        ...

    def prepare(self) -> None:
        """Make what is missing of the store; existing blocks stay."""
        ...

    def attach(self) -> None:
        """Open the store that another process prepared."""
        ...

    def remove(self, ours: Collection[Part]) -> None:
        """Delete what an earlier run wrote, and nothing else."""
        ...

    def write(self, block: Block, result: BlockResult) -> int:
        """Write a block and wait until it is on the disk; returns what `written` does from then on."""
        ...

    def subsample(self, level: int, position: Shape) -> int:
        """Write one block of a lower pyramid level from the level above; returns what `written` does from then on."""
        ...

    def written(self, level: int, number: int) -> int:
        """Which of the files that a block may leave are on the disk, as the bits of a number; also before `prepare`."""
        ...


def open_output(
    out: Path | None,
    image: ImageStack,
    classes: Sequence[ClassInfo],
    settings: PredictSettings,
    *,
    chunks: Shape,
    block: Shape,
    mask: ImageStack | None = None,
) -> Output:
    """Output for a path: TIFF, MRC, HDF5, NIfTI or PNG by its ending, a Zarr store without one.

    Without a path the result goes under the image's own ``labels/``, in the image's version of OME-Zarr.

    Raises
    ------
    UserError
        When the image has no store of its own and no path is given, the kind of file cannot hold the result, or
        it would lie in or around the image or the mask.
    """
    output = _output_at(out, image, classes, settings, chunks=chunks, block=block)
    _check_apart(output, {"image": image, "mask": mask})
    return output


def _output_at(
    out: Path | None,
    image: ImageStack,
    classes: Sequence[ClassInfo],
    settings: PredictSettings,
    *,
    chunks: Shape,
    block: Shape,
) -> Output:
    own = None if image.path is None else ome_version(image.path)
    version: OmeVersion = "0.4" if settings.format == "ome-zarr-0.4" else "0.5"
    if own is not None and image.path is not None and (out is None or _means(out, image.path)):
        within, place = True, _named(image.path)
        if settings.format == "zarr" or (version == "0.4" and own == "0.5"):
            raise UserError(
                f"what goes under the image's labels is OME-Zarr {own}, as the image is; "
                f"leave --format {settings.format} out, or give --out of another place"
            )
        version = own
    elif out is None:
        raise UserError(
            "the image is not an OME-Zarr store, which could hold the result; give --out, such as --out result.zarr"
        )
    else:
        within, place = False, _named(out)
        kind = file_kind(place)
        is_png = place.suffix.lower() == ".png"
        if kind is None and not is_png and not is_store_name(place):
            raise UserError(f"labels cannot be written as {place.suffix}; give --out with {WRITTEN}")
        if settings.instances and (kind is not None or is_png or settings.format == "zarr"):
            raise UserError("numbered objects need an OME-Zarr store; give --out with .zarr and no --format zarr")
        if kind is not None:
            return FileOutput(place, kind, image, len(classes), block, probabilities=settings.probabilities)
        if is_png:
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


def _means(out: Path, image: Path) -> bool:
    """Whether a path means the image's own store: it is that, or a larger Zarr around it that is no image."""
    return is_same(out, image) or (lies_in(image, out) and is_node(out) and ome_version(out) is None)


def _named(path: Path) -> Path:
    """The place that a path means, links followed; it has a name, after which ledger and lock are called."""
    refuse_address(path, "results are written to a disk; give --out a path and upload it afterwards")
    try:
        place = path.resolve()
    except (OSError, RuntimeError) as error:  # a link to itself
        raise UserError(f"{path} leads nowhere ({error}); give another --out") from error
    if not place.name:
        raise UserError(f"{path} can be no result; give --out a name, such as --out result.zarr")
    return place


def outer_places(output: Output) -> list[Path]:
    """The files and folders that a result consists of: what two runs must not write at once."""
    parts = (output.places[part].resolve() for part in output.parts)
    return [output.path, *(place for place in parts if output.path not in (place, *place.parents))]


def _check_apart(output: Output, read: Mapping[str, ImageStack | None]) -> None:
    """Refuse a place of which something is read, or that lies in what is read: writing there would destroy it."""
    within = isinstance(output, ZarrOutput) and output.within_image
    places = [*([] if within else [output.path]), *output.places.values()]
    for what, stack in read.items():
        if stack is None or stack.path is None:
            continue
        for source in pixel_folders(stack.path) if within else [stack.path]:
            for place in places:
                if is_same(place, source):
                    raise UserError(f"{place} is the {what} itself; give another --out")
                if lies_in(place, source):
                    raise UserError(f"{place} lies in the {what} {source}; give another --out")
                if lies_in(source, place):
                    raise UserError(f"the {what} {source} lies in {place}; give another --out")
    array = next((folder for folder in output.path.absolute().parents if is_array(folder)), None)
    if array is not None:
        raise UserError(f"{output.path} lies in the Zarr array {array}; give another --out")


def disk_error(error: OSError, path: Path) -> UserError:
    """The line for an output that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"no space left for {path}; free some and give the same command again: it continues from here")
    lasts = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.EFBIG)
    advice = "give another --out" if lasts else "give the same command again to continue"
    return UserError(f"cannot write {path}: {error.strerror or error}; {advice}")


def _levels(image: ImageStack, wanted: int | None) -> tuple[Level, ...]:
    """Pyramid of the result: that of the source, where it has one and halves or so; else halved y and x."""
    count = wanted or image.pyramid_levels
    levels = [Level(image.shape, (1, 1, 1))]
    for shape in image.level_shapes[1:count]:
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
