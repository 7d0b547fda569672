"""Where the workers come from: processes of this machine, a running dask scheduler, or SLURM."""

from __future__ import annotations

import importlib.util
import logging
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_autosegnet.errors import UserError, one_line
from napari_autosegnet.files import refuse_pipe
from napari_autosegnet.inference.distributed.local_workers import LocalWorkers
from napari_autosegnet.processes import available_cores

if TYPE_CHECKING:
    from distributed import Client

#: Deaths of its worker after which dask gives a task up; who dispatches tries it again, alone.
DEATHS = 1
CONNECT_SECONDS = 20
#: Workers end this long before the job's time does, not all at once, so that no block is lost.
_LIFETIME_MARGIN = 300
_STAGGER = "4m"
_WORKER_CLASS = "napari_autosegnet.inference.distributed.dask_roles.QuietWorker"


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
    """A connection to workers, where their scheduler is, and how to ask for those that are missing."""

    client: Client
    scheduler: str
    refill: Callable[[], None]


def need_cluster_extra(slurm: bool = False) -> None:
    """Check that dask is installed.

    Raises
    ------
    UserError
        Names the extra that brings it.
    """
    for package in ("dask", "distributed", "cryptography", *(["dask_jobqueue"] if slurm else [])):
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"several workers need {package.replace('_', '-')}, which is not installed; "
                "pip install 'napari-autosegnet[cluster]'"
            )


@contextmanager
def workers(source: WorkerSource, shared: Path | None = None) -> Iterator[Workers]:
    """Start or find workers; those that were started end with the context.

    What is started takes commands only from this process: it has keys of its own, for this time alone.

    Parameters
    ----------
    source : WorkerSource
    shared : Path, optional
        A folder that all nodes see, for the keys of SLURM jobs; the current one by default.

    Raises
    ------
    UserError
        When dask is missing, no scheduler answers at the address, or the SLURM settings do not make a job.
    """
    need_cluster_extra(source.slurm is not None)
    import dask
    from distributed import Client, Security, SpecCluster
    from distributed.utils import silence_logging_cmgr

    if source.scheduler is not None:
        # What a lost connection means is said elsewhere.
        with silence_logging_cmgr(level=logging.CRITICAL), _client_of(source.scheduler) as client:
            yield Workers(client, source.scheduler, lambda: None)
        return
    from napari_autosegnet.inference.distributed.dask_roles import QuietScheduler

    with dask.config.set(
        {"distributed.scheduler.allowed-failures": DEATHS, "distributed.comm.timeouts.connect": "60s"}
    ):
        if source.slurm is not None:
            settings, count = read_slurm_settings(source.slurm, source.workers)
            with slurm_cluster(settings, shared) as cluster, Client(cluster, set_as_default=False) as client:
                cluster.scale(n=count)
                # scale() asks for what is missing: jobs that ended, nodes that failed.
                yield Workers(client, cluster.scheduler_address, lambda: cluster.scale(n=count))
            return
        keys = Security.temporary()
        options = {"host": "127.0.0.1", "protocol": "tls://", "security": keys, "dashboard": False}
        scheduler = {"cls": QuietScheduler, "options": options}
        try:
            cluster = SpecCluster(scheduler=scheduler, security=keys, silence_logs=logging.CRITICAL)
        except RuntimeError as error:  # no port, no space for the keys
            reason = one_line(error.__cause__ or error)
            raise UserError(f"the workers cannot start ({reason}); mend that, or leave --workers out") from error
        with cluster:
            local = LocalWorkers(source.workers, cluster.scheduler_address, keys, cores_per_worker(source.workers))
            try:
                with Client(cluster, set_as_default=False) as client:
                    local.wait_until_ready(client)
                    yield Workers(client, cluster.scheduler_address, lambda: None)
            finally:
                local.end()


@contextmanager
def _client_of(scheduler: str) -> Iterator[Client]:
    """A client of somebody's scheduler, with the keys of dask's own configuration."""
    from distributed import Client, Security

    try:
        security = Security()
        has_keys = security.get_connection_args("client")["ssl_context"] is not None
    except OSError as error:
        raise UserError(f"the TLS keys of dask's configuration cannot be read: {error.strerror or error}") from error
    # Looked at before: a client that dask has half made takes a minute to go.
    if scheduler.startswith("tls://") and not has_keys:
        raise UserError(f"{scheduler} needs the TLS keys of its scheduler; name them in dask's configuration")
    if security.require_encryption and not scheduler.startswith("tls://"):
        raise UserError(f"dask's configuration asks for TLS; give the scheduler's tls:// address, not {scheduler}")
    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False, security=security)
    except (OSError, ValueError, TimeoutError) as error:
        raise UserError(
            f"no dask scheduler answers at {scheduler} ({type(error).__name__}); "
            "start one with 'dask scheduler', or check the address and whether it takes tls:// or tcp://"
        ) from error
    try:
        yield client
    finally:
        # One that is just connecting to a dead scheduler fails at this, in place of what there is to say.
        with suppress(Exception):
            client.close()


def cores_per_worker(count: int) -> int:
    """Cores of this machine for each of so many workers."""
    return max(1, available_cores() // count)


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

    refuse_pipe(path, "give a YAML file with settings of SLURM")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; give a YAML file") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not YAML (it is not text, or nested too deeply); give a YAML file") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {one_line(error)}") from error
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
    if "worker_command" not in settings and "--worker-class" not in extra:
        extra += ["--worker-class", _WORKER_CLASS]
    settings["worker_extra_args"] = extra
    return settings, wanted


def slurm_cluster(settings: Mapping[str, Any], shared: Path | None = None) -> Any:
    """A SLURM cluster; no job is submitted before it is scaled.

    Its keys lie in files that only the user can read, in ``shared`` or where the setting ``shared_temp_directory``
    says, until the cluster is closed.

    Raises
    ------
    UserError
        When a setting is missing or unknown.
    """
    need_cluster_extra(slurm=True)
    import dask
    from dask_jobqueue.slurm import SLURMCluster
    from distributed import Security

    from napari_autosegnet.inference.distributed.dask_roles import QuietScheduler

    own: dict[str, Any] = {"security": Security.temporary()}
    options = dict(settings.get("scheduler_options") or {})
    if not any(name.startswith("dashboard") for name in options):
        own["scheduler_cls"], options["dashboard"] = QuietScheduler, False
    if not dask.config.get("jobqueue.slurm.shared-temp-directory", None):
        own["shared_temp_directory"] = str(_plain_folder(shared))
    try:
        return SLURMCluster(**{**own, **settings, "scheduler_options": options})
    except OSError as error:
        raise UserError(f"the SLURM jobs' keys cannot be written ({error}); name a shared_temp_directory") from error
    except (TypeError, ValueError) as error:
        line = re.sub(r"\s+", " ", str(error))[:200]
        raise UserError(f"the SLURM settings make no job ({line}); see dask_jobqueue.SLURMCluster") from error


def _plain_folder(shared: Path | None) -> Path:
    """A folder whose name dask-jobqueue, which quotes nothing, can write in a shell script."""
    here, home = Path.cwd(), Path.home()
    return next((folder for folder in (shared, here) if folder and shlex.quote(str(folder)) == str(folder)), home)


def _walltime_seconds(text: str) -> int | None:
    """Seconds of SLURM's ``[days-]hours:minutes:seconds``; None where it is written otherwise."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", text.strip())
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
