from __future__ import annotations

import numpy as np

from napari_autosegnet.data.annotations import LabelMapping, default_classes
from napari_autosegnet.data.array_stack import stack_of_array
from napari_autosegnet.data.labeled_stacks import LabeledStack
from napari_autosegnet.pixel_classifier.live import LiveClassifier, View, drawn_by_class

MAPPING = LabelMapping(classes=default_classes(["smooth", "rough", "bright"]), values={1: 1, 2: 2, 7: 3})


def labeled(sections: int = 3) -> LabeledStack:
    """Thirds of each section are smooth, rough and bright; one stroke of each, in sections 0 and 2."""
    noise = np.random.default_rng(0).normal(size=(sections, 100, 150))
    third = np.repeat([0, 1, 2], 50)
    image = (100 + 80 * (third == 2) + np.array([2, 25, 2])[third] * noise).astype(np.float32)
    strokes = np.zeros(image.shape, np.uint8)
    strokes[0, 48:52, 10:40] = 1
    strokes[0, 48:52, 60:90] = 2
    strokes[2, 48:52, 110:140] = 7
    return LabeledStack(
        stack_of_array(image, "zyx", name="image", time=None),
        stack_of_array(strokes, "zyx", name="strokes", time=None),
        MAPPING,
    )


def view(stack: LabeledStack, y: tuple[int, int] = (0, 100), x: tuple[int, int] = (0, 150)) -> View:
    return View("image", stack.image, 1, y, x)


def test_strokes_of_all_sections_count_and_a_part_is_labeled_as_in_the_whole() -> None:
    stack = labeled()
    whole = LiveClassifier(2).label(view(stack), [("image", stack)])
    assert whole is not None and whole.complete
    for number, middle in enumerate((25, 75, 125), start=1):
        assert (whole.labels[:, middle - 15 : middle + 15] == number).mean() > 0.95
    part = LiveClassifier().label(view(stack, (30, 80), (60, 150)), [("image", stack)])
    assert part is not None
    np.testing.assert_array_equal(part.labels, whole.labels[30:80, 60:150])


def test_what_takes_too_long_is_caught_up_on() -> None:
    stack, classifier = labeled(), LiveClassifier()
    first = classifier.label(view(stack), [("image", stack)], seconds=0)
    assert first is not None and not first.complete and set(np.unique(first.labels)) == {1, 2}
    classifier.label(view(stack), [("image", stack)])
    again = classifier.label(view(stack), [("image", stack)], seconds=0)
    assert again is not None and again.complete and 3 in again.labels
    assert classifier.label(view(stack), [("image", stack)], should_stop=lambda: True) is None
    assert classifier.label(view(stack), []) is None


def test_of_much_annotation_some_is_drawn_and_stays_drawn() -> None:
    target = np.repeat(np.array([0, 1, 2], np.uint8), [1000, 5000, 30])
    drawn = drawn_by_class(target, 100)
    assert np.bincount(target[drawn]).tolist() == [0, 100, 30] and (np.diff(drawn) > 0).all()
    target[1000:1100] = 0
    assert len(np.intersect1d(drawn, drawn_by_class(target, 100))) > 120
