"""What several tests of data need."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from napari_autosegnet.data import loaded_regions, normalization


@pytest.fixture(scope="module")
def unlimited_pixels() -> Iterator[None]:
    """Pixels say here where they lie, so large ones must stay what they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(normalization, "LIMIT", np.inf)
        patch.setattr(loaded_regions, "LIMIT", np.inf)
        yield
