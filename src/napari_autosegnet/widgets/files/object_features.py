"""Measurements of numbered objects as features of their layer: in napari's table, and under the pointer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_autosegnet.inference.instances.measurements import COLUMNS, measured
from napari_autosegnet.inference.instances.objects import Ids, grown, tiles_of
from napari_autosegnet.inference.output.ledger import edit_log_path, object_table_path
from napari_autosegnet.inference.proofreading.edits import MAX_SPLIT, Split
from napari_autosegnet.inference.proofreading.opened import store_of
from napari_autosegnet.units import unit_symbol

if TYPE_CHECKING:
    from pandas import DataFrame

    from napari_autosegnet.inference.blocks import Box
    from napari_autosegnet.inference.proofreading.edits import Change
    from napari_autosegnet.inference.proofreading.proofreading import Proofreading

#: Objects of the longest table that napari gets; of more objects, the largest ones.
MAX_ROWS = 50_000
#: Bytes of the largest table that is read while a file is opened.
MAX_TABLE_BYTES = 2**22


def small_table(result: Path) -> DataFrame | None:
    """Features of the objects of a result as they are stored, where that is quickly read and nothing was edited."""
    store = store_of(result)
    path = object_table_path(store)
    if not path.is_file() or path.stat().st_size > MAX_TABLE_BYTES or edit_log_path(store).exists():
        return None
    try:
        return _features(path)
    except (OSError, ValueError, KeyError):
        return None  # damaged: whoever mends the objects is told


class ObjectFeatures:
    """Features of objects that are edited. For a thread.

    Parameters
    ----------
    objects : Proofreading

    Attributes
    ----------
    table : DataFrame
        Of the `MAX_ROWS` largest objects, and of all that were edited.
    """

    def __init__(self, objects: Proofreading) -> None:
        self._objects = objects
        self.table = _features(object_table_path(objects.store))
        self.follow(objects.log.done)

    def follow(self, edits: Iterable[Change]) -> None:
        """Measure the objects anew that edits, done or undone just now, were of."""
        import pandas

        numbers = {
            number
            for edit in edits
            for number in ((edit.object, edit.new) if isinstance(edit, Split) else edit.objects)
        }
        if not numbers:
            return
        edited = self._objects.edited
        numbers |= {edited.object_of(number) for number in numbers}
        rows = [row for number in sorted(numbers) if (row := self._row(number)) is not None]
        kept = self.table[~self.table["index"].isin(numbers)]
        new = pandas.DataFrame(rows, columns=self.table.columns).astype(dict(self.table.dtypes))
        self.table = pandas.concat([kept, new], ignore_index=True) if len(rows) else kept.reset_index(drop=True)

    def _row(self, number: int) -> Sequence[object] | None:
        """The measurements of an object; None where there is none, or it is too large to be measured again."""
        objects = self._objects
        box = objects.box(number) if number and objects.edited.object_of(number) == number else None
        if box is None or np.prod([end - start for start, end in box]) > MAX_SPLIT:
            return None

        def read(part: Box) -> Ids:
            return (objects.levels[0].box(part) == number).astype(np.uint32)

        measurements = measured(read, tiles_of(grown(box, (1, 1, 1), objects.shape)), objects.shape, lambda: False)
        rows = [] if measurements is None else list(measurements.rows(objects.placement))
        return (number, *map(float, rows[0][1:-1])) if rows else None  # type: ignore[arg-type]


def _features(path: Path) -> DataFrame:
    """A table of objects (`Measurements.write`) as napari wants it: with their numbers as index, units in the names."""
    import pandas

    table = pandas.read_csv(path, usecols=COLUMNS, dtype={"unit": str, "object": np.int64})
    symbol = unit_symbol(table["unit"].iloc[0] if len(table) else None)
    if len(table) > MAX_ROWS:
        table = table.nlargest(MAX_ROWS, "voxels").sort_values("object", ignore_index=True)
    names = {"object": "index", "volume": f"volume ({symbol}³)", "surface": f"surface ({symbol}²)"}
    names |= {name: f"{name.replace('_', ' ')} ({symbol})" for name in COLUMNS if name.endswith(("_start", "_end"))}
    return table[list(COLUMNS[:-1])].astype(dict.fromkeys(COLUMNS[1:-1], float)).rename(columns=names)
