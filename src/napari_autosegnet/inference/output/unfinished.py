"""Whether labels on the disk are all there, for whoever reads a result that was stopped or is being written."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from napari_autosegnet.inference.output.ledger import Ledger, ledger_path, scratch_path
from napari_autosegnet.ome_zarr.paths import INSTANCES, PROBABILITIES, is_node

#: Where the parts of a result lie in it; a file, or a store as a whole, is its labels.
_PARTS = (".", "labels/", PROBABILITIES)


def unfinished(labels: Path) -> str | None:
    """What is missing of a result, or of a part of it, as a sentence; None where nothing is, or nobody can tell."""
    for result in (labels, *(folder for folder in labels.parents if is_node(folder))):
        part = labels.relative_to(result).as_posix()
        ledger = Ledger.look(ledger_path(result)) if part.startswith(_PARTS) else None
        if ledger is None:
            continue
        wanted = _blocks(ledger)
        done = len(ledger.finished())
        if wanted is not None and done < wanted:
            return f"{result} is not finished: {done} of {wanted} blocks are done, and the rest is 0"
        if part.startswith(INSTANCES) and scratch_path(result).exists():
            return f"the objects of {result} are not all numbered yet"
        return None
    return None


def _blocks(ledger: Ledger) -> int | None:
    """How many blocks a result has; None where its ledger does not say."""
    settings: Any = ledger.parts.get("settings")
    try:
        block = settings["block"]
        region = settings["region"] or [(0, size) for size in settings["levels"][0]]
        return int(
            math.prod(-(-stop // step) - start // step for (start, stop), step in zip(region, block, strict=True))
        )
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError):
        return None
