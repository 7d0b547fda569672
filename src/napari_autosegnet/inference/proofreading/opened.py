"""The objects of a store, opened: their levels as edits make them, and what tells these objects from others."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import file_digest, sha256
from pathlib import Path

import numpy as np

from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.instances.measurements import ObjectTable
from napari_autosegnet.inference.output.ledger import edit_log_path, object_table_path
from napari_autosegnet.inference.proofreading.edited import Edited, EditedArray
from napari_autosegnet.inference.proofreading.edits import EditLog
from napari_autosegnet.ome_zarr.metadata import OmeGroup
from napari_autosegnet.ome_zarr.nodes import open_array
from napari_autosegnet.ome_zarr.paths import INSTANCES
from napari_autosegnet.units import Placement


def store_of(result: Path) -> Path:
    """The store that a path to it, or to its objects, means."""
    return result.parent.parent if result.parts[-2:] == tuple(INSTANCES.split("/")) else result


def open_levels(store: Path, edited: Callable[[], Edited]) -> tuple[list[EditedArray], Placement]:
    """The objects at all resolutions, the full one first, as the edits that are given at every look make them.

    Raises
    ------
    UserError
        When there are none.
    """
    group = OmeGroup.read(store / INSTANCES)
    if not group.is_image:
        raise UserError(f"{store} has no numbered objects; predict with --instances")
    image = group.image()
    scales = [np.array(image.placement(level).scale) for level in image.levels]
    factors = [np.rint(scale / scales[0]).astype(int).tolist() for scale in scales]
    levels = [
        EditedArray(open_array(group.folder / level), edited, (factor[0], factor[1], factor[2]))
        for level, factor in zip(image.levels, factors, strict=True)
    ]
    return levels, image.placement(image.levels[0])


def identity(table: ObjectTable) -> str:
    """What tells objects from others: their numbers and sizes."""
    return sha256(np.concatenate([table.numbers, table.voxels]).astype("<i8").tobytes()).hexdigest()


def table_digest(store: Path) -> str:
    """What tells a table of objects from others, sooner than its content does; empty where there is none."""
    path = object_table_path(store)
    if not path.is_file():
        return ""
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


def shown_levels(result: Path) -> tuple[list[EditedArray], Edited, tuple[str, ...]]:
    """The objects as the log of edits makes them, to be looked at: levels, the edits, and what kept these away.

    Raises
    ------
    UserError
        When there are no objects.
    """
    store = store_of(result)
    edited, notes = Edited(()), list[str]()
    levels, placement = open_levels(store, lambda: edited)
    path = edit_log_path(store)
    try:
        if path.exists():
            digest = table_digest(store)
            if digest:
                log = EditLog.of_table(path, digest) or EditLog(
                    path, identity(ObjectTable(object_table_path(store), placement)), digest
                )
                edited = Edited(log.done)
                notes += log.notes
            else:
                notes.append(f"{path} is not applied before the objects are measured; press Mend objects")
    except UserError as error:
        notes.append(str(error))
    return levels, edited, tuple(notes)
