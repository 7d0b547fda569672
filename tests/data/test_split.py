"""The split: contiguous, gapped, complete, and without leaks."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_autosegnet.data.groups import section_groups
from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.data.labeled_stacks import LabeledStack, open_labeled, pair_stacks
from napari_autosegnet.data.regions import Region, Split, region_pixels
from napari_autosegnet.data.section_numbers import parse_sections
from napari_autosegnet.data.split import split_stacks
from napari_autosegnet.errors import UserError
from napari_autosegnet.settings import SplitSettings


def stacks_of(*labels: np.ndarray) -> list[LabeledStack]:
    return pair_stacks(
        [image_from_array(np.ones(array.shape, np.uint8)) for array in labels],
        [image_from_array(array) for array in labels],
        None,
    )


def speckled(*shape: int, classes: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, classes + 1, shape, dtype=np.uint8)


def sections(regions: Sequence[Region], stack: int = 0) -> list[int]:
    return [region.section for region in regions if region.stack == stack]


def assert_no_leak(split: Split, gap: int) -> None:
    """Sections apart by more than the gap, or rectangles of all sections apart by eight pixels."""
    for ours in split.training:
        for theirs in split.validation:
            if ours.stack != theirs.stack or abs(ours.section - theirs.section) > gap:
                continue
            apart = [max(b[0] - a[1], a[0] - b[1]) for a, b in ((ours.y, theirs.y), (ours.x, theirs.x))]
            assert max(apart) >= 8, (ours, theirs)


def test_sections_are_parsed() -> None:
    assert parse_sections("0-3, 7,5 - 6,2") == [0, 1, 2, 3, 5, 6, 7]
    for text, message in {
        "a": "names no sections",
        "5-3": "write 3-5",
        "": "no section",
        "-3": "names no",
        "1-": "no",
    }.items():
        with pytest.raises(UserError, match=message):
            parse_sections(text)
    with pytest.raises(UserError, match="there is no section"):
        parse_sections("0-99999999999")


def test_one_contiguous_block_with_a_gap() -> None:
    stacks = stacks_of(speckled(30, 20, 20))
    split = split_stacks(stacks, SplitSettings())
    training, validation = sections(split.training), sections(split.validation)
    assert len(validation) == 8 and validation == list(range(validation[0], validation[0] + 8))
    assert len(training) == 20  # the block is at an end, so one gap of two is lost
    assert_no_leak(split, 2)
    assert all((region.y, region.x) == ((0, 20), (0, 20)) for region in split.training + split.validation)
    assert split_stacks(stacks, SplitSettings()) == split
    assert len({split_stacks(stacks, SplitSettings(seed=seed)) for seed in range(8)}) == 2


def test_gap_is_as_wide_as_the_context() -> None:
    split = split_stacks(stacks_of(speckled(40, 20, 20)), SplitSettings(gap=0), context=3)
    assert_no_leak(split, 3)


def test_the_validation_block_holds_every_class() -> None:
    labels = np.ones((30, 20, 20), np.uint8)
    labels[[3, 14], :4] = 2  # only a block over one of these, not both, will do
    split = split_stacks(stacks_of(labels), SplitSettings())
    assert (3 in sections(split.validation)) != (14 in sections(split.validation))
    assert (3 in sections(split.training)) != (14 in sections(split.training))


def test_sparse_annotation_is_split_by_its_sections() -> None:
    labels = np.zeros((100, 20, 20), np.uint8)
    labels[[0, 20, 40, 60, 80, 99]] = speckled(6, 20, 20)
    split = split_stacks(stacks_of(labels), SplitSettings())
    assert len(split.training) == 4 and len(split.validation) == 2
    assert sorted(sections(split.training + split.validation)) == [0, 20, 40, 60, 80, 99]


def test_few_sections_are_cut_within() -> None:
    labels = np.zeros((5, 64, 200), np.uint8)
    labels[1:4] = speckled(3, 64, 200)
    split = split_stacks(stacks_of(labels), SplitSettings())
    assert sections(split.training) == sections(split.validation) == [1, 2, 3]
    assert len({region.x for region in split.validation}) == 1  # the same place in all sections
    assert {region.y for region in split.training + split.validation} == {(0, 64)}
    start, stop = split.validation[0].x
    assert (stop - start) / 200 == pytest.approx(0.25, abs=0.02)
    assert_no_leak(split, 2)


def test_a_corner_of_scribbles_is_divided_too() -> None:
    labels = np.zeros((300, 300), np.uint8)
    labels[10:60:4, 10:20] = 1
    labels[10:60:4, 22:30] = 2
    stacks = stacks_of(labels)
    split = split_stacks(stacks, SplitSettings())
    for part in (split.training, split.validation):
        assert (region_pixels(stacks, part).sum(0) > 0).all()
    assert_no_leak(split, 0)


def test_several_images_are_held_out_whole() -> None:
    stacks = stacks_of(*[speckled(40, 40, seed=i) for i in range(8)])
    split = split_stacks(stacks, SplitSettings())
    assert len(split.validation) == 2 and len(split.training) == 6
    assert not {r.stack for r in split.training} & {r.stack for r in split.validation}


def test_two_images_are_cut_within() -> None:
    split = split_stacks(stacks_of(speckled(60, 80), speckled(90, 60)), SplitSettings())
    assert [r.stack for r in split.training] == [r.stack for r in split.validation] == [0, 1]
    assert_no_leak(split, 0)


def test_a_folder_of_few_images_of_several_sizes_is_cut_within(tmp_path: Path) -> None:
    from PIL import Image

    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        for name, shape in (("a", (60, 80)), ("b", (90, 50)), ("c", (60, 80))):
            Image.fromarray(speckled(*shape)).save(tmp_path / folder / f"{name}.png")
    stacks = open_labeled([tmp_path / "images"], [tmp_path / "labels"])
    split = split_stacks(stacks, SplitSettings())
    assert set(sections(split.training)) == set(sections(split.validation)) == {0, 1, 2}
    places = {(region.section, region.y, region.x) for region in split.validation}
    assert {place[1:] for place in places if place[0] == 0} == {place[1:] for place in places if place[0] == 2}


@settings(max_examples=80, deadline=None)
@given(
    depths=st.lists(st.integers(1, 14), min_size=1, max_size=5),
    annotated=st.floats(0.2, 1),
    gap=st.integers(0, 4),
    fraction=st.floats(0.1, 0.6),
    seed=st.integers(0, 2**31),
)
def test_never_a_leak(depths: list[int], annotated: float, gap: int, fraction: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = []
    for depth in depths:
        height, width = generator.integers(48, 80, 2)
        array = generator.integers(1, 4, (depth, height, width), dtype=np.uint8)
        array[generator.random(depth) > annotated] = 0
        labels.append(array)
    labels[0][0] = generator.integers(1, 4, labels[0][0].shape)
    stacks = stacks_of(*labels)
    split = split_stacks(stacks, SplitSettings(gap=gap, validation_fraction=fraction, seed=seed % 100))
    assert_no_leak(split, gap)
    for part in (split.training, split.validation):
        assert part and (region_pixels(stacks, part).sum(0) > 0).all()
        for region in part:
            assert stacks[region.stack].annotated_pixels[region.section].any()
            height, width = stacks[region.stack].image.section_shape(region.section)
            assert 0 <= region.y[0] < region.y[1] <= height and 0 <= region.x[0] < region.x[1] <= width


# ---------------------------------------------------------------- named sections


def test_named_sections() -> None:
    stacks = stacks_of(speckled(30, 16, 16))
    split = split_stacks(stacks, SplitSettings(train_sections="0-15", validation_sections="18-21"))
    assert (sections(split.training), sections(split.validation)) == (list(range(16)), [18, 19, 20, 21])
    split = split_stacks(stacks, SplitSettings(validation_sections="10-12"))
    assert sections(split.training) == [*range(8), *range(15, 30)]
    split = split_stacks(stacks, SplitSettings(train_sections="0-20", gap=1))
    assert sections(split.validation) == list(range(22, 30))


def test_named_sections_that_show_validation_are_left_out() -> None:
    stacks = stacks_of(speckled(30, 16, 16), speckled(30, 16, 16))
    named = SplitSettings(train_sections="0-17,23", validation_sections="18-21")
    split = split_stacks(stacks, named, context=2)
    for stack in range(2):
        assert [r.section for r in split.training if r.stack == stack] == list(range(16))
        assert [r.section for r in split.validation if r.stack == stack] == [18, 19, 20, 21]
    with pytest.raises(UserError, match="further from validation than --context reaches"):
        split_stacks(stacks, SplitSettings(train_sections="16,17", validation_sections="18-21"), context=2)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (
            {"train_sections": "0-5", "validation_sections": "5-8"},
            "sections 5 are named for training and",
        ),
        ({"train_sections": "0-30"}, "no section 30 for training; choose from 0 to 9"),
        (
            {"train_sections": "0-3", "validation_sections": "9"},
            "none of the sections named for validation is",
        ),
        ({"train_sections": "0-9"}, "no section left for validation is annotated"),
        ({"train_sections": "0", "group": "a@b.csv"}, "choose one of them"),
    ],
)
def test_named_sections_that_cannot_be(named: dict[str, str], message: str) -> None:
    labels = speckled(10, 16, 16)
    labels[9] = 0
    with pytest.raises(UserError, match=message):
        split_stacks(stacks_of(labels), SplitSettings.model_validate(named))


def test_missing_class_is_named() -> None:
    labels = speckled(10, 16, 16)
    labels[7:] = 1
    with pytest.raises(UserError, match=r"class 2 \(class 2\) has no pixel in the validation part"):
        split_stacks(stacks_of(labels), SplitSettings(train_sections="0-4", validation_sections="8,9"))
    with pytest.raises(UserError, match="paint it in one of the sections named for it"):
        split_stacks(stacks_of(labels), SplitSettings(train_sections="0-4", validation_sections="8,9"))
    labels = np.ones((64, 64), np.uint8)
    labels[3:7, 3:9] = 2
    with pytest.raises(UserError) as error:
        split_stacks(stacks_of(labels), SplitSettings())
    assert re.fullmatch(
        r"class 2 \(class 2\) has no pixel in the (training|validation) part; all of it lies within 4 x 6 pixels of "
        "section 0 of image; paint it in a second place, in another section or 16 pixels away",
        str(error.value),
    )


def test_a_class_in_one_group_alone(tmp_path: Path) -> None:
    labels = np.ones((4, 16, 16), np.uint8)
    labels[2] = 2
    path = table(tmp_path, "part\na\nb\nc\nd\n")
    with pytest.raises(UserError, match="paint it in images of another value of 'part' too"):
        split_stacks(stacks_of(labels), SplitSettings(group=f"part@{path}"))


def test_two_strokes_in_the_middle_of_a_large_stack() -> None:
    labels = np.zeros((3, 2048, 2048), np.uint8)
    labels[1, 1000:1003, 1000:1060] = 1
    labels[1, 980:1040, 1090:1093] = 2
    stacks = stacks_of(labels)
    split = split_stacks(stacks, SplitSettings())
    for part in (split.training, split.validation):
        assert sections(part) == [1] * len(part)
        assert (region_pixels(stacks, part).sum(0) > 0).all()
    assert_no_leak(split, 2)
    assert split_stacks(stacks, SplitSettings()) == split


@pytest.mark.parametrize("count", [2, 5])
def test_a_few_strokes_on_two_sections_far_apart_are_divided_not_the_sections(count: int) -> None:
    labels = np.zeros((30, 256, 256), np.uint8)
    generator = np.random.default_rng(count)
    for section, stroke in itertools.product((2, 18), range(2 * count)):
        y, x = generator.integers(0, 236, 2)
        labels[section, y : y + 3, x : x + 20] = 1 + stroke % 2
    stacks = stacks_of(labels)
    split = split_stacks(stacks, SplitSettings())
    assert set(sections(split.training)) == {2, 18}
    training, validation = (region_pixels(stacks, part).sum(0) for part in (split.training, split.validation))
    assert (validation >= 20).all() and training.sum() > validation.sum()
    assert_no_leak(split, 2)


def test_each_class_in_a_section_of_its_own() -> None:
    labels = np.zeros((30, 256, 256), np.uint8)
    labels[3, 100:103, 100:160] = 1
    labels[20, 100:160, 100:103] = 2
    stacks = stacks_of(labels)
    split = split_stacks(stacks, SplitSettings())
    for part in (split.training, split.validation):
        assert (region_pixels(stacks, part).sum(0) > 0).all()
    assert_no_leak(split, 2)


def test_nothing_to_split() -> None:
    with pytest.raises(UserError, match="no labeled image"):
        split_stacks([], SplitSettings())


# ---------------------------------------------------------------- groups


def table(folder: Path, text: str) -> Path:
    path = folder / "index.csv"
    path.write_text(text)
    return path


@settings(max_examples=30, deadline=None)
@given(
    groups=st.lists(st.integers(0, 6), min_size=4, max_size=30).filter(lambda g: len(set(g)) > 1),
    seed=st.integers(0, 99),
)
def test_groups_stay_on_one_side(tmp_path_factory: pytest.TempPathFactory, groups: list[int], seed: int) -> None:
    path = table(tmp_path_factory.mktemp("g"), "patient\n" + "\n".join(f"p{g}" for g in groups) + "\n")
    stacks = stacks_of(speckled(len(groups), 16, 16))
    split = split_stacks(stacks, SplitSettings(group=f"patient@{path}", seed=seed))
    training, validation = ({groups[s] for s in sections(part)} for part in (split.training, split.validation))
    assert training and validation and not training & validation
    assert training | validation == set(groups)


def test_groups_are_exchanged_until_every_class_is_on_both_sides(tmp_path: Path) -> None:
    """Eight classes in two of forty groups each: too many for a draw by chance."""
    labels = np.ones((40, 16, 16), np.uint8)
    for number in range(8):
        labels[[number, 20 + number], :4] = number + 2
    stacks = stacks_of(labels)
    path = table(tmp_path, "part\n" + "\n".join(f"p{group}" for group in range(40)) + "\n")
    for seed in range(4):
        split = split_stacks(stacks, SplitSettings(group=f"part@{path}", seed=seed))
        for part in (split.training, split.validation):
            assert (region_pixels(stacks, part).sum(0) > 0).all()
        assert len(split.validation) == pytest.approx(10, abs=4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("h\na\nb\nc\n", "has no column 'g'; it has h"),
        ("g\na\nb\n", "has 2 rows and .* has 3 sections"),
        ("g,h\na,1\n,2\nc,3\n", "is empty for section 1"),
        ("g\na\na\na\n", "the same value in the column 'g'; choose a column"),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        split_stacks(stacks_of(speckled(3, 16, 16)), SplitSettings(group=f"g@{table(tmp_path, content)}"))


@pytest.mark.parametrize("group", ["nothing", "@x.csv", "g@absent.csv"])
def test_group_that_cannot_be_read(group: str) -> None:
    with pytest.raises(UserError, match=r"COLUMN@index\.csv|cannot read the group table"):
        split_stacks(stacks_of(speckled(3, 16, 16)), SplitSettings(group=group))


# ---------------------------------------------------------------- real data


@pytest.mark.parametrize(
    ("images", "masks", "count"), [("crops-images.tif", "crops-masks.tif", 271), ("full/images", "full/masks", 319)]
)
def test_industrial_surfaces_stay_together(shared_data: Path, images: str, masks: str, count: int) -> None:
    folder = shared_data / "industrial"
    stacks = open_labeled([folder / images], [folder / masks], "0:sound,255:defect")
    groups = section_groups(stacks, folder / "index.csv", "group")[0]
    assert len(groups) == count
    split = split_stacks(stacks, SplitSettings(group=f"group@{folder / 'index.csv'}"))
    training, validation = ({groups[s] for s in sections(part)} for part in (split.training, split.validation))
    assert not training & validation and training | validation == set(groups)
    assert len(split.validation) / count == pytest.approx(0.25, abs=0.03)
    shares = [region_pixels(stacks, part).sum(0) for part in (split.training, split.validation)]
    assert shares[1][1] / (shares[0][1] + shares[1][1]) == pytest.approx(0.25, abs=0.08)


def test_isbi_split_of_the_search(shared_data: Path) -> None:
    folder = shared_data / "isbi2012"
    stacks = open_labeled([folder / "train-volume.tif"], [folder / "train-labels.tif"], "0:membrane,255:cell")
    split = split_stacks(stacks, SplitSettings(train_sections="0-15", validation_sections="18-21"))
    assert (len(split.training), len(split.validation)) == (16, 4)
    assert region_pixels(stacks, split.training).sum() == 16 * 512 * 512
