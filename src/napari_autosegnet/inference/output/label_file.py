"""Labels of any format written as one file that other programs open, section by section."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from napari_autosegnet.data.section_progress import SectionProgress
from napari_autosegnet.data.stack import Array
from napari_autosegnet.errors import StoppedError, UserError
from napari_autosegnet.events import Note, Report, silent
from napari_autosegnet.files import refuse_inside, refuse_unwritable, replacing
from napari_autosegnet.inference.output.file_kinds import Pixels, file_kind, pack, write_box
from napari_autosegnet.inference.output.unfinished import unfinished
from napari_autosegnet.interruption import ShouldStop, never_stop

if TYPE_CHECKING:
    from napari_autosegnet.data.images import ImageStack

#: Sections that are read together, where their chunks hold several, take no more memory than this.
SLAB_BYTES = 2**28


def write_labels(
    labels: ImageStack, out: Path, *, report: Report = silent, should_stop: ShouldStop = never_stop
) -> None:
    """Write labels, classes or numbered objects, as TIFF, MRC, HDF5 or NIfTI, by the ending of the file's name.

    Memory is set by a section, not by the volume. A file that exists is never overwritten.

    Parameters
    ----------
    report : Report
        Is told ``progress``, in sections that are written.

    Raises
    ------
    UserError
        When the format cannot hold them, there is such a file, or the disk is full.
    StoppedError
        When a stop was asked for before all was written; nothing is left then.
    """

    def slabs() -> Iterator[tuple[int, Array]]:
        for start, slab in _slabs(labels):
            if should_stop():
                raise StoppedError(f"stopped before {out} was written; nothing is left of it")
            yield start, slab

    what = labels.path or labels.name
    kind = file_kind(out)
    if kind is None:
        raise UserError(f"labels are converted to .tif, .mrc, .h5, .nii or .nii.gz, not to {out.suffix or out.name}")
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} exists; choose another name")
    refuse_inside(out, labels.path)
    refuse_unwritable(out)
    if labels.channels > 1 or labels.dtype.kind not in "ui":
        raise UserError(f"{what} holds {labels.channels} x {labels.dtype} per pixel, no labels; give one whole number")
    shape, axes = (labels.shape[1:], "yx") if labels.is_2d else (labels.shape, "zyx")
    extremes = [(int(slab.min()), int(slab.max())) for _, slab in slabs()]
    lowest, highest = min(low for low, _ in extremes), max(high for _, high in extremes)
    missing = unfinished(labels.path) if labels.path is not None else None
    if missing is not None:
        report(Note(text=missing))
    if lowest < 0:
        raise UserError(f"{what} holds {lowest}; labels are 0 or more")
    pixels = Pixels(shape, axes, kind.dtype(highest, what))
    progress = SectionProgress("convert", labels.sections, report)
    with replacing(out) as partial:
        begin = kind.create(partial, pixels, labels)
        for start, slab in slabs():
            box = [(start, start + len(slab)), *((0, size) for size in slab.shape[1:])]
            write_box(partial, begin, pixels, box[-len(shape) :], slab[0] if labels.is_2d else slab)
            progress.reach(start + len(slab))
        if kind.is_gzipped:
            pack(partial)


def _slabs(labels: ImageStack) -> Iterator[tuple[int, Array]]:
    """Sections (z, y, x) with the number of the first."""
    depth, height, width = labels.shape
    fitting = SLAB_BYTES // (height * width * labels.dtype.itemsize)
    step = max(1, min(fitting, labels.chunks[0] if labels.chunks else 1))
    for start in range(0, depth, step):
        yield start, labels.read(slice(start, start + step), slice(None), slice(None))[0]
