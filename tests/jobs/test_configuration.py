"""What a run keeps of its jobs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_autosegnet.data.annotations import parse_classes
from napari_autosegnet.data.selection import Selection
from napari_autosegnet.errors import UserError
from napari_autosegnet.jobs.configuration import RunConfiguration, RunData
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
