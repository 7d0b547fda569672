"""What a run keeps of its jobs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_autosegnet.data.annotations import parse_classes
from napari_autosegnet.data.learned_from import RunData
from napari_autosegnet.data.selection import Selection
from napari_autosegnet.errors import UserError
from napari_autosegnet.jobs.configuration import RunConfiguration
from napari_autosegnet.presets import train_settings
from napari_autosegnet.run import Run
from napari_autosegnet.settings import SplitSettings

SELECTION = Selection(time_point=1, channels=("dna",), axes="tcyx")


def test_a_configuration_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = Run.create(tmp_path)
    assert RunConfiguration.load(run) == RunConfiguration()
    # A name that is not UTF-8, and settings in which "none" is not the default.
    data = RunData(
        **SELECTION.model_dump(),
        images=(Path("/data/a\udcff.tif"),),
        labels=(Path("/data/b.tif"),),
        mapping=parse_classes("0:membrane,255:cell"),
        split=SplitSettings(seed=3),
    )
    kept = RunConfiguration(preset="fast", data=data, network="plain", training=train_settings("fast"))
    kept.save(run)
    assert RunConfiguration.load(run) == kept
    assert data.selection == SELECTION
    content = json.loads(run.config_file.read_text())
    assert content["version"] == 1 and content["training"]["epochs"] is None and "search" not in content


def test_what_others_keep_is_left(tmp_path: Path) -> None:
    run = Run.create(tmp_path)
    run.config_file.write_text('{"version": 1, "note": {"by": "me"}}')
    configuration = RunConfiguration.load(run)
    configuration.preset = "paper"
    configuration.save(run)
    assert json.loads(run.config_file.read_text()) == {
        "version": 1,
        "note": {"by": "me"},
        "preset": "paper",
        "continued": False,
        "labels_taken": 0,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"version": 1, "preset": "huge"}', "damaged at 'preset'"),
        ('{"version": 1, "data": {"images": 3}}', "damaged at 'data.images'"),
        ('{"version": 2}', "not of version 1"),
        ("[]", "not of version 1"),
    ],
)
def test_a_damaged_configuration_gives_one_line(content: str, message: str, tmp_path: Path) -> None:
    run = Run.create(tmp_path)
    run.config_file.write_text(content)
    with pytest.raises(UserError, match=message) as raised:
        RunConfiguration.load(run)
    assert "\n" not in str(raised.value)


def test_files_in_the_run_move_with_it(tmp_path: Path) -> None:
    run, elsewhere = Run.create(tmp_path / "old"), tmp_path / "image.tif"
    images = (elsewhere, run.path / "annotation" / "images" / "1.ome.zarr")
    RunConfiguration(data=RunData(images=images, labels=images[1:])).save(run)
    assert json.loads(run.config_file.read_text())["data"]["labels"] == ["annotation/images/1.ome.zarr"]
    run.path.rename(tmp_path / "new")
    data = RunConfiguration.load(Run(tmp_path / "new")).data
    inside = tmp_path / "new" / "annotation" / "images" / "1.ome.zarr"
    assert data is not None and data.images == (elsewhere, inside) and data.labels == (inside,)


def test_what_is_gone_is_looked_for_by_its_name(tmp_path: Path) -> None:
    here, gone, array = tmp_path / "here.tif", tmp_path / "gone.tif", tmp_path / "s.ome.zarr" / "0"
    here.write_bytes(b"")
    labels = tmp_path / "marks.tif"
    data = RunData(images=(here, gone, array), labels=(labels,) * 3)
    new = tmp_path / "new"
    files = [new / "here.tif", new / "gone.tif", new / "other.ome.zarr" / "0"]
    assert data.found_among(files) == {"images": (here, new / "gone.tif", array)}
    files = [new / "other.ome.zarr" / "0", new / "s.ome.zarr" / "0", new / "marks.tif"]
    found = {"images": (here, gone, new / "s.ome.zarr" / "0"), "labels": (new / "marks.tif",) * 3}
    assert data.found_among(files) == found
    assert data.found_among([]) == RunData().found_among(files) == {}
