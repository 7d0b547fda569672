"""A random forest on pixel features, with the interface of a network.

It is fitted by scikit-learn and kept as plain arrays: nothing is ever unpickled, and no array can lead the
evaluation, which is ours, out of bounds (`PixelClassifier.check`).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from napari_autosegnet.pixel_classifier.features import PER_SCALE, SIGMAS, Features, pixel_features, reach
from napari_autosegnet.pixel_classifier.trees import DEPTH, TREES, fit_trees

if TYPE_CHECKING:
    from sklearn.tree import DecisionTreeClassifier

#: Pixels that are followed down the trees together: what is read of them stays in the processor's cache.
_TOGETHER = 8192
#: Probabilities are kept from 0, whose logarithm is infinite.
_SMALLEST = 1e-12


class ForestSpecification(BaseModel):
    """Features and size of a forest; `build` makes an empty one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    network: Literal["forest"] = "forest"
    in_channels: Annotated[int, Field(ge=1, le=4096)]
    classes: Annotated[int, Field(ge=2, le=1024)]
    sigmas: Annotated[tuple[Annotated[float, Field(ge=0.1, le=64)], ...], Field(min_length=1, max_length=16)] = SIGMAS
    trees: Annotated[int, Field(ge=1, le=1024)]
    depth: Annotated[int, Field(ge=1, le=64)]
    nodes: Annotated[int, Field(ge=1, le=2**24)]

    @property
    def architecture(self) -> None:
        """A forest is not made of a search's operations."""

    @property
    def features(self) -> int:
        """Number of features of a pixel."""
        return self.in_channels * len(self.sigmas) * PER_SCALE

    def build(self) -> PixelClassifier:
        """An empty forest, for the arrays of a kept one."""
        return PixelClassifier(self)


class PixelClassifier(nn.Module):
    """Class probabilities of pixels from their features.

    To a predictor it is a network without trainable weights. Who shows results while somebody paints computes the
    features of a section once (`features`), and from then on only fits and asks for `probabilities`.

    The trees' nodes follow each other in one table, those of a tree by their depth, so children follow parents.

    Attributes
    ----------
    specification : ForestSpecification
    roots : (trees,) int32
        First node of each tree.
    left : (nodes,) int32
        The child for values up to the threshold, the other one follows it; a leaf's is the leaf itself.
    feature : (nodes,) int32
        What is compared.
    threshold : (nodes,) float32
        Infinite for leaves.
    fractions : (nodes, K) float32
        Classes of the pixels that were there when the forest was fitted.
    """

    stride = 1
    roots: Tensor
    left: Tensor
    feature: Tensor
    threshold: Tensor
    fractions: Tensor

    def __init__(self, specification: ForestSpecification) -> None:
        super().__init__()
        self.specification = specification
        nodes = specification.nodes
        self.register_buffer("roots", torch.zeros(specification.trees, dtype=torch.int32))
        self.register_buffer("left", torch.zeros(nodes, dtype=torch.int32))
        self.register_buffer("feature", torch.zeros(nodes, dtype=torch.int32))
        self.register_buffer("threshold", torch.full((nodes,), torch.inf))
        self.register_buffer("fractions", torch.full((nodes, specification.classes), 1 / specification.classes))

    @classmethod
    def fit(
        cls,
        features: npt.NDArray[np.float32],
        targets: npt.NDArray[np.int64],
        *,
        in_channels: int,
        classes: int,
        sigmas: Sequence[float] = SIGMAS,
        trees: int = TREES,
        depth: int = DEPTH,
        seed: int = 0,
        threads: int = 1,
    ) -> PixelClassifier:
        """Forest fitted on annotated pixels; the same for the same seed, whatever the number of threads.

        Parameters
        ----------
        features : (n, f)
            Of the annotated pixels.
        targets : (n,)
            Their classes, 0 to ``classes`` - 1; not all need to occur.
        in_channels, sigmas
            What the features were computed from, and at which scales.
        """
        forest = fit_trees(features, targets, trees=trees, depth=depth, seed=seed, threads=threads)
        tables = [_table(tree) for tree in forest.estimators_]
        sizes = [len(table.left) for table in tables]
        roots = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        specification = ForestSpecification(
            in_channels=in_channels,
            classes=classes,
            sigmas=tuple(sigmas),
            trees=trees,
            depth=depth,
            nodes=sum(sizes),
        )
        module = cls(specification)
        module.roots = torch.from_numpy(roots.astype(np.int32))
        lefts = [table.left + root for table, root in zip(tables, roots, strict=True)]
        module.left = torch.from_numpy(np.concatenate(lefts).astype(np.int32))
        module.feature = torch.from_numpy(np.concatenate([table.feature for table in tables]).astype(np.int32))
        module.threshold = torch.from_numpy(np.concatenate([table.threshold for table in tables]))
        fractions = np.zeros((specification.nodes, classes), np.float32)
        fractions[:, forest.classes_] = np.concatenate([table.fractions for table in tables])
        module.fractions = torch.from_numpy(fractions)
        return module.eval()

    @property
    def radius(self) -> int:
        """Largest distance (pixels) between a pixel and another that its probabilities depend on."""
        return reach(self.specification.sigmas)

    def check(self) -> None:
        """Refuse arrays that no fit gives.

        Raises
        ------
        ValueError
            Says what is wrong with them.
        """
        kinds = {name: array.dtype for name, array in self.named_buffers()}
        if any(kinds[name] != torch.int32 for name in ("roots", "left", "feature")):
            raise ValueError("nodes are not numbered by whole numbers")
        if any(kinds[name] != torch.float32 for name in ("threshold", "fractions")):
            raise ValueError("thresholds or fractions are not 32 bit numbers")
        nodes = torch.arange(self.specification.nodes)
        is_leaf = self.left == nodes
        if not ((self.roots >= 0) & (self.roots < len(nodes))).all():
            raise ValueError("a tree begins outside the table")
        if not (is_leaf | ((self.left > nodes) & (self.left < len(nodes) - 1))).all():
            raise ValueError("a child does not follow its parent")
        if not ((self.feature >= 0) & (self.feature < self.specification.features)).all():
            raise ValueError("a node compares a feature that there is not")
        if not torch.where(is_leaf, self.threshold == torch.inf, self.threshold.isfinite()).all():
            raise ValueError("a threshold is no number")
        if not (self.fractions >= 0).all() or not ((self.fractions.sum(1) - 1).abs() < 1e-3).all():
            raise ValueError("the fractions of classes do not add up to 1")

    def features(self, images: npt.NDArray[np.float32]) -> Features:
        """Features (f, y, x) of a normalized section (c, y, x)."""
        return pixel_features(images, self.specification.sigmas, threads=torch.get_num_threads())

    def probabilities(self, features: Features) -> npt.NDArray[np.float32]:
        """Probabilities (K, ...) of pixels by their features (f, ...), such as (f, y, x)."""
        values = features.reshape(len(features), -1)
        trees = _Trees(*(array.cpu().numpy() for array in self.buffers()), depth=self.specification.depth)
        result = np.empty((self.specification.classes, values.shape[1]), np.float32)

        def compute(start: int) -> None:
            part = slice(start, start + _TOGETHER)
            result[:, part] = trees.probabilities(values[:, part])

        # One thread after the other would wait for the interpreter; numpy lets go of it while it computes.
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(compute, range(0, values.shape[1], _TOGETHER)))
        return result.reshape(-1, *features.shape[1:])

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, K, y, x) of normalized images (n, c, y, x); computed on the CPU, wherever the images are."""
        sections = images.to("cpu", torch.float32).contiguous().numpy()
        probabilities = np.stack([self.probabilities(self.features(section)) for section in sections])
        return torch.from_numpy(np.log(np.maximum(probabilities, _SMALLEST))).to(images.device)


class _Trees:
    """A forest's tables, as for `PixelClassifier`, ready to be followed."""

    def __init__(self, *tables: npt.NDArray[Any], depth: int) -> None:
        roots, left, feature, self._threshold, self._fractions = tables
        # numpy looks up numbers of 64 bits fastest.
        self._roots, self._left, self._feature = (table.astype(np.int64) for table in (roots, left, feature))
        self._depth = depth

    def probabilities(self, features: Features) -> npt.NDArray[np.float32]:
        """Probabilities (K, n) of pixels (f, n)."""
        count = features.shape[1]
        values = np.ascontiguousarray(features).ravel()
        here, begins = np.arange(count), self._feature * count
        total = np.zeros((count, self._fractions.shape[1]), np.float32)
        for root in self._roots:
            node = np.full(count, root)
            for _ in range(self._depth):
                place = begins.take(node)
                place += here
                is_right = values.take(place) > self._threshold.take(node)
                node = self._left.take(node)
                node += is_right
            total += self._fractions.take(node, axis=0)
        total /= len(self._roots)
        return total.T


class _Table(NamedTuple):
    """The nodes of one tree, by their depth; its root is the first."""

    left: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int64]
    threshold: npt.NDArray[np.float32]
    fractions: npt.NDArray[np.float64]


def _table(estimator: DecisionTreeClassifier) -> _Table:
    tree = estimator.tree_
    order, left = [0], []
    # The list grows while it is read: children are appended in pairs, level by level.
    for place, node in enumerate(order):
        if tree.children_left[node] < 0:
            left.append(place)
            continue
        left.append(len(order))
        order += [tree.children_left[node], tree.children_right[node]]
    is_leaf = tree.children_left[order] < 0
    exact = tree.threshold[order]
    threshold = exact.astype(np.float32)
    # Rounded down, so that the same 32 bit values lie above it as above scikit-learn's 64 bit threshold.
    threshold = np.where(threshold > exact, np.nextafter(threshold, np.float32(-np.inf)), threshold)
    fractions = tree.value[order][:, 0]
    return _Table(
        np.array(left),
        np.where(is_leaf, 0, tree.feature[order]),
        np.where(is_leaf, np.float32(np.inf), threshold),
        fractions / fractions.sum(1, keepdims=True),
    )
