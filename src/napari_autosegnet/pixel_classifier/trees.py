"""How a forest is fitted: by scikit-learn, with the settings that docs/benchmarks/few-strokes.md chose. No torch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

#: More trees, or deeper ones, are hardly better and take longer.
TREES, DEPTH = 20, 10
#: Pixels that go through the trees together.
_TOGETHER = 2**15


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


def probabilities(
    forest: RandomForestClassifier, features: npt.NDArray[np.float32], *, threads: int = 1
) -> npt.NDArray[np.float32]:
    """Probabilities (K, y, x) of the forest's classes by features (f, y, x)."""
    height, width = features.shape[1:]
    fractions = np.empty((len(forest.classes_), height, width), np.float32)
    rows = max(1, _TOGETHER // width)

    def compute(start: int) -> None:
        part = slice(start, start + rows)
        pixels = np.ascontiguousarray(features[:, part].reshape(len(features), -1).T)
        # What scikit-learn does itself, without its looking for NaN first and its lock per tree.
        total = sum(tree.predict_proba(pixels, check_input=False) for tree in forest.estimators_)
        fractions[:, part] = (total / len(forest.estimators_)).T.reshape(len(fractions), -1, width)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(compute, range(0, height, rows)))
    return fractions
