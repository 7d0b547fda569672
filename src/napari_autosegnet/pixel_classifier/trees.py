"""How a forest is fitted: by scikit-learn, with the settings that docs/benchmarks/few-strokes.md chose. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

#: More trees, or deeper ones, are hardly better and take longer.
TREES, DEPTH = 20, 10


def fit_trees(
    features: npt.NDArray[np.float32],
    targets: npt.NDArray[np.int64],
    *,
    trees: int = TREES,
    depth: int = DEPTH,
    seed: int = 0,
    threads: int = 1,
) -> RandomForestClassifier:
    """Forest fitted on pixels (n, f) of the classes (n,); the same for the same seed, whatever the threads."""
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(trees, max_depth=depth, class_weight="balanced", random_state=seed, n_jobs=threads)
    return forest.fit(features, targets)
