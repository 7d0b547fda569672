"""Where things lie: what lies in what, and what of a result's places is taken."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

from napari_autosegnet.ome_zarr.paths import is_partial

#: What a result can consist of.
Part = Literal["labels", "probabilities", "instances"]

#: Names of what a part of a Zarr result consists of: levels, chunks, metadata.
_OWN = re.compile(r"\d+|c|zarr\.json|\.z(array|attrs|group|metadata)")
#: What systems leave in any folder that somebody looks at, or that a network serves.
_OF_THE_SYSTEM = re.compile(r"\.DS_Store|\._.*|Thumbs\.db|desktop\.ini|\.directory|\.nfs[0-9a-f]+")


def is_same(one: Path, other: Path) -> bool:
    """Whether two paths are one file or folder, whatever links lead there."""
    return one.exists() and other.exists() and one.samefile(other)


def lies_in(path: Path, outer: Path) -> bool:
    """Whether a path, which need not exist yet, is another one or lies in it."""
    path = path.resolve()
    return any(is_same(each, outer) for each in (path, *path.parents))


def taken(places: Mapping[Part, Path], parts: Sequence[Part], ours: Collection[Part]) -> Path | None:
    """The first place of some parts of a result where something lies that is not ours."""
    return next((places[part] for part in parts if part not in ours and is_used(places[part])), None)


def is_used(path: Path) -> bool:
    """Whether anything lies at a path; an empty folder is nothing."""
    return any(path.iterdir()) if path.is_dir() else path.exists()


def stranger(part: Path, within: Path) -> Path | None:
    """The first thing that must not be deleted with a part of a Zarr result: a link, or what is no Zarr's.

    ``within`` is the store: a link between it and the part counts, too.
    """
    between = [each for each in (part, *part.parents) if within in each.parents]
    linked = next((each for each in reversed(between) if each.is_symlink()), None)
    return linked or (_stranger_in(part) if part.is_dir() else None)


def _stranger_in(folder: Path) -> Path | None:
    with os.scandir(folder) as content:
        entries = list(content)
    for entry in entries:
        known = _OWN.fullmatch(entry.name) or is_partial(entry.name) or _OF_THE_SYSTEM.fullmatch(entry.name)
        if entry.is_symlink() or not known:
            return Path(entry.path)
        if entry.is_dir() and (inner := _stranger_in(Path(entry.path))) is not None:
            return inner
    return None
