"""Scores of models and predictions: what is read, in which order, what is refused, and what a stop leaves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from napari_autosegnet import api
from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.errors import StoppedError, UserError
from napari_autosegnet.evaluation.overlays import picture_names
from napari_autosegnet.evaluation.prediction import stored_names
from napari_autosegnet.events import DataRead, Finished, Note, ProgressMade, Stopped
from napari_autosegnet.inference.compute import sections
from napari_autosegnet.settings import PredictSettings
from remembered_events import Events
from small_models import small_model

NAMES = ["Background", "2nd myelin", "2nd  myelin!"]
#: The values 10, 20, 30 are the model's classes 1, 2, 3.
CLASSES = "10:Background,20:2nd myelin,30:2nd  myelin!"
TURNED = "30:2nd  myelin!,10:Background,20:2nd myelin"


def write(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, array, photometric="minisblack")
    return path


@dataclass
class Predicted:
    """A model, an image of three sections, its prediction as a store and labels that agree with it everywhere."""

    model: Path
    image: Path
    store: Path
    labels: Path
    classes: np.ndarray


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Predicted:
    folder = tmp_path_factory.mktemp("predicted")
    small_model().save(folder / "model")
    pixels = np.random.default_rng(0).integers(0, 255, (3, 48, 64), dtype=np.uint8)
    image = write(folder / "image.tif", pixels)
    api.predict(folder / "model", image, folder / "store.zarr", settings=PredictSettings(halo="exact"))
    found = np.asarray(zarr.open_array(folder / "store.zarr" / "labels" / "segmentation" / "0")[...])
    assert set(np.unique(found)) == {1, 2, 3}
    return Predicted(folder / "model", image, folder / "store.zarr", write(folder / "labels.tif", 10 * found), found)


def test_labels_in_a_folder_are_those_of_the_images_by_name(predicted: Predicted, tmp_path: Path) -> None:
    """The prediction has the order of the images; that of the labels is another one."""
    names = ("c1", "c1_2", "c2")
    for name, pixels, marks in zip(names, tifffile.imread(predicted.image), 10 * predicted.classes, strict=True):
        write(tmp_path / "images" / f"{name}.tif", pixels)
        write(tmp_path / "labels" / f"{name}_masks.tif", marks)
    images, labels = [tmp_path / "images"], [tmp_path / "labels"]
    events = Events()
    scores = api.evaluate(prediction=predicted.store, labels=labels, images=images, classes=CLASSES, report=events)
    assert scores.mean_iou == 1
    scores = api.evaluate(model=predicted.model, labels=labels, images=images, classes=CLASSES)
    assert scores.mean_iou > 0.99
    # A folder of predictions has names of its own.
    for name, found in zip(names, predicted.classes, strict=True):
        write(tmp_path / "found" / f"{name}.tif", found)
    for more in ({}, {"images": images}):
        assert api.evaluate(prediction=tmp_path / "found", labels=labels, classes=CLASSES, **more).mean_iou == 1


def test_files_without_partners_are_taken_in_order_and_that_is_told(predicted: Predicted, tmp_path: Path) -> None:
    for number, marks in enumerate(10 * predicted.classes):
        write(tmp_path / "labels" / f"{number}.tif", marks)
    events = Events()
    labels = [tmp_path / "labels"]
    assert api.evaluate(prediction=predicted.store, labels=labels, classes=CLASSES, report=events).mean_iou == 1
    assert any("in the order of their names; give --image" in note.text for note in events.of(Note))


def test_missing_sections_are_left_out(predicted: Predicted, tmp_path: Path) -> None:
    pixels = tifffile.imread(predicted.image)
    pixels[1] = 0
    image, events = write(tmp_path / "image.tif", pixels), Events()
    scores = api.evaluate(
        model=predicted.model, images=[image], labels=[predicted.labels], classes=CLASSES, report=events
    )
    assert scores.quality.sections == 2
    assert scores.mean_iou > 0.99
    assert "1 of 3 sections are constant (missing) and left out" in [note.text for note in events.of(Note)]
    with pytest.raises(UserError, match="nothing to score: the sections are constant"):
        api.evaluate(model=predicted.model, images=[image], labels=[predicted.labels], classes=CLASSES, sections="1")


def test_a_time_point_and_a_channel_are_scored(predicted: Predicted, tmp_path: Path) -> None:
    series = np.zeros((2, 3, 2, 48, 64), np.uint8)
    series[1, :, 1] = tifffile.imread(predicted.image)
    np.save(tmp_path / "series.npy", series)
    scores = api.evaluate(
        model=predicted.model,
        images=[tmp_path / "series.npy"],
        labels=[predicted.labels],
        classes=CLASSES,
        time_point=1,
        channels=["1"],
        axes="tzcyx",
    )
    assert scores.mean_iou > 0.99


# Class names


@pytest.mark.parametrize("part", ["", "labels/segmentation", "labels/segmentation/0"])
def test_classes_in_another_order_score_alike(predicted: Predicted, part: str) -> None:
    events = Events()
    straight = api.evaluate(prediction=predicted.store / part, labels=[predicted.labels], classes=CLASSES)
    turned = api.evaluate(prediction=predicted.store / part, labels=[predicted.labels], classes=TURNED, report=events)
    assert straight == turned and straight.mean_iou == 1
    assert straight.classes == tuple(NAMES)
    (told,) = events.of(DataRead)
    assert told.text.startswith("30 -> 3 2nd  myelin!, 10 -> 1 Background, 20 -> 2 2nd myelin")


def test_a_store_of_the_older_version_knows_its_classes_too(predicted: Predicted, tmp_path: Path) -> None:
    settings = PredictSettings(halo="exact", format="ome-zarr-0.4")
    api.predict(predicted.model, predicted.image, tmp_path / "old.zarr", settings=settings)
    scores = api.evaluate(prediction=tmp_path / "old.zarr", labels=[predicted.labels], classes=TURNED)
    assert scores.mean_iou == 1


def test_names_under_the_key_of_other_programs(tmp_path: Path) -> None:
    def store(name: str, properties: Any) -> Path:
        label = {"version": "0.5", "properties": properties}
        zarr.create_group(tmp_path / name, zarr_format=3, attributes={"ome": {"image-label": label}})
        return tmp_path / name

    named = [{"label-value": 2, "name": "b"}, {"label-value": 1, "name": "a"}]
    assert stored_names(store("others", named)) == ["a", "b"]
    # Not the classes 1..K: numbers that are missing, no names, names that come twice, and what is no list at all.
    assert stored_names(store("gap", [{"label-value": 2, "name": "b"}])) is None
    assert stored_names(store("nameless", [{"label-value": 1, "area": 3}])) is None
    assert stored_names(store("twice", [{"label-value": number, "class": "a"} for number in (1, 2)])) is None
    assert stored_names(store("odd", "a, b")) is None


def test_labels_without_names_are_not_guessed(predicted: Predicted, tmp_path: Path) -> None:
    # The classes are 0, 1 and 2, of which 0 is taken for not annotated.
    labels = write(tmp_path / "labels.tif", predicted.classes - 1)
    with pytest.raises(UserError, match=r"has 3 classes \(Background, .*--classes VALUE:Background") as raised:
        api.evaluate(prediction=predicted.store, labels=[labels])
    assert "\n" not in str(raised.value)
    # As many as the prediction has: the same ones, in the order that a training without names gives them.
    scores = api.evaluate(prediction=predicted.store, labels=[predicted.labels])
    assert scores.mean_iou == 1 and scores.classes == tuple(NAMES)


def test_a_class_that_the_store_does_not_have_is_named(predicted: Predicted) -> None:
    with pytest.raises(UserError, match="no class 'nerve'"):
        api.evaluate(
            prediction=predicted.store, labels=[predicted.labels], classes=CLASSES.replace("Background", "nerve")
        )


def test_some_of_the_classes_are_enough(predicted: Predicted, tmp_path: Path) -> None:
    scores = api.evaluate(
        prediction=predicted.store,
        labels=[predicted.labels],
        images=[predicted.image],
        classes="30:2nd  myelin!,10:Background",
        overlays=tmp_path / "overlays",
    )
    assert scores.mean_iou == 1 and scores.iou["2nd myelin"] is None
    assert len(list((tmp_path / "overlays").iterdir())) == 3


def test_a_picture_has_its_classes_in_the_order_of_the_command(predicted: Predicted, tmp_path: Path) -> None:
    prediction = write(tmp_path / "prediction.tif", predicted.classes)
    assert api.evaluate(prediction=prediction, labels=[predicted.labels], classes=CLASSES).mean_iou == 1
    assert api.evaluate(prediction=prediction, labels=[predicted.labels], classes=TURNED).mean_iou < 0.5


# What is no prediction


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda classes: classes.astype(np.float32), "holds float32 values"),
        (lambda classes: np.stack([classes] * 5, 1), "has 5 channels"),
        (lambda classes: np.stack([classes, classes, 9 - classes], 1), "has 3 channels"),
        (lambda classes: np.arange(classes.size, dtype=np.uint16).reshape(classes.shape), "other values"),
    ],
)
def test_probabilities_and_images_are_no_prediction(
    predicted: Predicted, tmp_path: Path, make: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    array = make(predicted.classes)
    prediction = tmp_path / "prediction.ome.tif"
    axes = "ZCYX" if array.ndim == 4 else "ZYX"
    tifffile.imwrite(prediction, array, photometric="minisblack", metadata={"axes": axes})
    with pytest.raises(UserError, match=f"{message}.*class numbers 1 to K") as raised:
        api.evaluate(prediction=prediction, labels=[predicted.labels], classes=CLASSES)
    assert "prediction.ome.tif" in str(raised.value) and "\n" not in str(raised.value)


def test_the_probabilities_of_a_store_are_no_prediction(predicted: Predicted, tmp_path: Path) -> None:
    settings = PredictSettings(halo="exact", probabilities=True)
    api.predict(predicted.model, predicted.image, tmp_path / "store.zarr", settings=settings)
    with pytest.raises(UserError, match="has 3 channels, but a prediction holds class numbers"):
        api.evaluate(prediction=tmp_path / "store.zarr" / "probabilities", labels=[predicted.labels], classes=CLASSES)


def test_a_few_other_numbers_are_told_and_count_as_missed(predicted: Predicted, tmp_path: Path) -> None:
    changed = predicted.classes.copy()
    changed[1, :2] = 255
    events = Events()
    scores = api.evaluate(
        prediction=write(tmp_path / "prediction.tif", changed),
        labels=[predicted.labels],
        images=[predicted.image],
        classes=CLASSES,
        overlays=tmp_path / "overlays",
        report=events,
    )
    assert sum(scores.not_predicted) == 2 * 64
    (note,) = events.of(Note)
    assert "255" in note.text and "1 to 3" in note.text


# Images and overlays


@pytest.mark.parametrize(
    ("shape", "message"),
    [((2, 48, 64), "has 2 sections and the prediction .* has 3"), ((3, 40, 64), "is 40x64 pixels .* 48x64")],
)
def test_an_image_of_another_shape_is_refused_before_anything_is_drawn(
    predicted: Predicted, tmp_path: Path, shape: tuple[int, ...], message: str
) -> None:
    image = write(tmp_path / "other.tif", np.zeros(shape, np.uint8))
    with pytest.raises(UserError, match=message) as raised:
        api.evaluate(
            prediction=predicted.store,
            labels=[predicted.labels],
            images=[image],
            classes=CLASSES,
            overlays=tmp_path / "overlays",
        )
    assert "other.tif" in str(raised.value)
    assert not (tmp_path / "overlays").exists()


def test_a_prediction_has_one_image(predicted: Predicted) -> None:
    with pytest.raises(UserError, match="at most one --image"):
        api.evaluate(
            prediction=predicted.store, labels=[predicted.labels], images=[predicted.image] * 2, classes=CLASSES
        )


def test_pictures_of_images_with_one_name_do_not_replace_each_other(predicted: Predicted, tmp_path: Path) -> None:
    images, labels = [], []
    for folder in ("left", "right"):
        (tmp_path / folder).mkdir()
        images.append(Path(shutil.copy(predicted.image, tmp_path / folder)))
        labels.append(predicted.labels)
    overlays = tmp_path / "overlays"
    api.evaluate(
        model=predicted.model, images=images, labels=labels, classes=CLASSES, sections="0-1", overlays=overlays
    )
    assert sorted(path.name for path in overlays.iterdir()) == [
        "left-image-0000.png",
        "left-image-0001.png",
        "right-image-0000.png",
        "right-image-0001.png",
    ]


def test_names_of_pictures_are_plain_where_they_can_be(tmp_path: Path) -> None:
    def images(*paths: str) -> list[Any]:
        found = []
        for path in paths:
            image = image_from_array(np.zeros((4, 4), np.uint8), name=Path(path).name)
            image.path = Path(path) if "/" in path else None
            found.append(image)
        return found

    assert picture_names(images("/x/a", "/x/b")) == ["a", "b"]
    assert picture_names(images("/x/a", "/y/A", "/y/b")) == ["x-a", "y-A", "b"]
    assert picture_names(images("/1/x/a", "/2/x/a")) == ["x-a-1", "x-a-2"]
    assert picture_names(images("a", "a", "a-1")) == ["a-1", "a-2", "a-1-1"]


# Sections without labels


def test_sections_without_labels_are_not_predicted(
    predicted: Predicted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sparse = 10 * predicted.classes
    sparse[[0, 2]] = 0
    labels = write(tmp_path / "sparse.tif", sparse)
    computed: list[int] = []
    real = sections.predict_section

    def counted(predictor: Any, image: Any, section: int, **named: Any) -> Any:
        computed.append(section)
        return real(predictor, image, section, **named)

    monkeypatch.setattr(sections, "predict_section", counted)
    events = Events()
    arguments: dict[str, Any] = {"images": [predicted.image], "labels": [labels], "classes": CLASSES}
    scores = api.evaluate(model=predicted.model, report=events, **arguments)
    assert computed == [1]
    assert sum(map(sum, scores.confusion)) == 48 * 64
    assert ProgressMade(done=1, total=1, step="evaluate") in events.of(ProgressMade)
    assert [note.text for note in events.of(Note)][-1] == "2 of 3 sections are not annotated and left out"
    with pytest.raises(UserError, match="nothing to score"):
        api.evaluate(model=predicted.model, sections="0,2", **arguments)
    assert computed == [1]


# Stops


def asked_after(progress: int, events: Events) -> Callable[[], bool]:
    return lambda: len(events.of(ProgressMade)) >= progress


@pytest.mark.parametrize("done", [0, 1, 2])
@pytest.mark.parametrize("what", ["model", "prediction"])
def test_a_stop_gives_no_score_of_some_sections(predicted: Predicted, what: str, done: int) -> None:
    events = Events()
    subject: dict[str, Any] = {"model": predicted.model} if what == "model" else {"prediction": predicted.store}
    with pytest.raises(StoppedError, match=f"after {done} of 3 sections"):
        api.evaluate(
            **subject,
            images=[predicted.image],
            labels=[predicted.labels],
            classes=CLASSES,
            report=events,
            should_stop=asked_after(done, events),
        )
    assert len(events.of(ProgressMade)) == done
    assert events.of(Finished) == []
    assert [values.step for values in events.of(Stopped)] == ["evaluate"]


def test_a_stop_after_the_last_section_interrupts_nothing(predicted: Predicted) -> None:
    events = Events()
    scores = api.evaluate(
        prediction=predicted.store,
        labels=[predicted.labels],
        classes=CLASSES,
        report=events,
        should_stop=asked_after(3, events),
    )
    assert scores.mean_iou == 1 and events.all[-1].event == "finished"


def test_a_stop_among_the_boundary_scores_gives_none(predicted: Predicted, tmp_path: Path) -> None:
    prediction = write(tmp_path / "prediction.tif", predicted.classes)
    classes = "10:membrane,20:cell,30:nucleus"
    for more in (0, 1):
        events = Events()
        with pytest.raises(StoppedError, match="before V_rand"):
            api.evaluate(
                prediction=prediction,
                labels=[predicted.labels],
                classes=classes,
                report=events,
                should_stop=asked_after(3 + more, events),
            )
        assert events.all[-1].event == "stopped"
    whole = Events()
    scores = api.evaluate(prediction=prediction, labels=[predicted.labels], classes=classes, report=whole)
    assert scores.v_rand == 1
    assert [(each.step, each.done, each.total) for each in whole.of(ProgressMade)] == [
        *(("evaluate", number, 3) for number in (1, 2, 3)),
        *(("V_rand", number, 3) for number in (1, 2, 3)),
    ]
