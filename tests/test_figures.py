"""Figures show what they should, as files, without a display and without pyplot."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import pytest

from napari_autosegnet.architecture import OPERATIONS, Architecture, SearchSpace
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import DataRead, DeviceChosen, Epoch, WarningRaised
from napari_autosegnet.figures import (
    describe_architecture,
    draw_architecture,
    draw_curves,
    draw_uncertainty,
    normalized_entropy,
    overlay,
)
from napari_autosegnet.figures.curves import highest_shown
from napari_autosegnet.figures.sections import to_gray


class Info(NamedTuple):
    name: str
    color: str


CLASSES = (Info("membrane", "#d62728"), Info("cell", "#1f77b4"))
SPACE = SearchSpace(levels=2)
# Choices: (input, operation) per node, three cells of two nodes per layer, then the skips.
PLAIN = SPACE.decode([0, 0, 1, 0] * 9 + [1, 0])
CHAINED = SPACE.decode([0, 0, 1, 1, 2, 2, 1, 3, 3, 0, 2, 1] * 3 + [0, 1])


def pixels(path: Path) -> np.ndarray:
    from matplotlib.image import imread

    return np.asarray(imread(path))


def identifiers(path: Path) -> set[str]:
    return {element.get("id", "") for element in ElementTree.parse(path).iter()}


def test_description_names_every_cell_and_skip() -> None:
    assert describe_architecture(CHAINED).splitlines() == [
        "down    cell 1 = sep_conv_3x3(h[t-2]) + sep_conv_5x5(h[t-1])",
        "        cell 2 = hdc_3x3(cell 1) + identity(h[t-1])",
        "        cell 3 = sep_conv_3x3(cell 2) + sep_conv_5x5(cell 1)",
        "        output = cell 3",
        "bridge  cell 1 = sep_conv_3x3(h[t-2]) + sep_conv_5x5(h[t-1])",
        "        cell 2 = hdc_3x3(cell 1) + identity(h[t-1])",
        "        cell 3 = sep_conv_3x3(cell 2) + sep_conv_5x5(cell 1)",
        "        output = cell 3",
        "up      cell 1 = sep_conv_3x3(h[t-2]) + sep_conv_5x5(h[t-1])",
        "        cell 2 = hdc_3x3(cell 1) + identity(h[t-1])",
        "        cell 3 = sep_conv_3x3(cell 2) + sep_conv_5x5(cell 1)",
        "        output = cell 3",
        "long skips, from the bridge outwards: no, yes",
        "operations: 6 sep_conv_3x3, 6 sep_conv_5x5, 3 hdc_3x3, 3 identity",
    ]


@pytest.mark.parametrize("architecture", [PLAIN, CHAINED], ids=["plain", "chained"])
def test_svg_shows_the_operations_in_use_and_no_other(architecture: Architecture, tmp_path: Path) -> None:
    path = tmp_path / "architecture.svg"
    draw_architecture(architecture, path)
    text = path.read_text(encoding="utf-8")
    used = {node.operation for node in architecture.nodes}
    for name in OPERATIONS:
        # conv_3x3 is a part of sep_conv_3x3
        assert bool(re.search(rf"\b{name}\b", text)) == (name in used)
    boxes = {
        f"{kind}-{cell}-{place}-{node.operation}"
        for kind in ("down", "bridge", "up")
        for cell, content in enumerate(architecture.layer(kind).cells)
        for place, node in enumerate(content.nodes)
    }
    assert boxes <= identifiers(path)
    assert describe_architecture(architecture).splitlines()[0] in text


def test_long_skips_are_repeated_outwards_for_more_levels(tmp_path: Path) -> None:
    path = tmp_path / "architecture.svg"
    for architecture, levels, joined in ((PLAIN, None, "0"), (PLAIN, 4, "0"), (CHAINED, 4, "123"), (CHAINED, 1, "")):
        draw_architecture(architecture, path, levels=levels)
        drawn = {name for name in identifiers(path) if name.startswith("skip-")}
        assert drawn == {f"skip-{level}" for level in joined}


def test_pictures_of_two_architectures_differ(tmp_path: Path) -> None:
    draw_architecture(PLAIN, tmp_path / "plain.png", levels=3)
    draw_architecture(PLAIN.model_copy(update={"up": CHAINED.down}), tmp_path / "other.png", levels=3)
    draw_architecture(PLAIN, tmp_path / "again.png", levels=3)
    plain, other, again = (pixels(tmp_path / f"{name}.png") for name in ("plain", "other", "again"))
    assert plain.std() > 0.02
    assert np.array_equal(plain, again)
    assert plain.shape != other.shape or (plain != other).any()


@pytest.mark.parametrize("cells", [1, 2, 8])
def test_any_size_of_layer_can_be_drawn(cells: int, tmp_path: Path) -> None:
    space = SearchSpace(cells=cells, levels=1)
    draw_architecture(space.sample(np.random.default_rng(0)), tmp_path / "a.svg", levels=10)
    assert (tmp_path / "a.svg").stat().st_size > 10_000


def test_unknown_suffix_says_which_are_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.png, \.svg"):
        draw_architecture(PLAIN, tmp_path / "architecture.txt")
    assert list(tmp_path.iterdir()) == []


def search_event(epoch: int, **values: Any) -> Epoch:
    return Epoch(**{"step": "search", "epoch": epoch, "loss": 1.0 / (epoch + 1), **values})


def train_event(epoch: int, **values: Any) -> Epoch:
    return Epoch(**{"step": "train", "epoch": epoch, "loss": 0.5, **values})


def drawn_words(path: Path) -> str:
    """All words of an SVG (letters are outlines; matplotlib notes the words beside them)."""
    return path.read_text(encoding="utf-8")


def test_curves_show_what_the_events_hold(tmp_path: Path) -> None:
    path = tmp_path / "curves.svg"
    events = [search_event(epoch, reward=None if epoch < 2 else 0.5, entropy=3.0) for epoch in range(4)]
    draw_curves(events, path)
    text = drawn_words(path)
    assert "search: reward" in text and "entropy of the controller" in text and "shared weights" in text
    assert "training" not in text and "share of identity" not in text

    events += [train_event(epoch, mean_iou=0.6, iou={"membrane": 0.5, "glia": None}) for epoch in range(3)]
    draw_curves([DataRead(text="0 -> 1"), *events, WarningRaised(text="collapsed")], path)
    text = drawn_words(path)
    assert "training: loss" in text and "training: IoU" in text and "membrane" in text
    assert "glia" not in text  # it has no value in any epoch


def test_a_repeated_epoch_counts_once(tmp_path: Path) -> None:
    once, twice = tmp_path / "once.png", tmp_path / "twice.png"
    draw_curves([train_event(0), train_event(1)], once)
    draw_curves([train_event(0), train_event(1, loss=9.0), train_event(1)], twice)
    assert np.array_equal(pixels(once), pixels(twice))


def test_an_untrained_first_epoch_does_not_flatten_the_others() -> None:
    assert highest_shown({"training": [(1, 1.0), (2, 0.5)], "validation": [(1, 24.0), (2, 0.8)]}) == pytest.approx(0.88)
    assert highest_shown({"training": [(1, 1.0), (2, 0.5)]}) is None
    assert highest_shown({"training": [(1, 24.0)]}) is None


def test_a_run_without_epochs_has_no_curves(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="first epoch"):
        draw_curves([DeviceChosen(name="cpu")], tmp_path / "curves.png")


def section() -> tuple[np.ndarray, np.ndarray]:
    image = np.tile(np.linspace(0, 255, 80), (60, 1)).astype(np.uint8)
    labels = np.full((60, 80), 2, dtype=np.uint8)
    labels[:, 38:42] = 1
    return image, labels


def share_of(path: Path, color: str) -> float:
    wanted = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return float((np.abs(pixels(path)[..., :3] - wanted).max(axis=-1) < 0.01).mean())


def test_overlay_shows_image_prediction_truth_and_differences(tmp_path: Path) -> None:
    image, labels = section()
    truth = labels.copy()
    overlay(image, labels, CLASSES, tmp_path / "right.png", truth)
    truth[10:50, 10:30] = 1
    truth[:10] = 0
    overlay(image, labels, CLASSES, tmp_path / "wrong.png", truth)
    overlay(image, labels, CLASSES, tmp_path / "alone.png")
    right, wrong, alone = (pixels(tmp_path / f"{name}.png") for name in ("right", "wrong", "alone"))
    assert right.shape == wrong.shape and alone.shape[1] < 0.6 * right.shape[1]
    red = "#d62729"
    assert share_of(tmp_path / "wrong.png", red) > share_of(tmp_path / "right.png", red) + 0.02
    overlay(image, labels, CLASSES, tmp_path / "wrong.svg", truth)
    # 40 x 20 of the 50 x 80 annotated pixels.
    text = drawn_words(tmp_path / "wrong.svg")
    assert "differ: 20.0%" in text and "membrane" in text and "cell" in text


def test_outlines_have_the_full_color_of_their_class(tmp_path: Path) -> None:
    image, labels = section()
    overlay(image, labels, (Info("a", "#00ff00"), Info("b", "#0000ff")), tmp_path / "a.png")
    assert share_of(tmp_path / "a.png", "#00ff00") > 0.001
    assert share_of(tmp_path / "a.png", "#0000ff") > 0.001


def test_pixels_that_are_no_numbers_leave_the_others_visible() -> None:
    image = np.arange(400.0).reshape(20, 20)
    expected = to_gray(image)
    image[0, 0], image[0, 1] = np.nan, -np.inf
    found = to_gray(image)
    np.testing.assert_allclose(found.ravel()[2:], expected.ravel()[2:], atol=0.01)
    assert found[0, 0] == found[0, 1] == 0
    assert not to_gray(np.full((4, 4), np.nan)).any()


def test_arrays_of_different_sections_are_refused(tmp_path: Path) -> None:
    image, labels = section()
    with pytest.raises(UserError, match="truth"):
        overlay(image, labels, CLASSES, tmp_path / "a.png", labels[:20])


def test_entropy_is_zero_where_sure_and_one_where_all_are_alike() -> None:
    probabilities = np.zeros((4, 1, 3))
    probabilities[1, 0, 0] = 1
    probabilities[:, 0, 1] = 0.25
    probabilities[:2, 0, 2] = 0.5
    assert normalized_entropy(probabilities) == pytest.approx(np.array([[0, 1, 0.5]]))
    stored = np.array([[[255, 128]], [[0, 128]]], dtype=np.uint8)
    assert normalized_entropy(stored) == pytest.approx(np.array([[0, 1]]))
    with pytest.raises(UserError, match="two or more classes"):
        normalized_entropy(np.ones((1, 4, 4)))


def test_uncertainty_is_bright_where_the_network_is_unsure(tmp_path: Path) -> None:
    sure = np.stack([np.ones((40, 40)), np.zeros((40, 40))])
    draw_uncertainty(sure, tmp_path / "sure.png")
    draw_uncertainty(np.full((2, 40, 40), 0.5), tmp_path / "unsure.png")
    middle = [pixels(tmp_path / f"{name}.png") for name in ("sure", "unsure")]
    dark, bright = (picture[picture.shape[0] // 2, picture.shape[1] // 3, :3].mean() for picture in middle)
    assert dark < 0.1 < 0.7 < bright
    draw_uncertainty(sure, tmp_path / "both.png", image=section()[0][:40, :40])
    assert pixels(tmp_path / "both.png").shape[1] > 1.5 * middle[0].shape[1]


def test_no_pyplot_and_no_napari_is_imported(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from napari_autosegnet.architecture import SearchSpace\n"
        "from napari_autosegnet import figures\n"
        "assert 'matplotlib' not in sys.modules\n"
        "architecture = SearchSpace().sample(np.random.default_rng(0))\n"
        f"figures.draw_architecture(architecture, Path({str(tmp_path / 'a.svg')!r}))\n"
        "bad = {'matplotlib.pyplot', 'napari', 'qtpy', 'torch'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
