"""The four steps on small real data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from skimage import io

from napari_autosegnet import api
from napari_autosegnet.architecture import Architecture, SearchSpace
from napari_autosegnet.data.sample import SAMPLE_CLASSES, sample_folder
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import DataRead, Event, FinalistTrained, Note, QualityMeasured
from napari_autosegnet.jobs.configuration import RunConfiguration
from napari_autosegnet.model import Model
from napari_autosegnet.quality import Quality
from napari_autosegnet.run import Run
from napari_autosegnet.settings import (
    NetworkSettings,
    OptimizationSettings,
    PredictSettings,
    SearchSettings,
    SelectionSettings,
    SplitSettings,
    TrainSettings,
)
from napari_autosegnet.training.checkpoints import read_checkpoint

NETWORK = NetworkSettings(base_width=6, max_width=12, stem_stride=2)
SEARCH = SearchSettings(
    epochs=2,
    patch_size=32,
    batch_size=4,
    steps_per_epoch=4,
    warmup_fraction=0.5,
    updates_per_epoch=1,
    samples_per_update=2,
    reward_patches=4,
    space=SearchSpace(cells=1),
    selection=SelectionSettings(candidates=2, finalists=2, steps=2, plain_steps=0),
    network=NETWORK,
)
TRAIN = TrainSettings(
    epochs=3,
    steps_per_epoch=10,
    batch_size=4,
    patch_size=32,
    network=NETWORK,
    optimization=OptimizationSettings(average_weights=0.8),
)


@dataclass
class Finished:
    run: Path
    images: list[Path]
    labels: list[Path]
    events: list[str]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run that was searched and trained on a stack of four crops of the sample."""
    folder = tmp_path_factory.mktemp("finished run ü")
    image = io.imread(sample_folder() / "axon-sem-a.png")
    labels = io.imread(sample_folder() / "axon-sem-a-labels.png")
    crops = [(slice(y, y + 128), slice(x, x + 128)) for y in (0, 200) for x in (0, 250)]
    paths = [folder / "image.tif", folder / "labels.tif"]
    for path, source in zip(paths, (image, labels), strict=True):
        tifffile.imwrite(path, np.stack([source[crop] for crop in crops]), photometric="minisblack")
    events: list[str] = []

    def report(event: Event) -> None:
        events.append(event.event)

    split = SplitSettings(train_sections="0-1", validation_sections="3")
    api.search(
        folder / "run",
        [paths[0]],
        [paths[1]],
        classes=SAMPLE_CLASSES,
        preset="fast",
        settings=SEARCH,
        split=split,
        report=report,
    )
    api.train(folder / "run", settings=TRAIN, report=report)
    return Finished(folder / "run", [paths[0]], [paths[1]], events)


def test_a_run_keeps_all_that_it_knows(finished: Finished) -> None:
    run = Run.open(finished.run)
    content = run.read_config()
    assert content["data"]["split"]["train_sections"] == "0-1"
    assert SearchSettings.model_validate(content["search"]) == SEARCH
    assert TrainSettings.model_validate(content["training"]) == TRAIN
    assert RunConfiguration.load(Run(finished.run)).preset == "fast"
    model = Model.load(run.model_folder)
    assert model.specification.architecture == Architecture.load(run.architecture_file)
    assert [c.name for c in model.classes] == ["background", "myelin", "axon"]
    assert model.description.training["label_values"] == {"0": 1, "1": 2, "2": 3}
    # Calibrated: the weights of the best epoch, both parts of the head divided by the temperature.
    best = read_checkpoint(run.checkpoint_file("training"), torch.device("cpu"))["best"]["weights"]
    temperature = model.description.training["temperature"]
    assert temperature != 1
    for part in ("head.coarse.weight", "head.fine.weight"):
        torch.testing.assert_close(model.weights[part] * temperature, best[part])
    assert torch.equal(model.weights["stem.0.weight"], best["stem.0.weight"])
    kept = [event.event for event in run.events()]
    assert kept == finished.events
    assert kept.count("finished") == 2 and kept.count("epoch") == 5


def test_predicted_and_scored_alike_from_files_and_from_the_model(finished: Finished, tmp_path: Path) -> None:
    model = finished.run / "model"
    out = tmp_path / "result.zarr"
    summary = api.predict(model, finished.images[0], out, settings=PredictSettings(halo="exact"))
    assert summary.done == summary.blocks and not summary.stopped
    stored = api.evaluate(prediction=out, labels=finished.labels, classes=SAMPLE_CLASSES)
    direct = api.evaluate(
        model=model, images=finished.images, labels=finished.labels, overlays=tmp_path / "overlays", sections="2-3"
    )
    assert sum(map(sum, stored.confusion)) == 4 * 128 * 128
    assert sum(map(sum, direct.confusion)) == 2 * 128 * 128
    again = api.evaluate(prediction=out, labels=finished.labels, classes=SAMPLE_CLASSES, sections="2-3")
    assert again.confusion == direct.confusion
    assert direct.expected_calibration_error is not None and again.expected_calibration_error is None
    assert len(list((tmp_path / "overlays").glob("*.png"))) == 2


def test_a_model_and_a_search_say_on_how_much_they_were_checked(finished: Finished) -> None:
    events = Run(finished.run).events()
    told = {event.step: event.quality for event in events if isinstance(event, QualityMeasured)}
    assert told.keys() == {"search", "train"}
    model = Quality.of(Model.load(finished.run / "model").metrics["validation"])
    assert model is not None and model == told["train"]
    regions = next(event.validation_pixels for event in events if isinstance(event, DataRead))
    assert 0 < sum(model.pixels.values()) <= sum(map(sum, regions)) and model.sections == 1
    assert list(model.pixels) == list(model.iou)
    finalists = [event for event in events if isinstance(event, FinalistTrained)]
    winner = told["search"]
    assert finalists
    assert all(event.pixels == winner.pixels and event.sections == 1 for event in finalists)
    assert winner.mean_iou in [event.score for event in finalists]


def test_nothing_is_overwritten(finished: Finished) -> None:
    with pytest.raises(UserError, match="holds a search already"):
        api.search(finished.run, finished.images, finished.labels, classes=SAMPLE_CLASSES)
    with pytest.raises(UserError, match="holds a training already"):
        api.train(finished.run, settings=TRAIN)


def test_a_finished_search_resumes_to_the_same_end(finished: Finished) -> None:
    before = Architecture.load(finished.run / "architecture.json")
    assert api.search(finished.run, resume=True) == before


def test_stopped_training_goes_on_exactly(finished: Finished, tmp_path: Path) -> None:
    architecture = tmp_path / "architecture.json"
    architecture.write_text(SearchSpace().sample(np.random.default_rng(0)).to_json())
    arguments: dict[str, Any] = {
        "images": finished.images,
        "labels": finished.labels,
        "classes": SAMPLE_CLASSES,
        "architecture": architecture,
        "settings": TRAIN,
    }
    undisturbed = api.train(tmp_path / "undisturbed", **arguments)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 15

    api.train(tmp_path / "stopped", **arguments, should_stop=stop)
    assert [e.event for e in Run(tmp_path / "stopped").events()][-1] == "stopped"
    resumed = api.train(tmp_path / "stopped", resume=True)
    assert resumed.metrics == undisturbed.metrics
    assert resumed.description.weights_sha256 == undisturbed.description.weights_sha256


def test_new_labels_continue_from_the_last_weights(finished: Finished, tmp_path: Path) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(finished.run, run)
    labels = tifffile.imread(finished.labels[0])
    labels[0, :20] = 2
    tifffile.imwrite(tmp_path / "more.tif", labels, photometric="minisblack")
    settings = TRAIN.changed(epochs=1, steps_per_epoch=1, optimization={"learning_rate": 1e-8})
    before = Model.load(run / "model")
    after = api.train(run, settings=settings, continue_with=tmp_path / "more.tif")
    name = "stem.0.weight"
    assert np.allclose(before.weights[name], after.weights[name], atol=1e-6)
    assert Run(run).read_config()["data"]["labels"] == [str(tmp_path / "more.tif")]


@pytest.mark.parametrize("network", ["unet", "pspnet"])
def test_networks_to_compare_with(finished: Finished, tmp_path: Path, network: Any) -> None:
    settings = TRAIN.model_copy(update={"epochs": 1, "steps_per_epoch": 1})
    model = api.train(
        tmp_path / "run", images=finished.images, labels=finished.labels, network=network, settings=settings,
        classes=SAMPLE_CLASSES,
    )  # fmt: skip
    assert model.specification.network == network and model.specification.architecture is None
    scores = api.evaluate(
        model=tmp_path / "run" / "model", images=finished.images, labels=finished.labels, sections="0"
    )
    assert 0 <= scores.mean_iou <= 1


def test_the_plain_chain_needs_no_search(finished: Finished, tmp_path: Path) -> None:
    settings = TRAIN.model_copy(update={"epochs": 2, "steps_per_epoch": 1})
    run = tmp_path / "run"
    data: dict[str, Any] = {"images": finished.images, "labels": finished.labels, "classes": SAMPLE_CLASSES}
    stop = iter([False, True])
    api.train(run, **data, network="plain", settings=settings, should_stop=lambda: next(stop, True))
    model = api.train(run, resume=True)
    assert model.description.training["epochs"] == 2
    assert model.specification.architecture == SearchSpace().plain
    assert Run(run).read_config()["network"] == "plain"


def test_training_needs_an_architecture(finished: Finished, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no architecture yet"):
        api.train(tmp_path / "run", images=finished.images, labels=finished.labels, classes=SAMPLE_CLASSES)
    with pytest.raises(UserError, match="not a run folder"):
        api.train(tmp_path / "missing")
    with pytest.raises(UserError, match="not a run folder"):
        api.search(tmp_path / "missing", resume=True)


def test_a_damaged_config_gives_one_line(finished: Finished, tmp_path: Path) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(finished.run, run)
    content = json.loads((run / "config.json").read_text())
    content["search"]["epochs"] = "many"
    (run / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="damaged at 'search.epochs'"):
        api.search(run, resume=True)


def test_wrong_questions_are_refused(finished: Finished, tmp_path: Path) -> None:
    model = finished.run / "model"
    with pytest.raises(UserError, match="either a model or a prediction"):
        api.evaluate(labels=finished.labels)
    with pytest.raises(UserError, match="section 9 does not exist"):
        api.evaluate(model=model, images=finished.images, labels=finished.labels, sections="9")
    with pytest.raises(UserError, match="no class 'nerve'"):
        api.evaluate(model=model, images=finished.images, labels=finished.labels, classes="0:nerve,1:myelin,2:axon")


def labeled(folder: Path, change: Any) -> dict[str, Any]:
    """Ten crops of the sample and their labels, the images changed, as files of a training."""
    folder.mkdir()
    image = io.imread(sample_folder() / "axon-sem-a.png").astype(np.float32)
    labels = io.imread(sample_folder() / "axon-sem-a-labels.png")
    crops = [(slice(y, y + 96), slice(x, x + 96)) for y in range(0, 400, 100) for x in range(0, 300, 100)][:10]
    images = change(np.stack([image[crop] for crop in crops]))
    tifffile.imwrite(folder / "image.tif", images, photometric="minisblack")
    tifffile.imwrite(folder / "labels.tif", np.stack([labels[crop] for crop in crops]), photometric="minisblack")
    return {"images": [folder / "image.tif"], "labels": [folder / "labels.tif"], "classes": SAMPLE_CLASSES}


def trained(folder: Path, change: Any, **changes: Any) -> tuple[Model, list[str]]:
    notes: list[str] = []

    def report(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    settings = TRAIN.model_copy(update={"epochs": 6, "steps_per_epoch": 25, **changes})
    split = SplitSettings(train_sections="0-6", validation_sections="8-9")
    model = api.train(
        folder / "run",
        **labeled(folder, change),
        network="plain",
        settings=settings,
        split=split,
        device="cpu",
        report=report,
    )
    return model, notes


def hot(images: np.ndarray) -> np.ndarray:
    """A few pixels of every section are as bright as a damaged detector makes them."""
    generator = np.random.default_rng(0)
    for section in images:
        section[tuple(generator.integers(0, 96, (2, 3)))] = 1e30
    return images


@pytest.mark.slow
def test_hot_pixels_do_not_spoil_a_training(tmp_path: Path) -> None:
    clean, _ = trained(tmp_path / "clean", lambda images: images)
    spoilt, notes = trained(tmp_path / "hot", hot)
    assert notes == []
    np.testing.assert_allclose(spoilt.normalization.mean, clean.normalization.mean, rtol=5e-3)
    np.testing.assert_allclose(spoilt.normalization.std, clean.normalization.std, rtol=5e-3)
    reached, without = (model.metrics["validation"]["mean_iou"] for model in (spoilt, clean))
    assert without > 0.5 and reached > without - 0.1


@pytest.mark.slow
def test_contrast_that_drifts_is_followed(tmp_path: Path) -> None:
    """Sections that the training has not seen are darker than all that it has."""

    def drifting(images: np.ndarray) -> np.ndarray:
        return images * np.linspace(1.0, 0.25, len(images), dtype=np.float32)[:, None, None]

    reached = {}
    for kind in ("auto", "global"):
        model, notes = trained(tmp_path / kind, drifting, normalization=kind)
        reached[kind] = model.metrics["validation"]["mean_iou"]
        assert model.normalization.kind == ("section" if kind == "auto" else "global")
        assert any("each section is normalized" in note for note in notes) == (kind == "auto")
    assert reached["auto"] > reached["global"] + 0.05
    kept = Run(tmp_path / "auto" / "run").read_config()
    assert kept["training"]["normalization"] == "auto"


def test_missing_sections_are_left_out_of_a_training(tmp_path: Path) -> None:
    def missing(images: np.ndarray) -> np.ndarray:
        images[[2, 8]] = 0
        return images

    model, notes = trained(tmp_path / "missing", missing, epochs=1)
    assert "2 sections are constant (one gray value throughout) and left out of the training: 2, 8" in notes
    out = tmp_path / "out.zarr"
    summary = api.predict(tmp_path / "missing" / "run" / "model", tmp_path / "missing" / "image.tif", out, device="cpu")
    assert summary.constant_sections == (2, 8) and model.normalization.seen is not None
