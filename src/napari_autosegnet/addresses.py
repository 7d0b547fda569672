"""Addresses of stores on a network, which travel as paths: ``https://host/a.zarr`` has then lost one of its slashes."""

from __future__ import annotations

import re
from pathlib import Path

from napari_autosegnet.errors import UserError

#: Neuroglancer writes the format before an address: ``precomputed://gs://bucket/volume``.
_ADDRESS = re.compile(r"(?:(precomputed|n5):/+)?([a-zA-Z][a-zA-Z0-9+-]+):/+(.*)", re.DOTALL)


def address_of(path: Path) -> str | None:
    """The address that a path stands for, None where it is one on a disk; ``file://`` is none.

    Raises
    ------
    UserError
        When it holds a password or a token: it would be kept with runs and results.
    """
    match = _ADDRESS.fullmatch(path.as_posix())
    if match is None or match[2].lower() == "file" or path.exists():
        return None
    scheme, rest = match[2].lower(), match[3]
    if "@" in rest.partition("/")[0] or (scheme.startswith("http") and "?" in rest):
        raise UserError(
            f"{scheme}://{rest} holds a password or a token, which would be kept with the results; leave it out: "
            "credentials are read from the environment (AWS_ACCESS_KEY_ID, ~/.aws, ~/.netrc)"
        )
    return f"{match[1]}://{scheme}://{rest}" if match[1] else f"{scheme}://{rest}"


def on_disk(path: Path) -> Path:
    """A path as it is, but for ``file:///folder``, which is ``/folder``."""
    match = re.fullmatch(r"file:/+(?:localhost/+)?(.*)", path.as_posix(), re.IGNORECASE)
    if match is None or path.exists():
        return path
    return Path(match[1] if re.match("[a-zA-Z]:", match[1]) else f"/{match[1]}")


def absolute(path: Path) -> Path:
    """A path that can be followed from any folder; an address as it is."""
    return path if address_of(path) else on_disk(path).absolute()
