from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from format_files import written_by_others
from loopback import serving
from napari_autosegnet.data.images import ImageStack, image_from_array, open_image
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import BlocksPlanned, BlockWritten, Event, ProgressMade, parse_event
from napari_autosegnet.inference.compute.predictor import Predictor
from napari_autosegnet.inference.compute.survey import ImageSurvey
from napari_autosegnet.inference.output.arrays import BlockArray
from napari_autosegnet.inference.output.ledger import Ledger
from napari_autosegnet.inference.volume import predict_section, predict_sections, predict_volume
from napari_autosegnet.model import Model
from napari_autosegnet.ome_zarr.write import write_image
from napari_autosegnet.settings import PredictSettings
from napari_autosegnet.units import Placement
from remembered_events import Events

Noise = Callable[..., np.ndarray]
Tree = Callable[[Path], dict[str, bytes]]
MakeModel = Callable[..., Model]
SETTINGS = PredictSettings(block=(2, 32, 48), tile=64, halo=8, probabilities=True, levels=2)

#: One prediction in a process of its own, its events in a file.
SCRIPT = """
import json, sys
from pathlib import Path
import torch
from napari_autosegnet.settings import PredictSettings
from napari_autosegnet.data.images import open_image
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.model import Model

torch.set_num_threads(1)
model, image, out, events, settings = sys.argv[1:]

def report(event):
    with open(events, "a") as handle:
        handle.write(event.model_dump_json() + "\\n")

settings = PredictSettings.model_validate_json(settings)
predict_volume(Model.load(model), open_image(image), Path(out), settings, report=report)
"""


def found_labels(out: Path) -> np.ndarray:
    return np.asarray(zarr.open_group(out, mode="r")["labels/segmentation/0"])


@pytest.mark.parametrize(("channels", "context"), [(1, 0), (3, 0), (1, 1), (2, 2)])
def test_a_volume_equals_its_whole_sections(
    tmp_path: Path,
    make_model: MakeModel,
    noise: Noise,
    labels_agree: Callable[[np.ndarray, np.ndarray], bool],
    channels: int,
    context: int,
) -> None:
    model = make_model(seed=3, image_channels=channels, context=context, classes=3)
    array = noise(channels, 4, 70, 100)
    image = image_from_array(array, channel_axis=0)
    settings = PredictSettings(block=(2, 40, 64), tile=96, halo="exact", probabilities=True, batch_size=2)
    summary = predict_volume(model, image, tmp_path / "out.zarr", settings)
    assert (summary.blocks, summary.done, summary.skipped, summary.stopped) == (8, 8, 0, False)
    predictor = Predictor(model, halo="exact")
    whole = []
    for section in range(4):
        around = [min(max(section + step, 0), 3) for step in range(-context, context + 1)]
        whole.append(predictor.whole_section(np.concatenate([array[:, one] for one in around])))
    expected = np.stack(whole, axis=1)
    assert labels_agree(found_labels(tmp_path / "out.zarr"), expected)
    scores = np.asarray(zarr.open_group(tmp_path / "out.zarr")["probabilities/0"])
    assert np.abs(scores / 255 - expected).max() <= 0.5 / 255 + 1e-5
    labels, probabilities = predict_sections(model, image, [1, 3], PredictSettings(halo="exact", tile=96))
    np.testing.assert_allclose(probabilities, expected[:, [1, 3]], atol=1e-5)
    assert labels_agree(labels, expected[:, [1, 3]])


@pytest.mark.parametrize(
    ("kind", "shape", "block"), [("global", (40, 10, 9), (14, 5, 9)), ("section", (9, 10, 40), (9, 5, 14))]
)
def test_a_consensus_equals_that_of_the_whole_volume(
    tmp_path: Path,
    make_model: MakeModel,
    noise: Noise,
    labels_agree: Callable[[np.ndarray, np.ndarray], bool],
    kind: str,
    shape: tuple[int, int, int],
    block: tuple[int, int, int],
) -> None:
    model = make_model(network="unet", classes=3, width=2, kind=kind)
    array = noise(*shape)
    image = image_from_array(array)
    settings = PredictSettings(block=block, tile=32, halo="exact", probabilities=True, planes="all")
    summary = predict_volume(model, image, tmp_path / "out.zarr", settings)
    assert (summary.blocks, summary.done, summary.halo) == (6, 6, 10)
    # Sections of other planes are normalized by what each of their rows is in xy.
    constants = ImageSurvey(image, model.normalization).constants(range(len(array)))
    predictor = Predictor(make_model(network="unet", classes=3, width=2), halo="exact")
    alike = (array - constants.mean[:, :, None]) / constants.std[:, :, None] * 50 + 120
    expected = np.zeros((3, *array.shape))
    for axis in range(3):
        planes = [predictor.whole_section(plane[None]) for plane in np.moveaxis(alike, axis, 0)]
        expected += np.moveaxis(np.stack(planes, axis=1), 1, axis + 1) / 3
    assert labels_agree(found_labels(tmp_path / "out.zarr"), expected)
    scores = np.asarray(zarr.open_group(tmp_path / "out.zarr")["probabilities/0"])
    assert np.abs(scores / 255 - expected).max() <= 0.5 / 255 + 2e-5


def test_three_planes_are_for_volumes_of_cubes(tmp_path: Path, model: Model, noise: Noise) -> None:
    settings, pixels = PredictSettings(planes="all"), noise(9, 20, 20)
    flat = image_from_array(pixels, scale=(40.0, 8.0, 8.0), name="sections")
    with pytest.raises(UserError, match=r"sections are 40 x 8 x 8 \(z, y, x\).*factor of 1.25.*--planes all"):
        predict_volume(model, flat, tmp_path / "a.zarr", settings)
    with pytest.raises(UserError, match="one section"):
        predict_volume(model, image_from_array(pixels[0]), tmp_path / "a.zarr", settings)
    assert not (tmp_path / "a.zarr").exists()


def test_too_little_memory_in_the_middle_adds_no_plane_twice(
    tmp_path: Path, model: Model, noise: Noise, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = image_from_array(noise(20, 24, 20))
    settings = PredictSettings(batch_size=2, halo=8, planes="all", probabilities=True)
    predict_volume(model, image, tmp_path / "whole.zarr", settings)
    real, passes = Predictor._probabilities, 0

    def failing(self: Predictor, pixels: torch.Tensor) -> torch.Tensor:
        nonlocal passes
        passes += 1
        if passes == 15:
            raise torch.OutOfMemoryError("out of memory")
        return real(self, pixels)

    monkeypatch.setattr(Predictor, "_probabilities", failing)
    predict_volume(model, image, tmp_path / "twice.zarr", settings)
    assert passes > 64
    np.testing.assert_array_equal(found_labels(tmp_path / "twice.zarr"), found_labels(tmp_path / "whole.zarr"))


def test_the_result_is_the_same_whatever_the_image_lies_in(
    tmp_path: Path, model: Model, noise: Noise, tree: Tree
) -> None:
    pixels = (noise(1, 3, 70, 101)[0] // 2).astype(np.int8)
    placement = Placement((4.0, 4.0, 4.0), unit="angstrom")
    write_image(tmp_path / "image.ome.zarr", pixels.shape, pixels.dtype, pixels.__getitem__, placement=placement)
    settings = SETTINGS.model_copy(update={"block": (2, 64, 64), "probabilities": False, "levels": 1})
    predict_volume(model, open_image(tmp_path / "image.ome.zarr"), tmp_path / "whole.zarr", settings)
    expected = tree(tmp_path / "whole.zarr")
    for place in written_by_others(tmp_path, pixels):
        out, events = tmp_path / "out" / f"{place.name}.zarr", Events()
        stop = partial(lambda events: len(events.of(BlockWritten)) > 1, events)
        assert predict_volume(model, open_image(place), out, settings, report=events, should_stop=stop).stopped
        predict_volume(model, open_image(place), out, settings, report=events)
        assert sorted(block.index for block in events.of(BlockWritten)) == [*range(8)]
        found = tree(out)
        unit = open_image(out).unit
        if unit != "angstrom":  # which not every format knows
            assert open_image(out).scale == ({"micrometer": 0.0004, "nanometer": 0.4, None: 1.0}[unit],) * 3
            found |= {name: content for name, content in expected.items() if name.endswith("zarr.json")}
        assert found == expected, place


def test_a_prediction_goes_on_when_the_network_is_back(
    tmp_path: Path, model: Model, noise: Noise, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp", reason="the extra remote is not installed")
    monkeypatch.setattr("napari_autosegnet.ome_zarr.elsewhere._WAITS", (0.0, 0.0))
    monkeypatch.setattr("napari_autosegnet.ome_zarr.elsewhere._KEPT_BYTES", 0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    pixels = noise(6, 70, 101)
    place = tmp_path / "served" / "image.ome.zarr"
    write_image(place, pixels.shape, pixels.dtype, pixels.__getitem__, placement=Placement())
    settings = SETTINGS.model_copy(update={"retries": 0})
    predict_volume(model, open_image(place), tmp_path / "whole.zarr", settings)
    out, events = tmp_path / "out" / "out.zarr", Events()
    with serving(tmp_path / "served") as server:
        image = Path(f"{server.address}/image.ome.zarr")

        def go_away(event: Event) -> None:
            events(event)
            if len(events.of(BlockWritten)) == 4:
                server.failing = 10**6

        broken = predict_volume(model, open_image(image), out, settings, report=go_away)
        assert broken.failed and 4 <= broken.done < broken.blocks
        assert "503" in str(broken.failed[0]) and "\n" not in str(broken.failed[0])
        server.failing = 0
        summary = predict_volume(model, open_image(image), out, settings, report=events)
    assert not summary.failed and tree(out) == tree(tmp_path / "whole.zarr")
    done = [block.index for block in events.of(BlockWritten) if block.status == "done"]
    assert len(done) == len(set(done)) == summary.blocks, "no block is computed twice"


def test_the_real_sections_in_tiles(shared_data: Path, make_model: MakeModel) -> None:
    image = open_image(shared_data / "isbi2012" / "train-volume.tif")
    model = make_model(levels=1, width=3)
    whole, _ = predict_sections(model, image, [20], PredictSettings(halo="exact", tile=512))
    tiled, _ = predict_sections(model, image, [20], PredictSettings(halo="exact", tile=300))
    assert (whole == tiled).mean() > 1 - 1e-4


def test_events_tell_the_plan_every_block_and_the_progress(tmp_path: Path, model: Model, noise: Noise) -> None:
    events = Events()
    summary = predict_volume(model, image_from_array(noise(3, 70, 101)), tmp_path / "a.zarr", SETTINGS, report=events)
    (plan,) = events.of(BlocksPlanned)
    assert (plan.blocks, plan.done, plan.skipped, plan.halo) == (18, 0, 0, 8)
    blocks = events.of(BlockWritten)
    assert sorted(block.index for block in blocks) == list(range(18))
    assert sum(block.voxels for block in blocks) == 3 * 70 * 101
    assert all(block.status == "done" for block in blocks)
    assert events.of(ProgressMade)[-1].done == 18 and events.of(ProgressMade)[-1].seconds_left == 0
    assert summary.voxels_per_second > 0 and summary.halo == 8


def test_a_finished_result_is_not_computed_again(tmp_path: Path, model: Model, noise: Noise, tree: Tree) -> None:
    image = image_from_array(noise(3, 70, 101))
    predict_volume(model, image, tmp_path / "a.zarr", SETTINGS)
    before, events = tree(tmp_path), Events()
    summary = predict_volume(model, image, tmp_path / "a.zarr", SETTINGS, report=events)
    assert summary.done == 18 and not events.of(BlockWritten)
    assert tree(tmp_path) == before


def test_stopping_and_going_on(tmp_path: Path, model: Model, noise: Noise, tree: Tree) -> None:
    image = image_from_array(noise(3, 70, 101))
    predict_volume(model, image, tmp_path / "whole.zarr", SETTINGS)
    events = Events()
    runs = 0
    while True:
        asked = 0

        def should_stop() -> bool:
            nonlocal asked
            asked += 1
            return asked > 5

        summary = predict_volume(
            model, image, tmp_path / "parts.zarr", SETTINGS, report=events, should_stop=should_stop
        )
        runs += 1
        if not summary.stopped:
            break
        assert summary.done < summary.blocks
    assert runs > 2
    assert Counter(block.index for block in events.of(BlockWritten)) == Counter(range(18))
    assert tree(tmp_path / "parts.zarr") == tree(tmp_path / "whole.zarr")


@pytest.mark.parametrize("suffix", [".zarr", ".tif"])
def test_a_failure_at_any_write_loses_nothing(
    tmp_path: Path, model: Model, noise: Noise, tree: Tree, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """The disk is full at the n-th sync, for growing n; then there is space again."""
    image = image_from_array(noise(2, 70, 101))
    settings = SETTINGS.model_copy(update={"probabilities": False})
    predict_volume(model, image, tmp_path / "whole" / f"a{suffix}", settings)
    events = Events()
    real, calls, failures = os.fsync, 0, 0
    for fails_at in (0, 1, 2, 4, 7, 11, 16, 22, 29, None):

        def fsync(handle: int, fails_at: int | None = fails_at) -> None:
            nonlocal calls
            calls += 1
            if fails_at is not None and calls > fails_at:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(handle)

        calls = 0
        monkeypatch.setattr(os, "fsync", fsync)
        try:
            predict_volume(model, image, tmp_path / "parts" / f"a{suffix}", settings, report=events)
        except UserError as error:
            failures += 1
            assert "free some" in str(error) and "\n" not in str(error)
    monkeypatch.undo()
    assert failures >= 5
    assert max(Counter(block.index for block in events.of(BlockWritten)).values()) == 1
    for folder in (tmp_path / "whole", tmp_path / "parts"):
        for file in (*folder.glob(".*"), *folder.glob("*.jsonl")):
            file.unlink()
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")


def killed_runs(
    tmp_path: Path, model: Model, array: np.ndarray, kills: int, generator: random.Random, settings: PredictSettings
) -> list[Event]:
    """Run in processes that are killed (-9) at random moments, then here to the end; gives all events."""
    model.save(tmp_path / "model")
    np.save(tmp_path / "image.npy", array)
    events = tmp_path / "events.jsonl"
    command = [sys.executable, "-c", SCRIPT]
    command += [str(tmp_path / name) for name in ("model", "image.npy", "out.zarr", "events.jsonl")]
    command.append(settings.model_dump_json())
    ledger = tmp_path / "out.zarr.ledger.jsonl"
    for _ in range(kills):
        lines = len(ledger.read_bytes().splitlines()) if ledger.exists() else 0
        process = subprocess.Popen(command)
        # Kill while it works: some blocks further than before, and then at any moment.
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if ledger.exists() and len(ledger.read_bytes().splitlines()) > lines + 1:
                break
            time.sleep(0.001)
        time.sleep(generator.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    report = Events()
    predict_volume(model, open_image(tmp_path / "image.npy"), tmp_path / "out.zarr", settings, report=report)
    return [*filter(None, map(parse_event, events.read_text().splitlines())), *report.all]


def check_killed_runs(
    tmp_path: Path, model: Model, array: np.ndarray, kills: int, tree: Tree, settings: PredictSettings
) -> None:
    events = killed_runs(tmp_path, model, array, kills, random.Random(0), settings)
    predict_volume(model, open_image(tmp_path / "image.npy"), tmp_path / "whole.zarr", settings)
    assert tree(tmp_path / "out.zarr") == tree(tmp_path / "whole.zarr")
    assert max(Counter(event.index for event in events if isinstance(event, BlockWritten)).values()) == 1
    started = [event.done for event in events if isinstance(event, BlocksPlanned)]
    assert started == sorted(started) and started[-1] > 0
    assert len(started) > kills // 2


@pytest.mark.parametrize("planes", ["xy", "all"])
def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(
    tmp_path: Path, model: Model, noise: Noise, tree: Tree, planes: str
) -> None:
    shape = (4, 130, 180) if planes == "xy" else (24, 60, 90)
    block = (2, 32, 48) if planes == "xy" else (12, 20, 30)
    check_killed_runs(tmp_path, model, noise(*shape), 1, tree, SETTINGS.changed(planes=planes, block=block))


@pytest.mark.slow
@pytest.mark.parametrize("planes", ["xy", "all"])
def test_killed_twenty_times_in_a_row(tmp_path: Path, model: Model, noise: Noise, tree: Tree, planes: str) -> None:
    settings = PredictSettings(block=(1, 32, 32), tile=64, halo=8, probabilities=True, levels=3)
    shape: tuple[int, ...] = (5, 200, 300)
    if planes == "all":
        settings, shape = settings.changed(planes="all", block=(16, 16, 16)), (64, 96, 96)
    check_killed_runs(tmp_path, model, noise(*shape), 20, tree, settings)


def test_another_model_is_refused(tmp_path: Path, make_model: MakeModel, noise: Noise) -> None:
    image = image_from_array(noise(2, 40, 40))
    predict_volume(make_model(seed=1), image, tmp_path / "a.zarr", SETTINGS)
    with pytest.raises(UserError, match=r"another model.*--overwrite"):
        predict_volume(make_model(seed=2), image, tmp_path / "a.zarr", SETTINGS)
    with pytest.raises(UserError, match="another image"):
        predict_volume(make_model(seed=1), image_from_array(noise(2, 40, 40, seed=1)), tmp_path / "a.zarr", SETTINGS)
    overwritten = SETTINGS.model_copy(update={"overwrite": True})
    predict_volume(make_model(seed=2), image, tmp_path / "a.zarr", overwritten)
    predict_volume(make_model(seed=2), image, tmp_path / "b.zarr", SETTINGS)
    np.testing.assert_array_equal(found_labels(tmp_path / "a.zarr"), found_labels(tmp_path / "b.zarr"))


def changing_image(folder: Path, array: np.ndarray) -> Callable[[], None]:
    """A Zarr image, and how it is changed in place where no sample of its identity falls."""
    image = zarr.create_array(folder, data=array, chunks=(1, 32, 48))

    def change() -> None:
        time.sleep(0.02)  # of a file system's clock
        image[1, 33:63, 66:116] = 255 - image[1, 33:63, 66:116]

    return change


def test_an_image_that_was_changed_in_place_is_not_gone_on_with(tmp_path: Path, model: Model, noise: Noise) -> None:
    change = changing_image(tmp_path / "image.zarr", noise(3, 200, 300))
    events = Events()
    stopped = predict_volume(
        model,
        open_image(tmp_path / "image.zarr"),
        tmp_path / "a.zarr",
        SETTINGS,
        report=events,
        should_stop=lambda: len(events.of(BlockWritten)) > 3,
    )
    assert stopped.stopped
    change()
    with pytest.raises(UserError, match=r"another image: files differ.*--overwrite"):
        predict_volume(model, open_image(tmp_path / "image.zarr"), tmp_path / "a.zarr", SETTINGS)


def test_an_image_that_is_changed_while_it_is_read_makes_no_result(tmp_path: Path, model: Model, noise: Noise) -> None:
    change = changing_image(tmp_path / "image.zarr", noise(3, 200, 300))
    changed = []

    def report(event: Event) -> None:
        if isinstance(event, BlockWritten) and not changed:
            changed.append(change())

    with pytest.raises(UserError, match=r"image\.zarr changed while it was read.*--overwrite"):
        predict_volume(model, open_image(tmp_path / "image.zarr"), tmp_path / "a.zarr", SETTINGS, report=report)
    with pytest.raises(UserError, match="another image: files differ"):
        predict_volume(model, open_image(tmp_path / "image.zarr"), tmp_path / "a.zarr", SETTINGS)


def test_a_deleted_store_is_made_again(tmp_path: Path, model: Model, noise: Noise, tree: Tree) -> None:

    image = image_from_array(noise(2, 40, 60))
    predict_volume(model, image, tmp_path / "a.zarr", SETTINGS)
    before = tree(tmp_path / "a.zarr")
    shutil.rmtree(tmp_path / "a.zarr")
    predict_volume(model, image, tmp_path / "a.zarr", SETTINGS)
    assert tree(tmp_path / "a.zarr") == before


class _Counting(ImageStack):
    """A stack that notes what is read of it."""

    @classmethod
    def over(cls, image: ImageStack) -> _Counting:
        image.__class__ = cls
        assert isinstance(image, _Counting)
        image.boxes = []
        return image

    boxes: list[tuple[slice, slice, slice]]

    def read(self, z: slice, y: slice, x: slice) -> np.ndarray:
        self.boxes.append((z, y, x))
        return super().read(z, y, x)


def test_a_mask_costs_no_reading_and_no_computing(
    tmp_path: Path, model: Model, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = noise(4, 64, 96)
    mask = np.zeros(array.shape, np.uint8)
    mask[1, 10:20, 50:60] = 1
    mask[3, 40, 3] = 7
    events = Events()
    image = _Counting.over(image_from_array(array))
    passes: list[int] = []
    real = Predictor._probabilities

    def counting(self: Predictor, pixels: torch.Tensor) -> torch.Tensor:
        passes.append(len(pixels))
        return real(self, pixels)

    monkeypatch.setattr(Predictor, "_probabilities", counting)
    settings = PredictSettings(block=(2, 32, 48), tile=64, halo=8, probabilities=True)
    summary = predict_volume(model, image, tmp_path / "a.zarr", settings, mask=image_from_array(mask), report=events)
    assert (summary.blocks, summary.done, summary.skipped) == (8, 2, 6)
    assert len(passes) == 2
    assert sum(box[0].stop - box[0].start > 1 or box[1].stop - box[1].start > 64 for box in image.boxes) == 2
    monkeypatch.undo()
    predict_volume(model, image_from_array(array), tmp_path / "b.zarr", settings)
    labels, everywhere = found_labels(tmp_path / "a.zarr"), found_labels(tmp_path / "b.zarr")
    np.testing.assert_array_equal(labels, np.where(mask > 0, everywhere, 0))
    assert (np.asarray(zarr.open_group(tmp_path / "a.zarr")["probabilities/0"])[:, mask == 0] == 0).all()
    again = predict_volume(model, image, tmp_path / "a.zarr", settings, mask=image_from_array(mask))
    assert (again.done, again.skipped) == (2, 6)
    with pytest.raises(UserError, match="mask"):
        predict_volume(model, image, tmp_path / "a.zarr", settings)
    with pytest.raises(UserError, match="the mask has the shape"):
        predict_volume(model, image, tmp_path / "c.zarr", settings, mask=image_from_array(mask[:2]))


def test_empty_blocks_are_computed_once_and_look_like_the_rest(tmp_path: Path, model: Model, noise: Noise) -> None:
    array = noise(2, 200, 256)
    array[:, :, :150] = 0
    array[1] = 0
    settings = PredictSettings(block=(1, 32, 32), tile=64, halo="exact")
    summary = predict_volume(model, image_from_array(array), tmp_path / "a.zarr", settings)
    assert summary.skipped > summary.blocks / 2
    whole, _ = predict_sections(model, image_from_array(array), None, PredictSettings(halo="exact"))
    assert (found_labels(tmp_path / "a.zarr") == whole).mean() > 1 - 1e-4


def test_a_region_of_interest(tmp_path: Path, model: Model, noise: Noise) -> None:
    image = image_from_array(noise(3, 70, 101))
    region = ((1, 3), (20, 50), (30, 101))
    partly = SETTINGS.model_copy(update={"region": "1:,20:50,30:101"})
    summary = predict_volume(model, image, tmp_path / "a.zarr", partly)
    assert summary.blocks == 2 * 2 * 3
    settings = SETTINGS.model_copy(update={"halo": "exact", "overwrite": True})
    predict_volume(model, image, tmp_path / "a.zarr", settings.model_copy(update={"region": "1:3,20:50,30:"}))
    predict_volume(model, image, tmp_path / "b.zarr", settings)
    labels, everywhere = found_labels(tmp_path / "a.zarr"), found_labels(tmp_path / "b.zarr")
    inside = tuple(slice(*span) for span in region)
    assert (labels[inside] == everywhere[inside]).mean() > 1 - 1e-4
    labels[inside] = 0
    assert not labels.any()
    lower = np.asarray(zarr.open_group(tmp_path / "a.zarr")["labels/segmentation/1"])
    np.testing.assert_array_equal(lower, found_labels(tmp_path / "a.zarr")[:, ::2, ::2])


def test_one_writer_per_chunk_and_the_ledger_comes_last(
    tmp_path: Path, model: Model, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[tuple[str, Any]] = []
    settle, record = BlockArray._settle, Ledger.record
    chunks: Counter[tuple[Any, ...]] = Counter()

    def watch_settle(self: BlockArray, *spans: Any) -> None:
        order.append(("data", spans))
        unit = (1, 2, 32, 48)[-len(spans) :]
        for place in np.ndindex(*(-(-(b - a) // step) for (a, b), step in zip(spans, unit, strict=True))):
            chunks[str(self.folder), *((a // s) + p for (a, _), s, p in zip(spans, unit, place, strict=True))] += 1
        settle(self, *spans)

    def watch_record(self: Ledger, block: int, status: Any, **more: Any) -> None:
        order.append(("ledger", block))
        record(self, block, status, **more)

    monkeypatch.setattr(BlockArray, "_settle", watch_settle)
    monkeypatch.setattr(Ledger, "record", watch_record)
    predict_volume(model, image_from_array(noise(3, 70, 101)), tmp_path / "a.zarr", SETTINGS)
    assert set(chunks.values()) == {1}
    kinds = [kind for kind, _ in order]
    assert kinds[:4] == ["data", "data", "data", "ledger"] and kinds[-1] == "ledger"


def test_an_image_of_another_kind_is_refused(tmp_path: Path, make_model: MakeModel, noise: Noise) -> None:
    with pytest.raises(UserError, match=r"reads 1 channels.*has 3"):
        predict_volume(make_model(), image_from_array(noise(3, 2, 20, 20), channel_axis=0), tmp_path / "a.zarr")


def test_sections_of_mixed_sizes_one_by_one(tmp_path: Path, make_model: MakeModel, noise: Noise) -> None:
    from PIL import Image

    shapes = [(40, 60), (33, 21)]
    for number, shape in enumerate(shapes):
        Image.fromarray(noise(*shape)).save(tmp_path / f"{number}.png")
    image = open_image(tmp_path)
    predictor = Predictor(make_model(levels=1), tile=32, halo=4)
    for number, shape in enumerate(shapes):
        found = predict_section(predictor, image, number)
        assert found is not None
        assert found[0].shape == shape and found[1].shape == (2, *shape) and (found[0] > 0).all()
    with pytest.raises(UserError, match="differ in size"):
        predict_volume(make_model(), image, tmp_path / "a.zarr")
    with pytest.raises(UserError, match="neighboring sections"):
        predict_section(Predictor(make_model(context=1)), image, 0)


MEMORY_SCRIPT = """
import resource, sys
from pathlib import Path
import torch
from napari_autosegnet.settings import PredictSettings
from napari_autosegnet.data.images import open_image
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.model import Model

torch.set_num_threads(1)
predict_volume(
    Model.load(sys.argv[1]), open_image(sys.argv[2]), Path(sys.argv[3]),
    PredictSettings.model_validate_json(sys.argv[4]),
)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("planes", ["xy", "all"])
def test_memory_does_not_grow_with_the_volume(tmp_path: Path, make_model: MakeModel, planes: str) -> None:
    make_model(levels=1, width=2).save(tmp_path / "model")
    block = (16, 128, 128) if planes == "xy" else (32, 32, 64)
    settings = PredictSettings(block=block, tile=256, halo=4, probabilities=True, levels=3, planes=planes)
    peaks = []
    for times in (1, 4, 16):
        # 16 blocks at least: from then on all three stages are busy.
        shape = (block[0], 4 * block[1] * min(times, 4), 4 * block[2] * max(1, times // 4))
        array = zarr.create_array(tmp_path / f"{times}.zarr", shape=shape, chunks=block, dtype=np.uint8)
        for y in range(0, shape[1], 2 * block[1]):
            part = (block[0], 2 * block[1], shape[2])
            array[:, y : y + 2 * block[1]] = np.random.default_rng(y).integers(0, 255, part, dtype=np.uint8)
        names = [str(tmp_path / name) for name in ("model", f"{times}.zarr", f"{times}-out.zarr")]
        command = [sys.executable, "-c", MEMORY_SCRIPT, *names, settings.model_dump_json()]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=900)
        peaks.append(int(done.stdout))
    assert max(peaks) < 1.1 * min(peaks), peaks
