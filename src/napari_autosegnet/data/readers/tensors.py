"""What N5 and neuroglancer's precomputed volumes share: tensorstore reads both, from a folder and behind an address."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_autosegnet.addresses import address_of
from napari_autosegnet.data.stack import Array
from napari_autosegnet.errors import UserError, one_line

#: Decoded chunks that are kept: as many as several sections touch, or each would be decoded for each section.
_KEPT_BYTES = 2**27


@dataclass(frozen=True)
class Tensor:
    """A tensorstore whose axes are turned around, so that x is the last; read where it is indexed."""

    store: Any
    files: Sequence[Path]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.store.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self.store.dtype.numpy_dtype
        return dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        return tuple(self.store.chunk_layout.read_chunk.shape)

    def __getitem__(self, index: Any) -> Array:
        return np.asarray(self.store[index].read().result())


def open_tensor(path: Path, driver: str, metadata: str, place: str = "") -> tuple[Tensor, dict[str, Any]]:
    """Open a volume, and read the file that describes it; ``place`` is the volume's within the path.

    Raises
    ------
    UserError
        When there is none, or it is damaged.
    """
    import tensorstore

    address = address_of(path)
    # As neuroglancer has it, precomputed://gs://bucket/volume.
    root = path.absolute().as_uri() if address is None else re.sub(r"^(precomputed|n5)://", "", address)
    try:
        store = tensorstore.KvStore.open(f"{root.rstrip('/')}/{place}").result()
        about = store.read(metadata).result()
        if about.state != "value":
            raise UserError(f"there is no {metadata} in {path / place}; check the path, or the address")
        spec = {"driver": driver, "kvstore": store.spec().to_json(), "recheck_cached_data": "open"}
        kept = tensorstore.Context({"cache_pool": {"total_bytes_limit": _KEPT_BYTES}})
        tensor = tensorstore.open(spec, open=True, read=True, context=kept).result()
        described = json.loads(about.value)
    except UserError:
        raise
    except Exception as error:  # of the network, or of damaged metadata
        raise UserError(
            f"{path / place} cannot be read as a volume ({one_line(error)}); check the path, or copy it again"
        ) from error
    tensor = tensor[tensorstore.d[:].translate_to[0]].T
    return Tensor(tensor, [] if address is not None else [path / place / metadata]), described


def steps_of(tensor: Tensor) -> tuple[list[float | None], list[str]]:
    """Size (z, y, x) of a voxel and its units, as far as they are known."""
    units = [*[None] * 3, *tensor.store.dimension_units][-3:]
    return (
        [None if unit is None else unit.multiplier for unit in units],
        ["" if unit is None else unit.base_unit for unit in units],
    )
