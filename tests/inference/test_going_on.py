"""A prediction that was stopped, killed or refused, and what is gone on with."""

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
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from arithmetics import bearing_all, fast_in, settings_for, used
from loopback import serving
from napari_autosegnet.data.images import image_from_array, open_image
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import BlocksPlanned, BlockWritten, Event, parse_event
from napari_autosegnet.inference.output.arrays import BlockArray
from napari_autosegnet.inference.output.ledger import Ledger
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.model import Model
from napari_autosegnet.ome_zarr.write import write_image
from napari_autosegnet.settings import PredictSettings
from napari_autosegnet.units import Placement
from predicted_files import labels_of
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
model, image, out, events, settings, tests, arithmetic = sys.argv[1:]
sys.path.append(tests)
from arithmetics import fast_in

def report(event):
    with open(events, "a") as handle:
        handle.write(event.model_dump_json() + "\\n")

settings = PredictSettings.model_validate_json(settings)
with fast_in(arithmetic):
    predict_volume(Model.load(model), open_image(image), Path(out), settings, report=report)
"""


def test_a_prediction_goes_on_when_the_network_is_back(
    tmp_path: Path, model: Model, noise: Noise, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp", reason="the extra remote is not installed")
    monkeypatch.setattr("napari_autosegnet.ome_zarr.elsewhere.WAITS", (0.0, 0.0))
    monkeypatch.setattr("napari_autosegnet.ome_zarr.elsewhere.KEPT_BYTES", 0)
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


@pytest.mark.parametrize(
    ("suffix", "arithmetic"),
    [
        (".zarr", "float32"),
        (".tif", "float32"),
        (".zarr", "bfloat16"),
        pytest.param(".zarr", "float16", marks=pytest.mark.slow),
        pytest.param(".zarr", "onnxruntime", marks=pytest.mark.slow),
    ],
)
def test_a_failure_at_any_write_loses_nothing(
    tmp_path: Path,
    model: Model,
    noise: Noise,
    tree: Tree,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    suffix: str,
    arithmetic: str,
) -> None:
    """The disk is full at the n-th sync, for growing n; then there is space again."""
    image, model = image_from_array(noise(2, 70, 101)), bearing_all(model)
    settings = settings_for(SETTINGS.changed(probabilities=False), arithmetic)
    fast = ExitStack()
    fast.enter_context(fast_in(arithmetic))
    request.addfinalizer(fast.close)
    predict_volume(model, image, tmp_path / "whole" / f"a{suffix}", settings)
    assert used(tmp_path / "whole" / f"a{suffix}") == arithmetic
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
    tmp_path: Path,
    model: Model,
    array: np.ndarray,
    kills: int,
    generator: random.Random,
    settings: PredictSettings,
    arithmetic: str,
) -> list[Event]:
    """Run in processes that are killed (-9) at random moments, then here to the end; gives all events."""
    model.save(tmp_path / "model")
    np.save(tmp_path / "image.npy", array)
    events = tmp_path / "events.jsonl"
    command = [sys.executable, "-c", SCRIPT]
    command += [str(tmp_path / name) for name in ("model", "image.npy", "out.zarr", "events.jsonl")]
    command += [settings.model_dump_json(), str(Path(__file__).parents[1]), arithmetic]
    ledger = tmp_path / "out.zarr.ledger.jsonl"
    for _ in range(kills):
        lines = len(ledger.read_bytes().splitlines()) if ledger.exists() else 0
        process = subprocess.Popen(command)
        # Kill while it works: some blocks further than before, and then at any moment.
        deadline = time.monotonic() + 180  # of a machine with much else to do
        while process.poll() is None and time.monotonic() < deadline:
            if ledger.exists() and len(ledger.read_bytes().splitlines()) > lines + 1:
                break
            time.sleep(0.001)
        time.sleep(generator.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    report = Events()
    with fast_in(arithmetic):
        predict_volume(model, open_image(tmp_path / "image.npy"), tmp_path / "out.zarr", settings, report=report)
    return [*filter(None, map(parse_event, events.read_text().splitlines())), *report.all]


def check_killed_runs(
    tmp_path: Path,
    model: Model,
    array: np.ndarray,
    kills: int,
    tree: Tree,
    settings: PredictSettings,
    arithmetic: str,
) -> None:
    model, settings = bearing_all(model), settings_for(settings, arithmetic)
    events = killed_runs(tmp_path, model, array, kills, random.Random(0), settings, arithmetic)
    with fast_in(arithmetic):
        predict_volume(model, open_image(tmp_path / "image.npy"), tmp_path / "whole.zarr", settings)
    assert used(tmp_path / "out.zarr") == used(tmp_path / "whole.zarr") == arithmetic
    assert tree(tmp_path / "out.zarr") == tree(tmp_path / "whole.zarr")
    assert max(Counter(event.index for event in events if isinstance(event, BlockWritten)).values()) == 1
    started = [event.done for event in events if isinstance(event, BlocksPlanned)]
    assert started == sorted(started) and started[-1] > 0
    assert len(started) > kills // 2


@pytest.mark.parametrize(
    ("planes", "arithmetic"),
    [
        ("xy", "float32"),
        ("all", "float32"),
        ("xy", "bfloat16"),
        pytest.param("all", "bfloat16", marks=pytest.mark.slow),
        pytest.param("xy", "float16", marks=pytest.mark.slow),
        pytest.param("xy", "onnxruntime", marks=pytest.mark.slow),
    ],
)
def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(
    tmp_path: Path, model: Model, noise: Noise, tree: Tree, planes: str, arithmetic: str
) -> None:
    shape = (4, 130, 180) if planes == "xy" else (24, 60, 90)
    block = (2, 32, 48) if planes == "xy" else (12, 20, 30)
    settings = SETTINGS.changed(planes=planes, block=block)
    check_killed_runs(tmp_path, model, noise(*shape), 1, tree, settings, arithmetic)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("planes", "arithmetic"), [("xy", "float32"), ("all", "float32"), ("xy", "bfloat16"), ("xy", "onnxruntime")]
)
def test_killed_twenty_times_in_a_row(
    tmp_path: Path, model: Model, noise: Noise, tree: Tree, planes: str, arithmetic: str
) -> None:
    settings = PredictSettings(block=(1, 32, 32), tile=64, halo=8, probabilities=True, levels=3)
    shape: tuple[int, ...] = (5, 200, 300)
    if planes == "all":
        settings, shape = settings.changed(planes="all", block=(16, 16, 16)), (64, 96, 96)
    check_killed_runs(tmp_path, model, noise(*shape), 20, tree, settings, arithmetic)


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
    np.testing.assert_array_equal(labels_of(tmp_path / "a.zarr"), labels_of(tmp_path / "b.zarr"))


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


def test_one_writer_per_chunk_and_the_ledger_comes_last(
    tmp_path: Path, model: Model, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[tuple[str, Any]] = []
    settle, record = BlockArray.settle, Ledger.record
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

    monkeypatch.setattr(BlockArray, "settle", watch_settle)
    monkeypatch.setattr(Ledger, "record", watch_record)
    predict_volume(model, image_from_array(noise(3, 70, 101)), tmp_path / "a.zarr", SETTINGS)
    assert set(chunks.values()) == {1}
    kinds = [kind for kind, _ in order]
    assert kinds[:4] == ["data", "data", "data", "ledger"] and kinds[-1] == "ledger"
