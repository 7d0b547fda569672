"""What lies where in a Zarr store, told from the names and the small files on the disk, without zarr."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from napari_autosegnet.addresses import address_of

#: Parts of a result, within its store.
LABELS = "labels/segmentation"
INSTANCES = "labels/instances"
PROBABILITIES = "probabilities"

#: Endings of stores in one zip.
ZIPS = (".zarr.zip", ".ozx")
METADATA_FILES = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
#: Files in the making: zarr's of chunks and metadata, and those of `napari_autosegnet.files.replacing`.
_PARTIAL = re.compile(
    r"(zarr|\.z(array|attrs|group|metadata)|\d+)\.[0-9a-f]{32}\.partial|\.(zarr\.json|\.z[a-z]+)\.\d+\.partial"
)


def is_node(folder: Path) -> bool:
    """Whether a folder is a Zarr array or group."""
    return any((folder / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


def is_array(folder: Path) -> bool:
    """Whether a folder is a Zarr array."""
    return (folder / ".zarray").is_file() or read_metadata(folder / "zarr.json").get("node_type") == "array"


def looks_like_zarr(folder: Path) -> bool:
    """Whether a folder is to be read as Zarr: also one that lost a file, so that the error names it."""
    return any((folder / name).exists() for name in METADATA_FILES)


def zip_around(path: Path) -> Path | None:
    """The zip that a path leads to or into; None where there is none."""
    return next((each for each in (path, *path.parents) if each.name.lower().endswith(ZIPS) and each.is_file()), None)


def is_elsewhere(path: Path) -> bool:
    """Whether a path leads to a store that is not a folder: behind an address, or in a zip."""
    return address_of(path) is not None or zip_around(path) is not None


def read_metadata(file: Path) -> dict[str, object]:
    """Content of a metadata file; empty where there is none that can be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def damaged_file(folder: Path) -> Path | None:
    """The metadata file of a node that is cut off or not JSON; None where all can be read."""
    for name in METADATA_FILES:
        file = folder / name
        try:
            if file.is_file() and not isinstance(json.loads(file.read_bytes()), dict):
                return file
        except (ValueError, RecursionError):
            return file
    return None


def zarrs_around(path: Path) -> list[Path]:
    """The Zarr groups that a path lies in, the innermost first."""
    groups = []
    for folder in path.absolute().parents:
        if not folder.name or not is_node(folder):
            break
        groups.append(folder)
    return groups


def is_partial(name: str) -> bool:
    """Whether a file of this name is one that a killed run did not finish; others have their own ``.partial``."""
    return _PARTIAL.fullmatch(name) is not None


def remove_partials(folder: Path, *, deep: bool = False) -> None:
    """Remove what a killed run did not finish in a folder and, if ``deep``, below; links are not followed."""
    for parent, _, names in os.walk(folder):
        for name in names:
            if is_partial(name):
                os.unlink(os.path.join(parent, name))
        if not deep:
            break
