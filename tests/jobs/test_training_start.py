"""What a training begins with; whole trainings are tested in `test_api`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from napari_autosegnet.architecture import Architecture, SearchSpace
from napari_autosegnet.data.annotations import parse_classes
from napari_autosegnet.data.selection import Selection
from napari_autosegnet.errors import UserError
from napari_autosegnet.jobs.configuration import RunConfiguration
from napari_autosegnet.jobs.preparation import LabeledData
from napari_autosegnet.jobs.training_start import TrainingStart, check_same_classes
from napari_autosegnet.presets import search_settings, train_settings
from napari_autosegnet.run import Run
from napari_autosegnet.settings import Network, SplitSettings, TrainSettings
from run_configs import update_config
from small_models import small_model

SETTINGS = TrainSettings(epochs=3)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run that was searched with the preset ``fast`` on one stack of three sections."""
    image = np.random.default_rng(0).integers(0, 255, (3, 32, 32), dtype=np.uint8)
    for name, data in (
        ("image", image),
        ("labels", (image > 99).astype(np.uint8)),
        ("more", (image > 9).astype(np.uint8)),
    ):
        tifffile.imwrite(tmp_path / f"{name}.tif", data, photometric="minisblack")
    run = Run.create(tmp_path / "run")
    source = LabeledData.given(
        [tmp_path / "image.tif"], [tmp_path / "labels.tif"], "0:rest,1:cell", split=SplitSettings(seed=5)
    )
    RunConfiguration(preset="fast", data=source.description, search=search_settings("fast")).save(run)
    run.architecture_file.write_text(SearchSpace().sample(np.random.default_rng(0)).to_json())
    return run


def fresh(run: Run, network: Network, architecture: Path | None, settings: TrainSettings | None) -> TrainingStart:
    return TrainingStart.fresh(run, RunConfiguration.load(run), network, architecture, settings)


def test_new_networks(run: Run, tmp_path: Path) -> None:
    found = fresh(run, "searched", None, None)
    assert found.architecture == Architecture.load(run.architecture_file)
    assert found.settings == train_settings("fast")
    plain = fresh(run, "plain", None, SETTINGS)
    assert plain.architecture == SearchSpace().plain and plain.settings == SETTINGS
    assert fresh(run, "unet", None, SETTINGS).architecture is None

    other = tmp_path / "other.json"
    other.write_text(SearchSpace().sample(np.random.default_rng(1)).to_json())
    assert fresh(run, "searched", other, None).architecture == Architecture.load(other) != found.architecture


def test_a_run_reads_its_data_as_before(run: Run, tmp_path: Path) -> None:
    image = tifffile.imread(tmp_path / "image.tif")
    np.save(tmp_path / "image.npy", np.stack([image // 2, image], axis=1))
    read = Selection(channels=("1",), axes="zcyx")
    given = LabeledData.given([tmp_path / "image.npy"], [tmp_path / "labels.tif"], "0:rest,1:cell", read)
    RunConfiguration(data=given.description).save(run)
    (stack,) = LabeledData.kept(run, RunConfiguration.load(run).data).stacks
    np.testing.assert_array_equal(stack.image.section(1)[0], image[1])


def test_a_training_is_not_begun_twice(run: Run) -> None:
    update_config(run, training=SETTINGS.model_dump(mode="json"))
    with pytest.raises(UserError, match="holds a training already"):
        fresh(run, "plain", None, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no training to resume"),
        ({"training": SETTINGS.model_dump(mode="json")}, "damaged at 'network'"),
        ({"training": SETTINGS.model_dump(mode="json"), "network": "resnet"}, "damaged at 'network'"),
        ({"training": {"epochs": -1}, "network": "unet"}, "damaged at 'training.epochs'"),
    ],
)
def test_what_cannot_be_resumed(run: Run, content: dict[str, Any], message: str) -> None:
    update_config(run, **content)
    with pytest.raises(UserError, match=message):
        TrainingStart.resume(run, RunConfiguration.load(run))


def test_what_is_resumed(run: Run) -> None:
    plain = SearchSpace().plain
    update_config(run, training=SETTINGS.model_dump(mode="json"), network="plain", training_architecture=plain.digest)
    run.training_architecture_file.write_text(plain.to_json())
    assert TrainingStart.resume(run, RunConfiguration.load(run)) == TrainingStart("plain", plain, SETTINGS)
    # One whose weights have the same shapes would go on as another network, without a word.
    other = plain.model_copy(update={"skips": tuple(not skip for skip in plain.skips)})
    run.training_architecture_file.write_text(other.to_json())
    with pytest.raises(UserError, match=r"training-architecture\.json is not what this training began with"):
        TrainingStart.resume(run, RunConfiguration.load(run))


def test_a_model_that_is_trained_further_keeps_its_surroundings(run: Run) -> None:
    small_model("unet", context=1).save(run.model_folder)
    begun = TrainingStart.continue_from(run, RunConfiguration.load(run), SETTINGS)
    assert SETTINGS.context == 0 and begun.settings.context == 1
    specification, network = begun.build(3, 3)
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 64, 64) and specification.network == "unet"
    odd = TrainingStart.continue_from(run, RunConfiguration.load(run), SETTINGS.model_copy(update={"patch_size": 65}))
    with pytest.raises(UserError, match="--patch-size 64"):
        odd.build(3, 3)


def test_data_of_the_run(run: Run, tmp_path: Path) -> None:
    data = RunConfiguration.load(run).data
    kept = LabeledData.kept(run, data)
    assert kept.description == data
    assert kept.description.split.seed == 5
    more = LabeledData.kept(run, data, [tmp_path / "more.tif"], SplitSettings(seed=6))
    assert more.description.labels == (tmp_path / "more.tif",)
    assert more.description.split.seed == 6
    assert more.description.images == kept.description.images
    assert (more.stacks[0].target(0) != kept.stacks[0].target(0)).any()


@pytest.mark.parametrize(
    ("labels", "kept", "complaint"),
    [
        ("1:Background,2:2nd myelin,3:2nd  myelin!", None, ""),
        ("7:Background,8:2nd myelin,9:2nd  myelin!", "1:Background,2:2nd myelin,3:2nd  myelin!", ""),
        ("1:Background,2:axon,3:2nd  myelin!", "1:Background,2:2nd myelin,3:2nd  myelin!", ""),
        (
            "1:Background,4:axon,3:2nd  myelin!",
            "1:Background,2:2nd myelin,3:2nd  myelin!",
            "'axon' where the model has",
        ),
        ("1:Background,2:axon,3:2nd  myelin!", None, "'axon' where the model has '2nd myelin'"),
        ("2:2nd myelin,1:Background,3:2nd  myelin!", "1:Background,2:2nd myelin,3:2nd  myelin!", "in the order"),
        ("1:2nd myelin,2:Background,3:2nd  myelin!", "1:Background,2:2nd myelin,3:2nd  myelin!", "in the order"),
        ("1:Background,2:2nd myelin", None, "the labels have the classes Background, 2nd myelin, the model"),
    ],
)
def test_a_class_may_be_renamed_but_not_exchanged(labels: str, kept: str | None, complaint: str) -> None:
    given = None if kept is None else parse_classes(kept)
    if not complaint:
        check_same_classes(small_model(), parse_classes(labels), given)
        return
    with pytest.raises(UserError, match=complaint) as raised:
        check_same_classes(small_model(), parse_classes(labels), given)
    assert "new run" in str(raised.value)
