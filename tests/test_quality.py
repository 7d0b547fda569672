"""How good a network is, in words that say on how much it was checked."""

from __future__ import annotations

import pytest

from napari_autosegnet.quality import LEAST_PIXELS, Checked, Quality, listed


def quality(
    membrane: int, cell: int, iou: tuple[float | None, float | None] = (0.6, 0.8), sections: int = 3
) -> Quality:
    known = [value for value in iou if value is not None]
    checked = Checked(pixels={"membrane": membrane, "cell": cell}, sections=sections)
    return checked.with_scores(sum(known) / len(known), {"membrane": iou[0], "cell": iou[1]})


def test_enough_is_said_with_how_much_it_was() -> None:
    found = quality(600, 640)
    assert found.known and found.weakness is None
    assert found.sentence() == "quality 0.70, checked on 1,240 pixels of 3 sections"
    assert quality(600, 640, sections=1).describe().endswith("of 1 section")


def test_below_the_minimum_of_any_class_it_is_not_known() -> None:
    found = quality(12, 25, sections=1)
    assert not found.known
    assert found.sentence() == (
        "quality not known yet: checked on 37 pixels of 1 section: 12 of 'membrane' and 25 of 'cell', "
        f"where {LEAST_PIXELS} are needed; paint more of them, in several places"
    )
    many = quality(12, 10**6)
    assert not many.known and "1,000,012 pixels" in many.describe() and "12 of 'membrane', where" in many.describe()
    assert quality(LEAST_PIXELS, LEAST_PIXELS).known and not quality(LEAST_PIXELS, LEAST_PIXELS - 1).known


def test_of_many_classes_the_one_that_wants_painting_most_is_named() -> None:
    pixels = {f"class {number}": 100 + number for number in range(1, 21)} | {"class 21": 500}
    assert Checked(pixels=pixels, sections=3).too_little() == (
        "fewer than 500 of 20 classes, fewest of 'class 1' (101); paint more of them, in several places"
    )
    nothing = Quality(pixels=dict.fromkeys("abcdef", 500), sections=1, mean_iou=0.1, iou=dict.fromkeys("abcde", 0.0))
    assert nothing.weakness is not None
    assert nothing.weakness.startswith("it finds nothing of 5 classes; paint more of them")


def test_a_class_that_is_not_found_is_no_plain_success() -> None:
    found = quality(600, 60_000, iou=(0.0, 0.99))
    assert found.mean_iou > 0.49 and found.missed == ["membrane"]
    assert found.sentence().endswith(
        "Warning: it finds nothing of 'membrane'; paint more of it, or let a network learn longer"
    )
    assert quality(0, 60_000, iou=(None, 0.99)).missed == [], "what is not there cannot be found"


@pytest.mark.parametrize(
    ("pixels", "guessed"),
    [
        ((1000, 1000), 1 / 3),  # at random: a fourth right, three fourths in either
        ((1000, 9000), 0.45),  # cell everywhere: 0 and 0.9
        ((10_000, 0), 0.0),
    ],
)
def test_chance_is_what_one_gets_without_looking(pixels: tuple[int, int], guessed: float) -> None:
    found = Checked(pixels={"membrane": pixels[0], "cell": pixels[1]}, sections=1).chance
    assert found == pytest.approx(guessed, abs=0.03)


def test_what_is_near_chance_is_no_plain_success() -> None:
    poor = quality(5000, 5000, iou=(0.04, 0.036))
    assert (
        poor.weakness is not None
        and "hardly better than guessing (mean IoU 0.04, guessing gives 0.33)" in poor.weakness
    )
    assert quality(5000, 5000, iou=(0.5, 0.4)).weakness is None
    unknown = quality(12, 25, iou=(0.04, 0.036))
    assert unknown.weakness is None, "of a few pixels not even that is known"


def test_it_survives_being_written_down() -> None:
    found = quality(12, 25)
    assert Quality.of(found.model_dump(mode="json")) == found
    assert found.model_dump()["known"] is False
    for other in (None, {}, {"mean_iou": 0.8, "iou": {"a": 0.8}}, "text", {"pixels": {"a": "x"}}):
        assert Quality.of(other) is None


def test_lists_in_words() -> None:
    assert [listed(parts) for parts in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
