"""Where things lie: what is a Zarr, what lies in what, and what of a result's places is taken."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

#: What a result can consist of.
Part = Literal["labels", "probabilities", "instances"]


def is_node(folder: Path) -> bool:
    """Whether a folder is a Zarr array or group."""
    return any((folder / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


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


def read_json(file: Path) -> dict[str, object]:
    """Content of a metadata file; empty where there is none that can be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
