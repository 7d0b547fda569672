from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.cluster_work import _own_device
from napari_autosegnet.inference.workers import (
    WorkerSource,
    _without_ctrl_c,
    read_slurm_settings,
    slurm_cluster,
    workers,
)

dask = pytest.importorskip("dask")
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


def test_slurm_settings_make_the_job_script(write: Any) -> None:
    settings, count = read_slurm_settings(write(SETTINGS), 1)
    assert count == 8
    with slurm_cluster(settings) as cluster:
        script = cluster.job_script()
    for line in ("#SBATCH -p gpu", "#SBATCH -A lab", "#SBATCH --cpus-per-task=4", "#SBATCH -t 02:00:00"):
        assert line in script
    assert "#SBATCH --gres=gpu:1" in script and "#SBATCH --mem=15G" in script
    # Workers end before SLURM ends them, and not all at once.
    assert "--lifetime 6900s" in script and "--lifetime-stagger 4m" in script
    assert "distributed.cli.dask_worker" in script


def test_another_dask_on_the_login_node_does_no_harm(write: Any) -> None:
    """Its usual port is taken, which dask warns of, and warnings are errors here."""
    settings, _ = read_slurm_settings(write(SETTINGS), 1)
    with socket.socket() as usual:
        with contextlib.suppress(OSError):  # taken already: as good
            usual.bind(("127.0.0.1", 8787))
            usual.listen()
        with slurm_cluster(settings) as cluster:
            assert ":8787" not in cluster.scheduler_address and cluster.scheduler.http_server.port != 8787


def test_own_lifetimes_and_short_jobs(write: Any) -> None:
    settings, count = read_slurm_settings(write("cores: 1\nmemory: 1GB\nwalltime: '00:10:00'\n"), 3)
    assert count == 3
    assert settings["worker_extra_args"] == ["--lifetime", "450s", "--lifetime-stagger", "10s"]
    text = "cores: 1\nmemory: 1GB\nwalltime: '00:10:00'\nworker_extra_args: [--lifetime, 1m]\n"
    assert read_slurm_settings(write(text), 3)[0]["worker_extra_args"] == ["--lifetime", "1m"]
    assert read_slurm_settings(write("cores: 1\nmemory: 1GB\n"), 3)[0]["worker_extra_args"] == []


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("- a\n", "must hold settings"),
        ("a: [\n", "is no YAML"),
        ("workers: many\n", "must be a number"),
        ("workers: 0\n", "must be a number"),
    ],
)
def test_wrong_slurm_files(write: Any, text: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        read_slurm_settings(write(text), 1)


# dask-jobqueue leaves what it refused half made.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("settings", [{"queue": "gpu"}, {"cores": 1, "memory": "1GB", "colour": "red"}])
def test_settings_that_make_no_job(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="SLURM settings make no job"):
        slurm_cluster(settings)


def test_a_missing_slurm_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        read_slurm_settings(tmp_path / "no.yaml", 1)


def test_every_worker_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    cuda = torch.device("cuda")
    assert [str(_own_device(cuda, name)) for name in ("0", "1", "2", "SLURMCluster-3")] == [
        "cuda:0",
        "cuda:1",
        "cuda:0",
        "cuda:1",
    ]
    assert str(_own_device(torch.device("cpu"), "1")) == "cpu"
    assert str(_own_device(torch.device("cuda:1"), "0")) == "cuda:1"


@pytest.mark.skipif(sys.platform == "win32", reason="signals between processes are POSIX here")
def test_ctrl_c_does_not_reach_the_workers() -> None:
    """A terminal sends it to every process of the command; a worker that was replaced is spared, too."""

    def interrupt() -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return os.getpid()

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with workers(WorkerSource(1)) as found:
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
        first = found.client.submit(interrupt, pure=False).result(timeout=60)
        assert found.client.submit(interrupt, pure=False).result(timeout=60) == first
        os.kill(first, signal.SIGKILL)
        second = found.client.submit(interrupt, pure=False).result(timeout=120)
        assert second != first
        assert found.client.submit(os.getpid, pure=False).result(timeout=60) == second


@pytest.mark.skipif(sys.platform == "win32", reason="signals between processes are POSIX here")
def test_ctrl_c_while_workers_start_arrives_when_they_have() -> None:
    come: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: come.append(number))
    try:
        with _without_ctrl_c():
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
