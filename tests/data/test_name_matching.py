"""Names of images and of their labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from napari_autosegnet.data.name_matching import matched
from napari_autosegnet.errors import UserError


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (["c1", "c1_2"], ["c1_masks", "c1_2_masks"]),
        (["a", "b"], ["a", "b"]),
        (["A1", "B2"], ["a1", "b2"]),
        (["r\u00f6hre", "tube"], ["ro\u0308hre", "tube"]),
        (["img_1", "img_2", "img_10"], ["mask_01", "mask_02", "mask_10"]),
        (["BRATS_001_0000", "BRATS_002_0000"], ["BRATS_001", "BRATS_002"]),
        (["t1_img", "t11_img", "x1_img"], ["t1_label", "t11_label", "x1_label"]),
        (["left_raw_1", "right_raw_1"], ["left_seg_1", "right_seg_1"]),
        (["cell 1", "cell 2"], ["cell-1-ground-truth", "cell-2-ground-truth"]),
        (["001", "002"], ["1_cp_masks", "2_cp_masks"]),
        (["raw"], ["labels"]),
        (["volume"], ["membranes"]),
        (["s1"], ["labels"]),
    ],
)
def test_names_that_pair(images: list[str], labels: list[str]) -> None:
    assert matched(images, labels, where=("i", "l")) == list(range(len(images)))
    backwards = labels[::-1]
    assert [backwards[index] for index in matched(images, backwards, where=("i", "l"))] == labels


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            ["s1", "s2", "s3", "s4"],
            ["s1_mask", "s2_mask", "s4_mask", "s5_mask"],
            "the names in i and l do not pair: images without labels: s3; labels without an image: s5_mask; "
            "rename or remove these",
        ),
        (["a", "b", "c"], ["x", "y", "z"], "images without labels: a, b, c; labels without an image: x, y, z"),
        (["0", "1", "2"], ["1", "2", "3"], "images without labels: 0; labels without an image: 3"),
        (["a", "b"], ["a"], "images without labels: b; rename"),
        (["scan1_s1", "scan1_s2"], ["scan2_s1", "scan2_s2"], "do not pair"),
        (["s1"], ["s2_mask"], "do not pair"),
        (["1", "01"], ["1_mask", "1_label"], "do not pair"),
        (["a", "a"], ["a", "a"], r"several files have names that are alike (a, a)"),
        ([f"n{i}" for i in range(20)], [f"m{i}" for i in range(20, 40)], "and 14 more"),
    ],
)
def test_names_that_do_not_pair(images: list[str], labels: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        matched(images, labels, where=("i", "l"))
    assert message in str(error.value)


_AFFIXES = st.sampled_from(["", "img_", "image-", "mask_", "Label", "train ", "em_raw_", "a", "x_"])
_ENDINGS = st.sampled_from(["", "_mask", "_masks", "-labels", ".seg", "_0000", "b", "_x", "_cp_masks"])
_IDENTITIES = st.one_of(
    st.integers(0, 300).map(str),
    st.tuples(st.sampled_from("abc"), st.integers(0, 30)).map(lambda each: f"{each[0]}{each[1]}"),
    st.tuples(st.integers(0, 9), st.integers(0, 20)).map(lambda each: f"{each[0]}_{each[1]}"),
)


@example(identities=["c1", "c1_2"], affixes=("", ""), endings=("", "_masks"), pad=0, seed=0)
@given(
    identities=st.lists(_IDENTITIES, min_size=2, max_size=12, unique=True),
    affixes=st.tuples(_AFFIXES, _AFFIXES),
    endings=st.tuples(_ENDINGS, _ENDINGS),
    pad=st.sampled_from([0, 4]),
    seed=st.integers(0, 99),
)
def test_what_all_of_a_side_share_does_not_count(
    identities: list[str], affixes: tuple[str, str], endings: tuple[str, str], pad: int, seed: int
) -> None:
    def padded(name: str) -> str:
        return name.zfill(pad) if name.isdigit() else name

    assume(not (endings[0] and endings[1] and "0000" in endings[0] + endings[1]))
    images = [f"{affixes[0]}{name}{endings[0]}" for name in identities]
    labels = [f"{affixes[1]}{padded(name)}{endings[1]}" for name in identities]
    order = np.random.default_rng(seed).permutation(len(labels)).tolist()
    found = matched(images, [labels[index] for index in order], where=("i", "l"))
    assert [order[index] for index in found] == list(range(len(images)))
    with pytest.raises(UserError):
        matched(images, [*labels[:-1], f"{affixes[1]}999_9{endings[1]}"], where=("i", "l"))
