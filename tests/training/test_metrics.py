"""Scores agree with counts by hand, with scikit-image, and with the ISBI 2012 definition."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage.metrics import adapted_rand_error, variation_of_information

from napari_autosegnet.errors import UserError
from napari_autosegnet.training.metrics import (
    IGNORE,
    THRESHOLDS,
    BoundaryScores,
    Calibration,
    ConfusionMatrix,
    Scores,
    boundary_scores,
    compare_segments,
    thin_boundary,
)

TRUTH = np.array([[0, 0, 1, 1], [0, 1, 1, IGNORE]])
PREDICTION = np.array([[0, 1, 1, 1], [0, 1, 0, 0]])


def confusion(prediction: np.ndarray, truth: np.ndarray, classes: int) -> ConfusionMatrix:
    matrix = ConfusionMatrix(classes)
    matrix.add(prediction, truth)
    return matrix


def test_scores_of_a_small_example_by_hand() -> None:
    scores = confusion(PREDICTION, TRUTH, 3).scores(["membrane", "cell", "glia"])
    assert scores.confusion == [[2, 1, 0], [1, 3, 0], [0, 0, 0]]
    assert scores.iou == {"membrane": 2 / 4, "cell": 3 / 5, "glia": None}
    assert scores.dice == {"membrane": 4 / 6, "cell": 6 / 8, "glia": None}
    assert scores.mean_iou == pytest.approx((2 / 4 + 3 / 5) / 2)
    assert scores.accuracy == 5 / 7
    assert scores.not_predicted == [0, 0, 0]
    assert scores.v_rand is None and scores.threshold is None
    assert Scores.model_validate_json(scores.model_dump_json()) == scores
    assert "NaN" not in scores.model_dump_json()


def test_a_pixel_without_prediction_is_missed_not_left_out() -> None:
    scores = confusion(np.array([0, IGNORE, 7]), np.array([0, 0, 1]), 2).scores(["a", "b"])
    assert scores.not_predicted == [1, 1]
    assert scores.iou == {"a": 0.5, "b": 0.0}
    assert scores.accuracy == pytest.approx(1 / 3)


def test_nothing_annotated_is_a_user_error() -> None:
    with pytest.raises(UserError, match="no pixel is annotated"):
        confusion(np.zeros(4, dtype=np.int64), np.full(4, IGNORE), 2).scores(["a", "b"])


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="truth"):
        ConfusionMatrix(2).add(np.zeros((2, 2), dtype=np.int64), np.zeros(4, dtype=np.int64))


@given(
    arrays.arrays(np.int64, (3, 5, 4), elements=st.integers(IGNORE, 3)),
    arrays.arrays(np.int64, (3, 5, 4), elements=st.integers(0, 3)),
)
def test_batches_of_tensors_and_arrays_count_like_plain_loops(truth: np.ndarray, prediction: np.ndarray) -> None:
    matrix = ConfusionMatrix(4)
    matrix.add(torch.from_numpy(prediction[:2]), torch.from_numpy(truth[:2]))
    matrix.add(prediction[2].astype(np.uint8), truth[2].astype(np.int16))
    expected = [[int(((truth == i) & (prediction == j)).sum()) for j in range(4)] for i in range(4)]
    assert matrix.counts[:, :4].tolist() == expected
    assert matrix.counts[:, 4].sum() == 0
    for index, iou in enumerate(matrix.iou):
        union = int((((truth == index) | (prediction == index)) & (truth != IGNORE)).sum())
        assert iou == (expected[index][index] / union if union else None)


def test_calibration_by_hand() -> None:
    calibration = Calibration(bins=10)
    assert calibration.error is None
    probabilities = torch.tensor([[0.85, 0.85, 0.35, 0.6], [0.15, 0.15, 0.65, 0.4]])[None]
    calibration.add(probabilities, torch.tensor([[0, 1, 1, IGNORE]]))
    # Bin 0.8-0.9: two pixels, half of them right; bin 0.6-0.7: one pixel, right.
    assert calibration.error == pytest.approx((2 * abs(0.85 - 0.5) + 1 * abs(0.65 - 1)) / 3, abs=1e-6)


def test_a_sure_and_right_network_is_calibrated() -> None:
    calibration = Calibration()
    calibration.add(torch.eye(3)[None], torch.arange(3)[None])
    assert calibration.error == 0


# Two cells of 2 x 3 pixels on both sides of a boundary column (class 0).
TWO_CELLS = np.array([[1, 1, 1, 0, 1, 1, 1], [1, 1, 1, 0, 1, 1, 1]])


def test_merging_two_cells_by_hand() -> None:
    scores = boundary_scores([np.zeros((2, 7))], [TWO_CELLS], 0)
    assert scores is not None
    # p = (1/2, 1/2), s = (1), t = (1/2, 1/2); one segment tells nothing about two.
    assert scores.v_rand == pytest.approx(0.5 / (0.5 * 1 + 0.5 * 0.5))
    assert scores.v_info == 0


def test_splitting_a_cell_by_hand() -> None:
    probability = np.where(TWO_CELLS == 0, 1.0, 0.0)
    probability[:, 1] = 1.0
    scores = boundary_scores([probability], [TWO_CELLS], 0)
    assert scores is not None
    # Of 12 pixels: segments of 2 and 2, the two pixels on the wrong line, the right cell of 6.
    assert scores.v_rand == pytest.approx(46 / (0.5 * 46 + 0.5 * 72))
    entropy_of_segments = math.log(6) / 3 + math.log(12) / 6 + math.log(2) / 2
    assert scores.v_info == pytest.approx(math.log(2) / (0.5 * entropy_of_segments + 0.5 * math.log(2)))


def test_the_best_threshold_is_found_for_each_score() -> None:
    probability = np.where(TWO_CELLS == 0, 0.9, 0.0)
    probability[:, 1] = 0.4
    scores = boundary_scores([probability], [TWO_CELLS], 0, thresholds=(0.2, 0.5, 0.95))
    assert scores == BoundaryScores(v_rand=1.0, v_info=1.0, threshold=0.5)


def grid(width: int) -> np.ndarray:
    """Sections of 65 x 65 with boundary lines of odd ``width`` around centers 16 pixels apart."""
    near = np.abs((np.arange(65) + 8) % 16 - 8) <= width // 2
    return near[:, None] | near[None, :]


def test_perfect_prediction_scores_one() -> None:
    truth = np.where(grid(3), 0, 1)
    truth[:10, :10] = IGNORE
    scores = boundary_scores([grid(3).astype(float)] * 2, [truth, truth], 0)
    assert scores is not None and scores.v_rand == scores.v_info == 1


@pytest.mark.parametrize("width", [1, 5, 9])
def test_how_wide_a_boundary_is_drawn_costs_nothing(width: int) -> None:
    scores = boundary_scores([grid(width).astype(float)], [np.where(grid(3), 0, 1)], 0)
    assert scores is not None
    assert scores.v_rand == scores.v_info == 1


def test_a_gap_in_the_boundary_costs_much() -> None:
    probability = grid(3).astype(float)
    probability[4:7, 15:18] = 0
    scores = boundary_scores([probability], [np.where(grid(3), 0, 1)], 0)
    assert scores is not None and scores.v_rand < 0.97


def test_thinned_lines_are_one_pixel_wide_and_keep_the_segments() -> None:
    segments = thin_boundary(grid(5))
    assert segments.max() == 16
    assert ((segments == 0).mean()) < 0.12
    assert np.unique(segments[~grid(5)]).min() == 1


def test_sections_are_averaged_and_those_without_foreground_left_out() -> None:
    perfect = np.where(TWO_CELLS == 0, 1.0, 0.0)
    nothing = np.full_like(TWO_CELLS, IGNORE)
    seen: list[tuple[str, int, int]] = []
    scores = boundary_scores(
        [perfect, np.zeros((2, 7)), perfect],
        [TWO_CELLS, TWO_CELLS, nothing],
        0,
        report=lambda event: seen.append((event.step, event.done, event.total)),
    )
    assert scores is not None and scores.v_rand == pytest.approx((1 + 2 / 3) / 2)
    assert seen == [("V_rand", 1, 3), ("V_rand", 2, 3), ("V_rand", 3, 3)]
    assert boundary_scores([perfect], [nothing], 0) is None


def test_a_stop_gives_no_score_of_some_sections() -> None:
    perfect = np.where(TWO_CELLS == 0, 1.0, 0.0)
    assert boundary_scores([perfect], [TWO_CELLS], 0, should_stop=lambda: True) is None
    asked = iter([False, True])
    assert boundary_scores([perfect] * 2, [TWO_CELLS] * 2, 0, should_stop=lambda: next(asked)) is None


@given(
    arrays.arrays(np.int32, (6, 8), elements=st.integers(1, 4)),
    arrays.arrays(np.int32, (6, 8), elements=st.integers(0, 3)),
    st.floats(0, 1),
)
def test_formulas_agree_with_scikit_image(segments: np.ndarray, truth: np.ndarray, alpha: float) -> None:
    # Pixels that share a segment with themselves are no pairs to scikit-image: repeat each pixel many times.
    segments, truth = np.tile(segments, (40, 1)), np.tile(truth, (40, 1))
    if not truth.any():
        with pytest.raises(ValueError, match="no foreground"):
            compare_segments(segments, truth)
        return
    v_rand, v_info = compare_segments(segments, truth, alpha=alpha)
    # scikit-image's alpha weighs the truth where the paper's weighs the prediction.
    error, _, _ = adapted_rand_error(truth, segments, alpha=1 - alpha)
    assert v_rand == pytest.approx(1 - error, abs=2e-2)
    false_splits, false_merges = variation_of_information(truth, segments, ignore_labels=(0,))
    counts = np.bincount(truth[truth > 0]) / (truth > 0).sum()
    entropy = -sum(c * math.log2(c) for c in counts if c > 0)
    information = entropy - false_merges
    entropy_of_segments = information + false_splits
    entropies = alpha * entropy_of_segments + (1 - alpha) * entropy
    if entropies > 1e-6:
        assert v_info == pytest.approx(information / entropies, abs=1e-6)
    assert 0 <= v_rand <= 1 + 1e-9 and 0 <= v_info <= 1


def test_a_section_of_the_challenge_is_scored(shared_data: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    labels = tifffile.imread(shared_data / "isbi2012" / "train-labels.tif", key=24)
    image = tifffile.imread(shared_data / "isbi2012" / "train-volume.tif", key=24)
    truth = np.where(labels == 0, 0, 1)
    scores = boundary_scores([1 - image / 255], [truth], 0, thresholds=[*THRESHOLDS, 0.975])
    assert scores is not None and 0.3 < scores.v_rand < 0.95
    perfect = boundary_scores([(labels == 0).astype(float)], [truth], 0)
    assert perfect == BoundaryScores(v_rand=1.0, v_info=1.0, threshold=THRESHOLDS[0])
