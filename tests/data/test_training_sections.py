"""What is seen of the sections before a training: constant ones, how they are normalized, odd ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.data.labeled_stacks import LabeledStack, pair_stacks
from napari_autosegnet.data.normalization import Normalization
from napari_autosegnet.data.split import split_stacks
from napari_autosegnet.data.training_sections import fit_normalization, leave_out_constant, look_at_annotated
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Event, Note
from napari_autosegnet.settings import SplitSettings


class Notes:
    """A report that keeps its notes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, event: Event) -> None:
        assert isinstance(event, Note) and "\n" not in event.text
        self.texts.append(event.text)


def stack_of(image: np.ndarray, name: str = "image") -> LabeledStack:
    labels = np.random.default_rng(1).integers(1, 3, image.shape, np.uint8)
    return pair_stacks([image_from_array(image, name=name)], [image_from_array(labels)], None)[0]


def gray_stack(sections: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(120, 30, (sections, 40, 40)).clip(0, 255)


def fitted(stacks: list[LabeledStack], wanted: Any = "auto") -> tuple[Normalization, list[str]]:
    notes = Notes()
    grays = look_at_annotated(stacks)
    leave_out_constant(stacks, grays, notes)
    split = split_stacks(stacks, SplitSettings())
    return fit_normalization(stacks, split, wanted, grays, notes), notes.texts


def test_constant_sections_are_left_out_and_named() -> None:
    image = gray_stack().astype(np.uint8)
    image[3], image[7] = 0, 130
    image[9] = 40
    image[9, 39, 39] = 41  # one pixel is enough
    stack = stack_of(image)
    normalization, notes = fitted([stack])
    assert notes == ["2 sections are constant (one gray value throughout) and left out of the training: 3, 7"]
    assert np.flatnonzero(stack.annotated_pixels.sum(1)).tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10, 11]
    assert not stack.target(3).any() and stack.target(4).any()
    assert normalization.seen is not None and normalization.seen.lowest_std[0] > 0


def test_sections_named_for_the_training_may_be_constant() -> None:
    image = gray_stack().astype(np.uint8)
    image[2] = 0
    stack, notes = stack_of(image), Notes()
    leave_out_constant([stack], look_at_annotated([stack]), notes)
    split = split_stacks([stack], SplitSettings(train_sections="0-5", validation_sections="8-9"))
    assert [region.section for region in split.training] == [0, 1, 3, 4, 5]
    assert notes.texts == ["1 section is constant (one gray value throughout) and left out of the training: 2"]


def test_nothing_but_constant_sections_is_refused() -> None:
    stack = stack_of(np.zeros((3, 40, 40), np.uint8))
    with pytest.raises(UserError, match="all annotated sections are constant"):
        leave_out_constant([stack], look_at_annotated([stack]), Notes())


def test_sections_alike_share_their_constants() -> None:
    normalization, notes = fitted([stack_of(gray_stack().astype(np.uint8))])
    assert (normalization.kind, normalization.least_std, notes) == ("global", None, [])
    seen = normalization.seen
    assert seen is not None and seen.dtype == "uint8" and 110 < seen.lowest_mean[0] < seen.highest_mean[0] < 130


@pytest.mark.parametrize(
    "drift",
    [
        lambda values, z: values * np.linspace(0.6, 1.2, len(z))[:, None, None],
        lambda values, z: values + 20 * (z % 3 - 1)[:, None, None],
        lambda values, z: (values - 120) * np.linspace(0.4, 1.3, len(z))[:, None, None] + 120,
    ],
)
def test_sections_that_differ_are_normalized_one_by_one(drift: Any) -> None:
    image = drift(gray_stack(), np.arange(12)).clip(0, 255).astype(np.uint8)
    normalization, notes = fitted([stack_of(image)])
    assert normalization.kind == "section" and normalization.least_std is not None
    (note,) = notes
    assert "each section is normalized by its own mean and deviation" in note and "--normalization global" in note
    for wanted in ("global", "section"):
        normalization, notes = fitted([stack_of(image)], wanted)
        assert normalization.kind == wanted and notes == []


def test_one_odd_section_is_named_where_all_share_constants() -> None:
    image = gray_stack().astype(np.uint16)
    image[5] *= 257
    _, notes = fitted([stack_of(image)], "global")
    assert len(notes) == 1
    assert (
        notes[0].startswith("the gray values of 1 of 10 sections are far from those of the others")
        and ": 5;" in notes[0]
    )


def test_an_image_of_another_type_is_named() -> None:
    stacks = [stack_of(gray_stack(4, seed).astype(np.uint8), f"image {seed}") for seed in range(4)]
    stacks.append(stack_of((gray_stack(4, 9) * 257).astype(np.uint16), "new one"))
    _, notes = fitted(stacks, "global")
    assert len(notes) == 1 and "new one" in notes[0] and "image" not in notes[0].replace("new one", "")


def test_sections_that_drift_a_little_are_not_odd() -> None:
    image = (gray_stack() * np.linspace(0.6, 1.4, 12)[:, None, None]).clip(0, 255).astype(np.uint8)
    assert fitted([stack_of(image)], "global")[1] == []


def test_the_real_sets(shared_data: Any) -> None:
    """Industrial crops have exposures of their own; the nerve cord and the medulla have one."""
    import tifffile

    from napari_autosegnet.data.gray_values import section_gray
    from napari_autosegnet.data.normalization import WIDE_SPREAD, spread

    for name, sections, differ in (
        ("industrial/crops-images.tif", range(0, 150), True),
        ("nuclei/images.tif", range(0, 38), True),
        ("isbi2012/train-volume.tif", range(0, 16), True),
        ("vnc/raw.tif", range(0, 10), False),
        ("medulla/raw.tif", range(0, 120, 8), False),
    ):
        image = tifffile.imread(shared_data / name, key=sections)
        found = spread([section_gray(section[np.newaxis]) for section in image])
        assert (found > WIDE_SPREAD) == differ
        # Clearly so: another part of the set would not be judged otherwise.
        assert found > 1.3 * WIDE_SPREAD or found < 0.5 * WIDE_SPREAD
