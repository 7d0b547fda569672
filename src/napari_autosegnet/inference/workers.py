"""Where the workers come from: processes of this machine, a running dask scheduler, or SLURM."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_autosegnet.errors import UserError

if TYPE_CHECKING:
    from distributed import Client

#: Threads per local worker: one reads, one computes, one writes.
THREADS = 3
#: Deaths of its worker after which dask gives a task up; who dispatches tries it again, alone.
DEATHS = 1
_CONNECT_SECONDS = 20
#: Workers end this long before the job's time does, not all at once, so that no block is lost.
_LIFETIME_MARGIN = 300
_STAGGER = "4m"
#: No web page that nobody asked for, and no quarrel over dask's usual port.
_NO_DASHBOARD = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}


@dataclass(frozen=True)
class WorkerSource:
    """Which workers to use.

    Attributes
    ----------
    workers : int
        Processes on this machine, or SLURM workers where the file names no number.
    scheduler : str, optional
        Address of a running dask scheduler, such as ``tcp://node1:8786``.
    slurm : Path, optional
        YAML file with the arguments of ``dask_jobqueue.SLURMCluster`` and ``workers``.
    """

    workers: int = 1
    scheduler: str | None = None
    slurm: Path | None = None

    @property
    def is_local(self) -> bool:
        """Whether the workers are this machine's own."""
        return self.scheduler is None and self.slurm is None

    @property
    def is_needed(self) -> bool:
        """Whether other processes than this one are to work."""
        return not self.is_local or self.workers > 1


@dataclass
class Workers:
    """A connection to workers, and how to ask for those that are missing."""

    client: Client
    refill: Callable[[], None]


def need_cluster_extra(slurm: bool = False) -> None:
    """Check that dask is installed.

    Raises
    ------
    UserError
        Names the extra that brings it.
    """
    for package in ("dask", "distributed", *(["dask_jobqueue"] if slurm else [])):
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"several workers need {package.replace('_', '-')}, which is not installed; "
                "pip install 'napari-autosegnet[cluster]'"
            )


@contextmanager
def workers(source: WorkerSource) -> Iterator[Workers]:
    """Start or find workers; those that were started end with the context.

    Raises
    ------
    UserError
        When dask is missing, no scheduler answers at the address, or the SLURM settings do not make a job.
    """
    need_cluster_extra(source.slurm is not None)
    import dask
    from distributed import Client

    if source.scheduler is not None:
        try:
            client = Client(source.scheduler, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise UserError(
                f"no dask scheduler answers at {source.scheduler} ({type(error).__name__}); "
                "start one with 'dask scheduler', or check the address"
            ) from error
        with client:
            yield Workers(client, lambda: None)
        return
    with dask.config.set(
        {"distributed.scheduler.allowed-failures": DEATHS, "distributed.comm.timeouts.connect": "60s"}
    ):
        if source.slurm is not None:
            settings, count = read_slurm_settings(source.slurm, source.workers)
            with slurm_cluster(settings) as cluster, Client(cluster, set_as_default=False) as client:
                cluster.scale(n=count)
                # scale() asks for what is missing: jobs that ended, nodes that failed.
                yield Workers(client, lambda: cluster.scale(n=count))
            return
        from distributed import LocalCluster

        with ExitStack() as ends:
            with _without_ctrl_c():
                cluster = ends.enter_context(
                    LocalCluster(
                        n_workers=source.workers,
                        threads_per_worker=THREADS,
                        processes=True,
                        # Blocks bound the memory; dask would stop workers that share it with the page cache.
                        memory_limit=0,
                        dashboard_address=None,
                        scheduler_kwargs=_NO_DASHBOARD,
                        silence_logs=50,
                    )
                )
            client = ends.enter_context(Client(cluster, set_as_default=False))
            yield Workers(client, lambda: None)


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Start threads and processes that Ctrl-C does not reach.

    A terminal sends it to all processes of a command, and a worker would die of it in the middle of a block, while
    this process asks the workers to end in order. They inherit what the thread that starts them blocks, and so does
    a worker that dask's thread starts later in a dead one's place. A Ctrl-C in the meantime arrives here at the
    end, or at once where other threads run, which do not block it.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # As it starts it lifts the block, in Python before 3.12; so it starts before.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def cores_per_worker(count: int) -> int:
    """Cores of this machine for each of so many workers."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, available // count)


def read_slurm_settings(path: Path, count: int) -> tuple[dict[str, Any], int]:
    """Arguments of the SLURM cluster and the number of workers, from a YAML file.

    A job's workers end some minutes before its time does (``--lifetime``), not all at once.

    Raises
    ------
    UserError
        When the file cannot be read, or is no mapping.
    """
    need_cluster_extra(slurm=True)
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path} must hold settings such as 'queue: gpu', 'cores: 4', 'memory: 16GB', 'workers: 8'")
    settings = dict(content)
    wanted = settings.pop("workers", count)
    if not isinstance(wanted, int) or wanted < 1:
        raise UserError(f"workers in {path} must be a number of at least 1, not {wanted}")
    extra = [str(word) for word in settings.pop("worker_extra_args", [])]
    seconds = _walltime_seconds(str(settings.get("walltime", "")))
    if seconds is not None and "--lifetime" not in extra:
        margin = min(_LIFETIME_MARGIN, seconds // 4)
        extra += ["--lifetime", f"{seconds - margin}s", "--lifetime-stagger", _STAGGER if seconds > 3600 else "10s"]
    settings["worker_extra_args"] = extra
    settings.setdefault("scheduler_options", dict(_NO_DASHBOARD))
    return settings, wanted


def slurm_cluster(settings: Mapping[str, Any]) -> Any:
    """A SLURM cluster; no job is submitted before it is scaled.

    Raises
    ------
    UserError
        When a setting is missing or unknown.
    """
    need_cluster_extra(slurm=True)
    from dask_jobqueue.slurm import SLURMCluster

    try:
        return SLURMCluster(**settings)
    except (TypeError, ValueError) as error:
        line = re.sub(r"\s+", " ", str(error))[:200]
        raise UserError(f"the SLURM settings make no job ({line}); see dask_jobqueue.SLURMCluster") from error


def _walltime_seconds(text: str) -> int | None:
    """Seconds of SLURM's ``[days-]hours:minutes:seconds``; None where it is written otherwise."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", text.strip())
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
