"""Small arrays for layers in tests."""

from __future__ import annotations

import numpy as np


def gray(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, shape, np.uint8)


def painted(*shape: int) -> np.ndarray:
    """Two classes in stripes, so that every part of it has both."""
    labels = np.ones(shape, np.uint8)
    labels[..., ::2] = 2
    return labels
