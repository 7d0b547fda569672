from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier

from napari_autosegnet.errors import UserError
from napari_autosegnet.model import Model
from napari_autosegnet.pixel_classifier.forest import PixelClassifier
from small_models import small_forest

Change = Callable[[dict[str, torch.Tensor]], None]


def strokes(count: int = 500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, 16) and classes: the middle one of three does not occur."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(count, 16)).astype(np.float32)
    return features, 2 * (features[:, 0] * features[:, 1] + generator.normal(size=count) / 4 > 0)


def test_probabilities_are_those_of_scikit_learn() -> None:
    features, targets = strokes()
    ours = PixelClassifier.fit(features, targets, in_channels=1, classes=3, trees=7, depth=9, seed=3)
    theirs = RandomForestClassifier(7, max_depth=9, class_weight="balanced", random_state=3).fit(features, targets)
    others, _ = strokes(20_000, seed=1)
    # Values just at a threshold are where two ways to compare would differ.
    others[:500, :] = np.resize(np.concatenate([tree.tree_.threshold for tree in theirs.estimators_]), (500, 16))
    found = ours.probabilities(others.T)
    np.testing.assert_allclose(found[[0, 2]].T, theirs.predict_proba(others), atol=1e-6)
    assert (found[1] == 0).all()
    np.testing.assert_array_equal(ours.probabilities(others.T.reshape(16, 100, 200)), found.reshape(3, 100, 200))


def test_a_seed_gives_one_forest_whatever_the_threads() -> None:
    features, targets = strokes()

    def fit(**more: int) -> PixelClassifier:
        return PixelClassifier.fit(features, targets, in_channels=1, classes=3, trees=5, **more)

    first, again, other = fit(), fit(threads=2), fit(seed=1)
    for name, array in first.state_dict().items():
        assert torch.equal(array, again.state_dict()[name]), name
    assert first.state_dict()["threshold"].shape != other.state_dict()["threshold"].shape


def test_saved_and_loaded_a_forest_gives_the_same(tmp_path: Path) -> None:
    model = small_forest(image_channels=2, context=1)
    model.save(tmp_path / "model")
    again = Model.load(tmp_path / "model")
    assert again.description == model.description and again.fingerprint == model.fingerprint
    image = torch.randn(2, 6, 40, 50)
    torch.testing.assert_close(again.network()(image), model.network()(image), rtol=0, atol=0)
    np.testing.assert_allclose(model.network()(image).softmax(1).sum(1), 1, atol=1e-6)


def put(name: str, place: int, value: float) -> Change:
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights[name] = weights[name].clone()
        weights[name][place] = value

    return change


def cast(name: str, kind: torch.dtype) -> Change:
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights[name] = weights[name].to(kind)

    return change


def shorten(name: str) -> Change:
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights[name] = weights[name][:-1]

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("roots", 1, -1), "a tree begins outside"),
        (put("roots", 1, 2**30), "a tree begins outside"),
        (put("left", 1, 0), "a child does not follow"),
        (put("left", 0, -7), "a child does not follow"),
        (put("left", 0, 2**31 - 1), "a child does not follow"),
        (put("left", -1, 2**20), "a child does not follow"),
        (put("feature", 0, 8), "a feature that there is not"),
        (put("feature", 0, -1), "a feature that there is not"),
        (put("threshold", 0, float("nan")), "a threshold is no number"),
        (put("threshold", 0, float("inf")), "a threshold is no number"),
        (put("threshold", -1, 0.0), "a threshold is no number"),
        (put("fractions", 3, float("nan")), "do not add up to 1"),
        (put("fractions", 3, -1.0), "do not add up to 1"),
        (put("fractions", 3, 9.0), "do not add up to 1"),
        (cast("left", torch.float32), "not numbered by whole numbers"),
        (cast("threshold", torch.float16), "not 32 bit numbers"),
        (shorten("left"), "do not fit"),
        (lambda weights: weights.pop("feature"), "do not fit"),
    ],
)
def test_arrays_that_no_fit_gives_end_in_one_line(tmp_path: Path, change: Change, words: str) -> None:
    model = small_forest()
    weights = model.weights
    change(weights)
    Model(model.description, weights).save(tmp_path / "model")
    with pytest.raises(UserError, match=words):
        Model.load(tmp_path / "model").network()


@pytest.mark.parametrize("size", [{"nodes": 2**40}, {"depth": 0}, {"sigmas": (1000.0,)}, {"trees": 10**6}])
def test_impossible_sizes_end_in_one_line(tmp_path: Path, size: dict[str, object]) -> None:
    model = small_forest()
    impossible = model.specification.model_copy(update=size)
    Model(model.description.model_copy(update={"network": impossible}), model.weights).save(tmp_path / "model")
    with pytest.raises(UserError, match=rf"damaged at '.*{next(iter(size))}"):
        Model.load(tmp_path / "model")
