"""Edited objects written as a new store, block by block."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from napari_autosegnet.errors import StoppedError, UserError
from napari_autosegnet.events import ProgressMade, Report
from napari_autosegnet.files import refuse_address
from napari_autosegnet.inference.blocks import Level, PyramidPlan, Shape, choose_block
from napari_autosegnet.inference.instances.measurements import measured
from napari_autosegnet.inference.instances.objects import tiles_of
from napari_autosegnet.inference.output.file_kinds import is_store_name
from napari_autosegnet.inference.output.ledger import locked, object_table_path, sync_folder
from napari_autosegnet.inference.output.store import LabelPyramid, remove_folder
from napari_autosegnet.inference.proofreading.proofreading import Proofreading
from napari_autosegnet.interruption import ShouldStop
from napari_autosegnet.ome_zarr.metadata import OmeGroup, OmeVersion
from napari_autosegnet.ome_zarr.new_metadata import image_label
from napari_autosegnet.ome_zarr.paths import INSTANCES
from napari_autosegnet.ome_zarr.write import list_label, write_group


def export_edited(objects: Proofreading, out: Path, report: Report, should_stop: ShouldStop) -> Path:
    """Write edited objects, with their table beside them; they keep their numbers.

    The store has its name only when it is whole: after a crash the export is started again.

    Raises
    ------
    UserError
        When there is something at ``out``, its name is that of a file, or the disk is full.
    StoppedError
        When a stop was asked for.
    """
    refuse_address(out, "objects are written to a disk; give a folder")
    if not is_store_name(out):
        raise UserError(f"objects are written as Zarr, not as {out.suffix}; give --out NAME.zarr, then convert it")
    out = out.absolute()
    with locked(out):
        if out.exists() or out.is_symlink():
            raise UserError(f"{out} exists; choose another name")
        partial = out.with_name(f".{out.name}.partial")
        remove_folder(partial)
        try:
            _write(objects, partial, out, report, should_stop)
            sync_folder(partial)
            partial.rename(out)
            sync_folder(out.parent)
        except OSError as error:
            raise UserError(f"cannot write {out}: {error.strerror or error}; free some space") from error
        finally:
            remove_folder(partial)
    return out


def _write(objects: Proofreading, folder: Path, out: Path, report: Report, should_stop: ShouldStop) -> None:
    source = OmeGroup.read(objects.store / INSTANCES)
    version: OmeVersion = source.version or "0.5"
    pyramid = _pyramid(objects, folder, version)
    image = {**source.images[0], "name": out.name.removesuffix(".zarr").removesuffix(".ome")}
    levels = [{**level, "path": str(number)} for number, level in enumerate(image["datasets"])]
    shown = [{**level, "path": f"{INSTANCES}/{level['path']}"} for level in levels]
    write_group(folder, {"multiscales": [{**image, "datasets": shown}]}, version)
    list_label(folder / "labels", pyramid.folder.name, version)
    about = {"multiscales": [{**image, "datasets": levels}], "image-label": image_label(version=version)}
    write_group(pyramid.folder, about, version)
    pyramid.make()
    places = list(_places(pyramid.plan))
    for done, (level, place) in enumerate(places, start=1):
        if should_stop():
            raise StoppedError("the export was stopped; nothing was written")
        core = pyramid.plan.core(level, place)
        pyramid.write(core, objects.levels[level].box(core), level)
        report(ProgressMade(step="export", done=done, total=len(places)))
    blocks = (pyramid.plan.core(0, place) for level, place in places if level == 0)
    tiles = (tile for block in blocks for tile in tiles_of(block))
    table = measured(pyramid.read, tiles, objects.shape, should_stop)
    if table is None:
        raise StoppedError("the export was stopped; nothing was written")
    table.write(object_table_path(out), objects.placement)


def _pyramid(objects: Proofreading, folder: Path, version: OmeVersion) -> LabelPyramid:
    first = objects.levels[0].array
    flat = 3 - first.ndim
    chunks, shards = (
        None if each is None else _three((1,) * flat + tuple(each)) for each in (first.chunks, first.shards)
    )
    assert chunks is not None
    levels, before = [], (1, 1, 1)
    for level in objects.levels:
        factor = _three(tuple(now // then for now, then in zip(level.factor, before, strict=True)))
        levels.append(Level(_three((1,) * flat + level.shape), factor))
        before = level.factor
    return LabelPyramid(
        folder / INSTANCES,
        PyramidPlan(tuple(levels), shards or choose_block(objects.shape, chunks, None)),
        chunks=chunks,
        is_2d=bool(flat),
        dtype=first.dtype,
        sharded=shards is not None,
        zarr_format=2 if version == "0.4" else 3,
    )


def _places(plan: PyramidPlan) -> Iterator[tuple[int, Shape]]:
    """Level and place of every block."""
    for level in range(len(plan.levels)):
        for number in range(math.prod(plan.grid(level))):
            yield level, plan.position(level, number)


def _three(values: tuple[int, ...]) -> Shape:
    z, y, x = values
    return z, y, x
