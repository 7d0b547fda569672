"""Two workers of a cluster: they write what one process writes, whatever becomes of them, the image, or the disk."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from arithmetics import HALF, used
from napari_autosegnet.data.gray_match import GrayValues
from napari_autosegnet.data.gray_values import section_gray
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import BlockWritten, DeviceChosen, Event, Note, ProgressMade, WarningRaised
from napari_autosegnet.inference.distributed.workers import WorkerSource
from napari_autosegnet.inference.job import VolumeRequest
from napari_autosegnet.inference.output.progress import PredictionSummary
from napari_autosegnet.model import Model
from remembered_events import Events
from small_disks import mounted, resize
from volume_requests import BLOCKS, SETTINGS, alone

distributed = pytest.importorskip("distributed")

Noise = Callable[..., np.ndarray]
Tree = Callable[[Path], dict[str, bytes]]
InArithmetic = Callable[[str], tuple[dict[str, Any], dict[str, bytes]]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two workers, as somebody's own scheduler would have them; dead ones are replaced."""
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            memory_limit=0,
            dashboard_address=None,
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            silence_logs=50,
        ) as found,
    ):
        yield found


@pytest.fixture
def own_image(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the image that the test may damage."""
    return Path(shutil.copytree(prepared / "image.zarr", tmp_path / "image.zarr"))


def on(cluster: Any, request: VolumeRequest, **more: Any) -> PredictionSummary:
    from napari_autosegnet.inference.distributed.cluster import predict_on_workers

    return predict_on_workers(request, WorkerSource(scheduler=cluster.scheduler_address), device="cpu", **more)


def pids(cluster: Any) -> list[int]:
    with distributed.Client(cluster, set_as_default=False) as client:
        return list(client.run(os.getpid).values())


@pytest.mark.slow
def test_workers_agree_on_the_constants_of_sections(
    tmp_path: Path, make_model: Callable[..., Model], noise: Noise, tree: Tree, cluster: Any
) -> None:
    """Each measures by itself, and finds the same; the image's range is compared once, where the run is started."""
    array = (noise(6, 100, 150) * np.linspace(0.3, 1, 6)[:, None, None]).astype(np.uint8)
    array[3] = 40
    seen = GrayValues.of([section_gray(section[np.newaxis]) for section in array[[0, 1, 2, 4, 5]]], np.uint8)
    settings = SETTINGS.model_copy(update={"block": (2, 64, 96), "tile": 128})
    for kind in ("global", "section"):
        made = make_model(kind=kind, context=1)
        normalization = made.normalization.model_copy(update={"seen": seen})
        Model(made.description.model_copy(update={"normalization": normalization}), made.weights).save(tmp_path / kind)
        image = tmp_path / f"{kind}.zarr"
        zarr.create_array(image, data=array.astype(np.uint16) * 257, chunks=(2, 32, 48))
        told = Events()
        request = VolumeRequest(tmp_path / kind, image, tmp_path / f"many-{kind}", settings)
        many = on(cluster, request, report=told)
        one = alone(dataclasses.replace(request, out=tmp_path / f"one-{kind}"))
        assert tree(tmp_path / f"many-{kind}") == tree(tmp_path / f"one-{kind}")
        assert many.constant_sections == one.constant_sections == (3,)
        scaled = [event for event in told.of(Note) if "times 257" in event.text]
        assert len(scaled) == (1 if kind == "global" else 0)


def test_workers_write_what_one_process_writes(
    cluster: Any, request_for: Callable[..., VolumeRequest], tree: Tree, one: dict[str, bytes], tmp_path: Path
) -> None:
    events = Events()
    summary = on(cluster, request_for("many.zarr"), report=events)
    assert tree(tmp_path / "many.zarr") == one
    assert (summary.blocks, summary.done, summary.failed, summary.stopped) == (BLOCKS, BLOCKS, (), False)
    blocks = events.of(BlockWritten)
    assert Counter(block.index for block in blocks) == Counter(range(BLOCKS))
    assert len({block.worker for block in blocks}) == 2
    assert events.of(ProgressMade)[-1].done == BLOCKS and events.of(DeviceChosen) == [DeviceChosen(name="cpu")]
    again = Events()
    assert on(cluster, request_for("many.zarr"), report=again).done == BLOCKS
    assert not again.of(BlockWritten)


def test_two_workers_write_the_consensus_that_one_process_writes(
    cluster: Any, request_for: Callable[..., VolumeRequest], noise: Noise, tree: Tree, tmp_path: Path
) -> None:
    np.save(tmp_path / "image.npy", noise(8, 24, 20))
    changes = {"image": tmp_path / "image.npy", "planes": "all", "block": (4, 12, 20)}
    alone(request_for("alone.zarr", **changes))
    summary = on(cluster, request_for("many.zarr", **changes))
    assert (summary.blocks, summary.done) == (4, 4)
    assert tree(tmp_path / "many.zarr") == tree(tmp_path / "alone.zarr")


@pytest.mark.parametrize(
    ("moments", "arithmetic"),
    [
        ((5,), "float32"),
        ((5,), "bfloat16"),
        pytest.param((3, 9), "float32", marks=pytest.mark.slow),
        pytest.param((3, 9), "bfloat16", marks=pytest.mark.slow),
        pytest.param((5,), "float16", marks=pytest.mark.slow),
        pytest.param((5,), "onnxruntime", marks=pytest.mark.slow),
    ],
)
def test_killed_workers_lose_no_block(
    cluster: Any,
    request_for: Callable[..., VolumeRequest],
    in_arithmetic: InArithmetic,
    tree: Tree,
    tmp_path: Path,
    moments: tuple[int, ...],
    arithmetic: str,
) -> None:
    changes, one = in_arithmetic(arithmetic)
    events = Events()
    killed = []

    def report(event: Event) -> None:
        events(event)
        if isinstance(event, BlockWritten) and len(events.of(BlockWritten)) in moments:
            killed.append(random.Random(len(killed)).choice(pids(cluster)))
            os.kill(killed[-1], signal.SIGKILL)

    summary = on(cluster, request_for("many.zarr", **changes), report=report)
    assert used(tmp_path / "many.zarr") == arithmetic
    assert len(killed) == len(moments) and summary.done == BLOCKS and not summary.failed
    assert max(Counter(block.index for block in events.of(BlockWritten)).values()) == 1
    assert tree(tmp_path / "many.zarr") == one


@pytest.mark.slow
def test_a_block_that_cannot_be_read_is_named_and_the_rest_done(
    cluster: Any, request_for: Callable[..., VolumeRequest], tree: Tree, own_image: Path, tmp_path: Path
) -> None:
    """A chunk of the image is damaged; two blocks read it with their surroundings, and all blocks beside it."""
    chunk = own_image / "c" / "1" / "2" / "2"
    whole, times = chunk.read_bytes(), chunk.stat()
    events = Events()
    chunk.write_bytes(b"not a chunk".ljust(len(whole)))
    os.utime(chunk, ns=(times.st_atime_ns, times.st_mtime_ns))
    many = on(cluster, request_for("many.zarr", own_image, halo=0, retries=1), report=events)
    one = alone(request_for("one.zarr", own_image, halo=0, retries=1))
    for summary in (many, one):
        (failed,) = summary.failed
        assert (failed.origin, failed.shape) == ((2, 64, 96), (2, 4, 4))
        assert "2:4,64:68,96:100" in str(failed) and "cannot read" in failed.reason
        assert summary.done == BLOCKS - 1 and not summary.stopped
    tries = [warning.text for warning in events.of(WarningRaised)]
    assert len(tries) == 2 and "tried again" in tries[0] and "left out" in tries[1]
    # Put back as it was, its time included: otherwise it is another image.
    chunk.write_bytes(whole)
    os.utime(chunk, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert on(cluster, request_for("many.zarr", own_image, halo=0, retries=1)).failed == ()
    assert alone(request_for("whole.zarr", own_image, halo=0)).failed == ()
    assert tree(tmp_path / "many.zarr") == tree(tmp_path / "whole.zarr")


@pytest.mark.slow
def test_a_block_that_kills_its_worker_is_named_and_the_rest_done(
    cluster: Any, request_for: Callable[..., VolumeRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_autosegnet.inference.distributed import dispatcher as module

    real = module.work

    def poison(about: Any, task: Any) -> Any:
        import os as there
        import signal as signals

        if (task.stage, task.level, task.number) == ("labels", 0, 5):
            there.kill(there.getpid(), signals.SIGKILL)
        return real(about, task)

    monkeypatch.setattr(module, "work", poison)
    summary = on(cluster, request_for("many.zarr", retries=0))
    (failed,) = summary.failed
    assert failed.index == 5 and "died" in failed.reason
    assert summary.done == BLOCKS - 1


@pytest.mark.slow
def test_when_everything_fails_the_run_ends_soon(
    cluster: Any, request_for: Callable[..., VolumeRequest], own_image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_autosegnet.inference.output import progress

    monkeypatch.setattr(progress, "HOPELESS", 8)
    for chunk in (own_image / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"not a chunk")
    for run in (
        lambda: on(cluster, request_for("many.zarr", own_image)),
        lambda: alone(request_for("one.zarr", own_image)),
    ):
        with pytest.raises(UserError, match="the first 8 blocks failed; the first is block"):
            run()


def test_a_stop_ends_the_workers_within_a_tile(
    cluster: Any, request_for: Callable[..., VolumeRequest], tree: Tree, one: dict[str, bytes], tmp_path: Path
) -> None:
    events = Events()
    stopped = on(
        cluster, request_for("many.zarr"), report=events, should_stop=lambda: len(events.of(BlockWritten)) >= 3
    )
    assert stopped.stopped and 3 <= stopped.done < BLOCKS
    finished = on(cluster, request_for("many.zarr"), report=events)
    assert finished.done == BLOCKS
    assert Counter(block.index for block in events.of(BlockWritten)) == Counter(range(BLOCKS))
    assert tree(tmp_path / "many.zarr") == one


@pytest.mark.parametrize(
    "arithmetic", ["float32", *(pytest.param(name, marks=pytest.mark.slow) for name in (*HALF, "onnxruntime"))]
)
def test_a_full_disk_ends_the_run_in_one_line(
    cluster: Any,
    request_for: Callable[..., VolumeRequest],
    in_arithmetic: InArithmetic,
    tree: Tree,
    tmp_path: Path,
    arithmetic: str,
) -> None:
    changes, one = in_arithmetic(arithmetic)
    small = tmp_path / "small"
    events = Events()
    with mounted(small, "260k"):
        with pytest.raises(UserError, match="no space left"):
            on(cluster, request_for("small/out.zarr", **changes), report=events)
        assert used(small / "out.zarr") == arithmetic
        done = len(events.of(BlockWritten))
        assert 0 < done < BLOCKS
        resize(small, "8m")
        assert on(cluster, request_for("small/out.zarr", **changes), report=events).done == BLOCKS
        assert max(Counter(block.index for block in events.of(BlockWritten)).values()) == 1
        assert tree(small / "out.zarr") == one


def test_what_a_worker_does_not_see_is_said_at_once(
    cluster: Any, request_for: Callable[..., VolumeRequest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from napari_autosegnet.inference.distributed import dispatcher as module

    real = module.work

    def elsewhere(about: Any, task: Any) -> Any:
        import dataclasses as there
        from pathlib import Path as Elsewhere

        request = there.replace(about.request, model=Elsewhere("nowhere"))
        return real(there.replace(about, request=request), task)

    monkeypatch.setattr(module, "work", elsewhere)
    with pytest.raises(UserError, match=r"worker .*: there is no file or folder nowhere"):
        on(cluster, request_for("many.zarr"))


def test_files_that_only_one_machine_can_write_are_refused(
    cluster: Any, request_for: Callable[..., VolumeRequest]
) -> None:
    with pytest.raises(UserError, match="several machines"):
        on(cluster, request_for("out.tif"))
