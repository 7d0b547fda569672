"""Workers and schedulers that do not come, want keys, or die with whoever started them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from napari_autosegnet.errors import StoppedError, UserError
from napari_autosegnet.events import BlockWritten, Event, parse_event
from napari_autosegnet.inference.distributed.workers import (
    Workers,
    WorkerSource,
    need_cluster_extra,
    workers,
)
from napari_autosegnet.inference.job import VolumeRequest
from remembered_events import Events
from volume_requests import BLOCKS

distributed = pytest.importorskip("distributed")

Tree = Callable[[Path], dict[str, bytes]]

SCRIPT = """
import json, sys
from pathlib import Path
from napari_autosegnet.settings import PredictSettings
from napari_autosegnet.inference.distributed.cluster import predict_on_workers
from napari_autosegnet.inference.job import VolumeRequest
from napari_autosegnet.inference.distributed.workers import WorkerSource

def report(event):
    with open(events, "a") as handle:
        handle.write(event.model_dump_json() + "\\n")

model, image, out, events, settings = sys.argv[1:]
settings = PredictSettings.model_validate_json(settings)
request = VolumeRequest(Path(model), Path(image), Path(out), settings)
predict_on_workers(request, WorkerSource(2), device="cpu", report=report)
"""


def test_a_stop_before_any_worker_came_is_no_mistake(
    request_for: Callable[..., VolumeRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_autosegnet.inference.distributed import cluster as module

    @contextmanager
    def nobody(source: WorkerSource, shared: Path) -> Iterator[Workers]:
        yield Workers(SimpleNamespace(nthreads=dict), "tcp://its", lambda: None)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "workers", nobody)
    with pytest.raises(StoppedError, match="before any worker"):
        module.predict_on_workers(request_for("out.zarr"), WorkerSource(2), should_stop=lambda: True)


def test_without_a_scheduler_there_is_one_line(
    request_for: Callable[..., VolumeRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_autosegnet.inference.distributed import workers
    from napari_autosegnet.inference.distributed.cluster import predict_on_workers

    monkeypatch.setattr(workers, "CONNECT_SECONDS", 0.5)
    with pytest.raises(UserError, match="no dask scheduler answers"):
        predict_on_workers(request_for("a.zarr"), WorkerSource(scheduler="tcp://127.0.0.1:9"))


#: A scheduler with TLS keys of its own and a worker, as somebody else would start them.
SCHEDULER = """
import distributed, time

cluster = distributed.LocalCluster(
    n_workers=1, threads_per_worker=1, processes=False, security=distributed.Security(), dashboard_address=None,
    scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"}, silence_logs=50
)
print(cluster.scheduler_address, flush=True)
time.sleep(600)
"""


def test_a_scheduler_with_keys_that_dies_is_named(
    request_for: Callable[..., VolumeRequest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its keys stand in dask's own configuration; what it computed is kept."""
    import dask

    from napari_autosegnet.inference.distributed.cluster import predict_on_workers

    monkeypatch.setattr("napari_autosegnet.inference.distributed.workers.CONNECT_SECONDS", 1)
    keys = distributed.Security.temporary()
    (tmp_path / "cert.pem").write_text(keys.tls_client_cert)
    (tmp_path / "key.pem").write_text(keys.tls_client_key)
    pair = {"cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    tls = {"ca-file": pair["cert"], "client": pair, "worker": pair, "scheduler": pair}
    (tmp_path / "dask.yaml").write_text(json.dumps({"distributed": {"comm": {"tls": tls, "require-encryption": True}}}))
    process = subprocess.Popen(
        [sys.executable, "-c", SCHEDULER],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "DASK_CONFIG": str(tmp_path / "dask.yaml")},
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("tls://")
        source, request = WorkerSource(scheduler=address), request_for("many.zarr")
        with pytest.raises(UserError, match=f"{address} needs the TLS keys"):
            predict_on_workers(request, source, device="cpu")
        for config, line in (
            ({"distributed.comm.require-encryption": True}, "give the scheduler's tls://"),
            ({"distributed.comm.tls.ca-file": "no", "distributed.comm.tls.client.cert": "no"}, "cannot be read"),
        ):
            with dask.config.set(config), pytest.raises(UserError, match=line):
                predict_on_workers(request, WorkerSource(scheduler="tcp://127.0.0.1:9"), device="cpu")
        events = Events()

        def report(event: Event) -> None:
            events(event)
            if isinstance(event, BlockWritten):
                process.kill()

        own = {f"distributed.comm.tls.client.{name}": path for name, path in pair.items()}
        own["distributed.comm.tls.ca-file"] = pair["cert"]
        with (
            dask.config.set(own),
            pytest.raises(UserError, match=f"the dask scheduler at {address} is gone"),
        ):
            predict_on_workers(request, source, device="cpu", report=report)
    finally:
        process.kill()
        process.communicate()
    done = len(events.of(BlockWritten))
    assert 0 < done < BLOCKS
    assert len((tmp_path / "many.zarr.ledger.jsonl").read_bytes().splitlines()) > done


def test_what_went_wrong_is_said_though_closing_fails_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does when the client is just connecting again to a scheduler that died."""
    close = distributed.Client.close

    def fail(client: distributed.Client) -> None:
        close(client)
        raise ValueError("IOStream is not idle; cannot convert to SSL")

    with distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster:
        monkeypatch.setattr(distributed.Client, "close", fail)
        source = WorkerSource(scheduler=cluster.scheduler_address)
        with pytest.raises(UserError, match="it is gone"), workers(source) as found:
            assert found.client.status == "running"
            raise UserError("it is gone")
        assert found.client.status == "closed"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'napari-autosegnet\[cluster\]'"):
        need_cluster_extra()


@pytest.mark.slow
def test_killed_dispatchers_and_workers_of_this_machine(
    tmp_path: Path, request_for: Callable[..., VolumeRequest], tree: Tree, one: dict[str, bytes]
) -> None:
    """The process that started the workers is killed, again and again; its workers end with it."""
    psutil = pytest.importorskip("psutil")
    request = request_for("many.zarr")
    (tmp_path / "run.py").write_text(SCRIPT)
    events = tmp_path / "events.jsonl"
    command = [sys.executable, str(tmp_path / "run.py"), str(request.model), str(request.image), str(request.out)]
    command += [str(events), request.settings.model_dump_json()]
    ledger = tmp_path / "many.zarr.ledger.jsonl"
    generator = random.Random(0)
    for turn in range(4):
        lines = len(ledger.read_bytes().splitlines()) if ledger.exists() else 0
        process = subprocess.Popen(command)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if ledger.exists() and len(ledger.read_bytes().splitlines()) > lines + 2:
                break
            time.sleep(0.005)
        time.sleep(generator.random() * 0.05)
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        if turn % 2 and children:
            os.kill(generator.choice(children).pid, signal.SIGKILL)
            time.sleep(generator.random() * 0.2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not alive
    subprocess.run(command, check=True, timeout=300)
    found = list(filter(None, map(parse_event, events.read_text().splitlines())))
    assert max(Counter(event.index for event in found if isinstance(event, BlockWritten)).values()) == 1
    assert tree(tmp_path / "many.zarr") == one
