"""N5 and neuroglancer's precomputed volumes, as tensorstore writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def write(path: Path, about: dict[str, Any], pixels: np.ndarray) -> Path:
    import tensorstore

    spec = {"kvstore": {"driver": "file", "path": str(path)}, **about}
    tensorstore.open(spec, create=True).result().write(pixels).result()
    return path


def write_n5(path: Path, pixels: np.ndarray, **more: Any) -> Path:
    size = pixels.shape[::-1]
    about = {"dataType": str(pixels.dtype), "dimensions": size, "blockSize": [32] * len(size)}
    return write(path, {"driver": "n5", "metadata": {**about, "compression": {"type": "gzip"}, **more}}, pixels.T)


def write_precomputed(path: Path, pixels: np.ndarray, **more: Any) -> Path:
    """From pixels (c, z, y, x)."""
    scale = {"resolution": [4, 5, 40], "encoding": "raw", "chunk_size": [32, 32, 4], "size": pixels.shape[:0:-1]}
    about = {
        "driver": "neuroglancer_precomputed",
        "multiscale_metadata": {"type": "image", "data_type": str(pixels.dtype), "num_channels": len(pixels)},
        "scale_metadata": {**scale, **more},
    }
    return write(path, about, pixels.T)
