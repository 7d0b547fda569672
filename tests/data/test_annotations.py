"""Reading label values as classes, and refusing what cannot be learned from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from napari_autosegnet.data.annotations import (
    PALETTE,
    ClassInfo,
    LabelMapping,
    class_color,
    default_classes,
    infer_mapping,
    name_from_file,
    parse_classes,
)
from napari_autosegnet.errors import UserError


def test_parse_classes() -> None:
    mapping = parse_classes(" 0:membrane , 255:cell:#FF0000 ")
    assert mapping.classes == (ClassInfo(name="membrane", color=PALETTE[0]), ClassInfo(name="cell", color="#ff0000"))
    assert mapping.values == {0: 1, 255: 2}
    assert mapping.describe() == "0 -> 1 membrane, 255 -> 2 cell, everything else not annotated"
    target = mapping.target(np.array([[0, 255, 7]], np.uint8))
    assert target.dtype == np.uint8 and target.tolist() == [[1, 2, 0]]


def test_one_name_joins_several_values() -> None:
    large = parse_classes("0:membrane,4294967295:cell")
    assert large.target(np.array([0, 1, 4294967295], np.uint32)).tolist() == [1, 0, 2]
    mapping = parse_classes("0:membrane,32:membrane,255:cell,64:membrane")
    assert [info.name for info in mapping.classes] == ["membrane", "cell"]
    assert mapping.target(np.array([0, 32, 64, 255, 1])).tolist() == [1, 1, 1, 2, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0:membrane", "fewer than two classes"),
        ("", "fewer than two classes"),
        ("membrane,cell", "'membrane' in the classes is not value:name"),
        ("a:membrane,1:cell", "'a' in the classes is not a whole number"),
        ("0:membrane,0:cell", "the value 0 appears twice"),
        ("0:,1:cell", "is not value:name"),
        ("0:a:red,1:b", "'red' in the classes is not a color"),
        ("0:a:#ff00001,1:b", "is not a color"),
        ("0:a:#ff0000:x,1:b", "is not value:name"),
        ("#ff00:a,#0000ff:b", "'#ff00' in the classes is not a color"),
        ("#ff0000:a,#FF0000:b", "the value #ff0000 appears twice"),
        ("#ff0000:a,3:b", "name only colors, or only numbers"),
    ],
)
def test_classes_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_classes(text)


@pytest.mark.parametrize("text", ["-1:a,0:b,255:a", "#ff0000:a,#00ff00:b:#123456"])
def test_what_a_model_keeps_of_it_is_the_same_again(text: str) -> None:
    mapping = parse_classes(text)
    assert LabelMapping.from_written(mapping.classes, mapping.written()) == mapping
    assert ["#00ff00" in mapping.written(), "255" in mapping.written()] == [mapping.colors, not mapping.colors]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mem\x1b[31mbrane", r"'mem\\x1b\[31mbrane' contains characters that cannot be shown"),
        ("cell\nerror: faked", "contains characters that cannot be shown"),
        ("a\u202eb", "contains characters that cannot be shown"),
        ("n" * 101, "more than 100 characters"),
    ],
)
def test_names_that_cannot_be_shown_are_no_names(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_classes(f"0:{name},1:cell")
    with pytest.raises(ValidationError, match=said):
        ClassInfo(name=name, color="#ff0000")
    mended = name_from_file(name)
    assert ClassInfo(name=mended, color="#ff0000").name == mended


def test_names_of_every_script_are() -> None:
    names = ["Zellkern ü", "細胞核", "क\u200dष", "<5 nm> & [more]"]
    assert [each.name for each in default_classes(names)] == names == [name_from_file(name) for name in names]


def test_mapping_needs_a_value_for_every_class() -> None:
    classes = (ClassInfo(name="a", color="#000000"), ClassInfo(name="b", color="#ffffff"))
    with pytest.raises(ValidationError, match="every class needs a value"):
        LabelMapping(classes=classes, values={0: 1})
    mapping = LabelMapping(classes=classes, values={0: 1, 9: 2})
    assert LabelMapping.model_validate_json(mapping.model_dump_json()) == mapping


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 255], {0: 1, 255: 2}),
        ([1, 2], {1: 1, 2: 2}),
        ([0, 1, 2, 3], {1: 1, 2: 2, 3: 3}),
        ([0, 3, 7], {3: 1, 7: 2}),
        ([0, 127, 255], {127: 1, 255: 2}),
        ([-1, 1, 2], {1: 1, 2: 2}),
    ],
)
def test_values_are_read_as_classes(values: list[int], expected: dict[int, int]) -> None:
    mapping = infer_mapping(dict.fromkeys(values, 5))
    assert mapping.values == expected
    for value, number in expected.items():
        assert mapping.classes[number - 1].name == f"class {value}"
    assert len({info.color for info in mapping.classes}) == len(mapping.classes)


def test_values_without_pixels_do_not_count() -> None:
    assert infer_mapping({0: 4, 128: 0, 255: 1}).values == {0: 1, 255: 2}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0], "nothing is annotated"),
        ([], "nothing is annotated"),
        ([0, 1], "only one class .* --classes 0:background,1:object"),
        ([0, 7], "only one class .* --classes 0:background,7:object"),
        ([255], "only one class"),
        (list(range(50)), "as an image or numbered objects have; give class labels"),
    ],
)
def test_values_that_are_no_classes(values: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        infer_mapping(dict.fromkeys(values, 5))


@given(
    st.dictionaries(st.integers(-5, 300), st.integers(1, 3), min_size=3).filter(lambda d: set(d.values()) == {1, 2, 3}),
    st.sampled_from(["uint8", "int8", "uint16", "int32", "int64"]),
)
def test_target_is_the_mapping_pixel_by_pixel(values: dict[int, int], dtype: str) -> None:
    classes = tuple(ClassInfo(name=name, color="#000000") for name in "abc")
    mapping = LabelMapping(classes=classes, values=values)
    limits = np.iinfo(dtype)
    labels = np.arange(max(-10, int(limits.min)), min(310, int(limits.max)) + 1).astype(dtype)
    assert mapping.target(labels).tolist() == [values.get(int(label), 0) for label in labels]


@pytest.mark.parametrize("text", ["0:a,5-3:b", "0:a,1-99999999:b", "0:a,1-:b"])
def test_ranges_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="in the classes is no"):
        parse_classes(text)


def test_every_class_has_a_color_of_its_own() -> None:
    colors = [class_color(place) for place in range(255)]
    assert len(set(colors)) == len(colors) and tuple(colors[: len(PALETTE)]) == PALETTE
    # The first 40 differ by more than a shade.
    parts = np.array([[int(color[at : at + 2], 16) for at in (1, 3, 5)] for color in colors[:40]])
    apart = np.linalg.norm(parts[:, None] - parts, axis=-1) + 1000 * np.eye(40)
    assert apart.min() > 15, apart.min()
