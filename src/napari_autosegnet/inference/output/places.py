"""Where things lie: what is a Zarr, what lies in what, and what of a result's places is taken."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

from napari_autosegnet.data.zarr_nodes import is_node

#: What a result can consist of.
Part = Literal["labels", "probabilities", "instances"]

#: Names of what a part of a Zarr result consists of: levels, chunks, metadata.
_OWN = re.compile(r"\d+|c|zarr\.json|\.z(array|attrs|group|metadata)")
#: Files in the making: zarr's of chunks and metadata, and those of `napari_autosegnet.files.replacing`.
_PARTIAL = re.compile(
    r"(zarr|\.z(array|attrs|group|metadata)|\d+)\.[0-9a-f]{32}\.partial|\.(zarr\.json|\.z[a-z]+)\.\d+\.partial"
)
#: What systems leave in any folder that somebody looks at, or that a network serves.
_OF_THE_SYSTEM = re.compile(r"\.DS_Store|\._.*|Thumbs\.db|desktop\.ini|\.directory|\.nfs[0-9a-f]+")


def is_array(folder: Path) -> bool:
    """Whether a folder is a Zarr array."""
    return (folder / ".zarray").is_file() or read_json(folder / "zarr.json").get("node_type") == "array"


def zarrs_around(path: Path) -> list[Path]:
    """The Zarr groups that a path lies in, the innermost first."""
    found = []
    for folder in path.absolute().parents:
        if not folder.name or not is_node(folder):
            break
        found.append(folder)
    return found


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


def is_partial(name: str) -> bool:
    """Whether a file of this name is one that a killed run did not finish; others have their own ``.partial``."""
    return _PARTIAL.fullmatch(name) is not None


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
        if entry.is_dir() and (found := _stranger_in(Path(entry.path))) is not None:
            return found
    return None


def read_json(file: Path) -> dict[str, object]:
    """Content of a metadata file; empty where there is none that can be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
