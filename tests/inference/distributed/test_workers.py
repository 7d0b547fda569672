from __future__ import annotations

import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.distributed.cluster_work import own_device
from napari_autosegnet.inference.distributed.local_workers import signals_of_terminals_blocked
from napari_autosegnet.inference.distributed.workers import (
    Workers,
    WorkerSource,
    read_slurm_settings,
    slurm_cluster,
    workers,
)

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")
pytest.importorskip("dask_jobqueue")

SETTINGS = """
queue: gpu
account: lab
cores: 4
memory: 16GB
walltime: "02:00:00"
job_extra_directives: ["--gres=gpu:1"]
workers: 8
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def one(text: str) -> Path:
        path = tmp_path / "slurm.yaml"
        path.write_text(text)
        return path

    return one


@pytest.fixture(scope="module")
def local() -> Iterator[Workers]:
    """Two workers of this machine."""
    with workers(WorkerSource(2)) as found:
        yield found


def greets(address: str, context: ssl.SSLContext | None) -> bool:
    """Whether a scheduler or worker talks to somebody who connects, in plain TCP or with TLS."""
    host, port = address.split("://")[1].rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), timeout=20) as plain:
            if context is None:
                plain.sendall(bytes(64))
                return plain.recv(1) not in (b"", b"\x15")  # nothing, or a TLS alert
            with context.wrap_socket(plain) as connection:
                return connection.recv(1) != b""
    except (ssl.SSLError, ConnectionError):
        return False


def strangers(security: Any) -> list[ssl.SSLContext | None]:
    """Whom nobody must talk to: plain TCP, TLS without keys and with others; none cares who is at the other end."""
    none = ssl.create_default_context()
    none.check_hostname = False
    other = distributed.Security.temporary().get_connection_args("client")["ssl_context"]
    none.verify_mode = other.verify_mode = ssl.CERT_NONE
    return [None, none, other]


def test_local_workers_listen_to_nobody_else(local: Workers) -> None:
    """Whoever can talk to them runs code as the user; other users of the machine reach all of its ports."""
    psutil = pytest.importorskip("psutil")
    addresses = [local.scheduler, *local.client.nthreads()]
    keys = local.client.security.get_connection_args("client")["ssl_context"]
    for address in addresses:
        assert greets(address, keys)
        assert not any(greets(address, stranger) for stranger in strangers(local.client.security))
    with pytest.raises(OSError):
        distributed.Client(local.scheduler.replace("tls://", "tcp://"), timeout=0.5, set_as_default=False)
    # No web pages, nothing on other interfaces.
    pids = [os.getpid(), *local.client.run(os.getpid).values()]
    ports = {int(address.rsplit(":", 1)[1]) for address in addresses}
    for pid in pids:
        for connection in psutil.Process(pid).net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip == "127.0.0.1" and connection.laddr.port in ports
    # The keys stand in no command line.
    assert all("KEY" not in " ".join(psutil.Process(pid).cmdline()) for pid in pids[1:])


def test_slurm_settings_make_the_job_script(write: Any, tmp_path: Path) -> None:
    settings, count = read_slurm_settings(write(SETTINGS), 1)
    assert count == 8
    with slurm_cluster(settings, tmp_path) as cluster:
        script = cluster.job_script()
        words = script.split()
        assert f" {cluster.scheduler_address} " in script and cluster.scheduler_address.startswith("tls://")
        keys = [Path(words[words.index(f"--tls-{name}") + 1]) for name in ("ca-file", "cert", "key")]
        assert all(key.parent == tmp_path and stat.S_IMODE(key.stat().st_mode) == 0o600 for key in keys)
        assert "PRIVATE KEY" in keys[2].read_text()
        own = cluster.security.get_connection_args("worker")["ssl_context"]
        assert greets(cluster.scheduler_address, own)
        assert not any(greets(cluster.scheduler_address, stranger) for stranger in strangers(cluster.security))
        assert not hasattr(cluster.scheduler, "http_server")
    for line in ("#SBATCH -p gpu", "#SBATCH -A lab", "#SBATCH --cpus-per-task=4", "#SBATCH -t 02:00:00"):
        assert line in script
    assert "#SBATCH --gres=gpu:1" in script and "#SBATCH --mem=15G" in script
    # Workers end before SLURM ends them, and not all at once.
    assert "--lifetime 6900s" in script and "--lifetime-stagger 4m" in script
    assert "distributed.cli.dask_worker" in script
    assert "--worker-class napari_autosegnet.inference.distributed.dask_roles.QuietWorker" in script


def test_keys_lie_where_a_job_script_can_name_them(write: Any, tmp_path: Path) -> None:
    """dask-jobqueue quotes nothing; a folder that is named in the settings, or in dask's own, goes first."""
    settings, _ = read_slurm_settings(write(SETTINGS), 1)
    spaced, named = tmp_path / "my results", tmp_path / "named"
    spaced.mkdir()
    named.mkdir()
    for given, expected in (
        (settings, Path.cwd()),
        ({**settings, "shared_temp_directory": str(named)}, named),
    ):
        with slurm_cluster(given, spaced) as cluster:
            words = cluster.job_script().split()
            assert Path(words[words.index("--tls-key") + 1]).parent == expected


def test_a_web_page_is_served_where_it_is_asked_for(write: Any) -> None:
    settings, _ = read_slurm_settings(write(SETTINGS), 1)
    options = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    with slurm_cluster({**settings, "scheduler_options": options}) as cluster:
        assert cluster.scheduler.http_server.port


def test_own_lifetimes_and_short_jobs(write: Any) -> None:
    settings, count = read_slurm_settings(write("cores: 1\nmemory: 1GB\nwalltime: '00:10:00'\n"), 3)
    assert count == 3
    quiet = ["--worker-class", "napari_autosegnet.inference.distributed.dask_roles.QuietWorker"]
    assert settings["worker_extra_args"] == ["--lifetime", "450s", "--lifetime-stagger", "10s", *quiet]
    text = "cores: 1\nmemory: 1GB\nwalltime: '00:10:00'\nworker_extra_args: [--lifetime, 1m]\n"
    assert read_slurm_settings(write(text), 3)[0]["worker_extra_args"] == ["--lifetime", "1m", *quiet]
    text = "cores: 1\nmemory: 1GB\nworker_command: some.other\n"
    assert read_slurm_settings(write(text), 3)[0]["worker_extra_args"] == []


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("- a\n", "must hold settings"),
        ("a: [\n", "is not YAML"),
        ("[" * 5000, r"is not YAML \(it is not text, or nested too deeply\)"),
        ("workers: many\n", "must be a number"),
        ("workers: 0\n", "must be a number"),
    ],
)
def test_wrong_slurm_files(write: Any, text: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        read_slurm_settings(write(text), 1)


# dask-jobqueue leaves what it refused half made.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"queue": "gpu"}, "SLURM settings make no job"),
        ({"cores": 1, "memory": "1GB", "color": "red"}, "SLURM settings make no job"),
        ({"cores": 1, "memory": "1GB", "shared_temp_directory": "/no/folder"}, "name a shared_temp_directory"),
    ],
)
def test_settings_that_make_no_job(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        slurm_cluster(settings)


def test_a_missing_slurm_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        read_slurm_settings(tmp_path / "no.yaml", 1)


def test_every_worker_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    cuda = torch.device("cuda")
    assert [str(own_device(cuda, name)) for name in ("0", "1", "2", "SLURMCluster-3")] == [
        "cuda:0",
        "cuda:1",
        "cuda:0",
        "cuda:1",
    ]
    assert str(own_device(torch.device("cpu"), "1")) == "cpu"
    assert str(own_device(torch.device("cuda:1"), "0")) == "cuda:1"


@pytest.mark.skipif(sys.platform == "win32", reason="signals between processes are POSIX here")
def test_what_a_terminal_sends_does_not_reach_the_workers(local: Workers) -> None:
    """It goes to every process of the command; a worker that was replaced is spared, too."""

    def interrupt() -> int:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGHUP)
        return os.getpid()

    assert not {signal.SIGINT, signal.SIGHUP} & signal.pthread_sigmask(signal.SIG_BLOCK, ())
    first = local.client.run(interrupt)
    killed = next(iter(first.values()))
    assert local.client.run(interrupt) == first
    os.kill(killed, signal.SIGKILL)
    deadline = time.monotonic() + 120
    while len(new := local.client.run(interrupt, on_error="ignore")) < 2 or killed in new.values():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert local.client.run(interrupt) == new


@pytest.mark.skipif(sys.platform == "win32", reason="signals between processes are POSIX here")
def test_ctrl_c_while_workers_start_arrives_when_they_have() -> None:
    come: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: come.append(number))
    try:
        with signals_of_terminals_blocked():
            # To this thread: where a process has others that block nothing, they take a signal to all of it.
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            assert come == []
            # What is started meanwhile blocks it, whatever its parent's other threads do.
            child = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
            said = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True).stdout
            assert said.strip() == "True"
        assert come == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_slurm_jobs_work_and_lost_ones_are_asked_for_again(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands that look like SLURM's and run a job at once: the whole way but the queue."""
    commands = tmp_path / "bin"
    commands.mkdir()
    # As SLURM, which keeps a copy of the script.
    (commands / "sbatch").write_text(
        f"#!/bin/sh\ncp $1 {tmp_path}/job.sh\nsetsid sh {tmp_path}/job.sh >>{tmp_path}/log 2>&1 &\n"
        f"echo $! >>{tmp_path}/jobs\necho Submitted batch job $!\n"
    )
    (commands / "scancel").write_text("#!/bin/sh\nkill -- -$1\n")
    for command in commands.iterdir():
        command.chmod(command.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    text = "cores: 1\nmemory: 1GB\nwalltime: '00:10:00'\nworkers: 1\ninterface: lo\n"

    def jobs() -> list[int]:
        return [int(number) for number in (tmp_path / "jobs").read_text().split()]

    with dask.config.set({"distributed.deploy.lost-worker-timeout": "500ms"}):
        with workers(WorkerSource(slurm=write(text))) as found:
            found.client.wait_for_workers(1, timeout=120)
            assert found.client.submit(sum, [1, 2]).result(timeout=60) == 3
            os.killpg(jobs()[0], signal.SIGKILL)
            deadline = time.monotonic() + 60
            while len(jobs()) < 2 and time.monotonic() < deadline:
                time.sleep(0.5)
                found.refill()
            assert found.client.submit(sum, [3, 4]).result(timeout=120) == 7
        assert len(jobs()) == 2


def test_what_keeps_workers_from_starting_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))  # where the keys are written for a moment
    with pytest.raises(UserError, match="the workers cannot start .* or leave --workers out"), workers(WorkerSource(1)):
        pass
