"""JSON files that somebody may have damaged or made: read in one place, and refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from napari_autosegnet.errors import UserError
from napari_autosegnet.files import refuse_pipe

#: A larger file is none that this program writes.
MAX_BYTES = 64 * 2**20


def parse_json(content: str | bytes, place: object, advice: str) -> Any:
    """The value that a JSON text stands for.

    Parameters
    ----------
    content : str or bytes
    place
        Where it comes from, and ``advice`` what to do about it; for the error.

    Raises
    ------
    UserError
        When the text is not JSON.
    """
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        problem = f"line {error.lineno}, column {error.colno}"
    except UnicodeDecodeError:
        problem = "it is not text"
    except RecursionError:
        problem = "it is nested too deeply"
    except ValueError:
        problem = "a number in it is too long"
    raise UserError(f"{place} is not JSON ({problem}); {advice}")


def read_json(path: Path, advice: str) -> Any:
    """The value in a JSON file; see `parse_json`.

    Raises
    ------
    UserError
        When the file cannot be read, is too large, or is not JSON.
    """
    refuse_pipe(path, advice)
    try:
        with open(path, "rb") as handle:
            content = handle.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; {advice}") from error
    if len(content) > MAX_BYTES:
        raise UserError(f"{path} is too large to be read ({path.stat().st_size} bytes); {advice}")
    return parse_json(content, path, advice)


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none that can be read."""
    try:
        content = read_json(path, "choose another") if path.is_file() else None
    except UserError:
        return {}
    return content if isinstance(content, dict) else {}
