"""Zarr arrays and groups, opened so that a damaged one is reported in one line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_autosegnet.addresses import address_of
from napari_autosegnet.errors import UserError, one_line
from napari_autosegnet.ome_zarr.paths import damaged_file, is_elsewhere

if TYPE_CHECKING:
    import zarr

Mode = Literal["r", "r+"]


def open_node(folder: Path, mode: Mode = "r", advice: str = "copy the store again") -> zarr.Array[Any] | zarr.Group:
    """Open an array or group.

    Parameters
    ----------
    advice : str
        What to do about a damaged one; for the error.

    Raises
    ------
    UserError
        When its metadata are damaged, or ask for what is not known here.
    """
    import zarr

    try:
        if not is_elsewhere(folder):
            return zarr.open(folder, mode=mode)
        from napari_autosegnet.ome_zarr.elsewhere import store_of  # not needed for stores on a disk

        store, path = store_of(folder)
        return zarr.open(store, path=path, mode="r")
    except (FileNotFoundError, UserError):
        raise
    except Exception as error:  # zarr and its codecs raise whatever they like
        if address_of(folder) is not None:
            raise UserError(
                f"{folder} cannot be read ({one_line(error)}); check the address, the network, and the credentials"
            ) from error
        if isinstance(error, OSError):
            raise  # of the disk, whose own message is clear
        raise UserError(f"{_problem(folder, error)}; {advice}") from error


def open_array(folder: Path, mode: Mode = "r", advice: str = "copy the store again") -> zarr.Array[Any]:
    """Open an array; see `open_node`."""
    import zarr

    node = open_node(folder, mode, advice)
    if not isinstance(node, zarr.Array):
        raise UserError(f"{folder} is not a Zarr array; {advice}")
    return node


def open_group(folder: Path, mode: Mode = "r", advice: str = "copy the store again") -> zarr.Group:
    """Open a group; see `open_node`."""
    import zarr

    node = open_node(folder, mode, advice)
    if not isinstance(node, zarr.Group):
        raise UserError(f"{folder} is not a Zarr group; {advice}")
    return node


def _problem(folder: Path, error: Exception) -> str:
    file = damaged_file(folder)
    if file is not None:
        return f"{file} is cut off or damaged"
    text = one_line(error)
    if "codec" in text.lower():
        return f"{folder} is compressed in a way that is not known here ({text}); write it with zstd or gzip"
    if "data type" in text.lower():
        return f"{folder} holds values of a kind that is not known here ({text}); write whole or real numbers"
    return f"the Zarr metadata of {folder} are incomplete or damaged ({text})"
