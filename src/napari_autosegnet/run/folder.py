"""The run folder: all that a search or a training knows, readable without this program.

::

    RUN/config.json         data, classes, split and settings
        events.jsonl        one object per line, append-only
        architecture.json   what the search found
        checkpoints/        for --resume; loaded with weights_only
        model/              what `predict` applies
        requests/           pause, stop and new labels, put there by whoever wants it

The worker, the docks, the commands and ``--resume`` share this folder and nothing else. Files are
written to a temporary name and renamed, so a crash leaves the old one or the new one. A run may come from
somebody else: none of its files is opened through a link, which could lead anywhere.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Event, Paused, Resumed, Step, format_event, parse_event
from napari_autosegnet.files import append_line, refuse_address, write_atomically
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.json_files import read_json, read_object
from napari_autosegnet.locks import InUseError, held, is_held
from napari_autosegnet.ome_zarr.paths import looks_like_zarr

#: ``labels`` says which files hold what was painted meanwhile; see `jobs.more_labels`.
Request = Literal["pause", "stop", "cancel", "labels"]

CONFIG_VERSION = 1
#: Longest line of events that is read; a longer one is damage.
_MAX_LINE = 2**20


#: What Windows marks its links to folders with.
_JUNCTION = 0xA0000003


def _refuse_link(path: Path) -> None:
    try:
        kind = path.lstat()
    except OSError:
        return  # missing, or whoever opens it will say why it cannot
    if stat.S_ISLNK(kind.st_mode) or getattr(kind, "st_reparse_tag", 0) == _JUNCTION:
        raise UserError(f"{path} is a link, and the files of a run are not opened through links; copy what it leads to")
    if not (stat.S_ISREG(kind.st_mode) or stat.S_ISDIR(kind.st_mode)):
        raise UserError(f"{path} is not a file but a pipe or a device; remove it")


#: What programs open in a run folder, by the folder in it that holds it.
ENTRIES: dict[str, tuple[str, ...]] = {
    "": (
        ".lock",
        ".lock.holder",
        "config.json",
        "events.jsonl",
        "architecture.json",
        "networks.json",
        "training-architecture.json",
        "job.json",
        "worker.json",
    ),
    "checkpoints": (
        "fit.pt",
        "fit.previous.pt",
        "search.pt",
        "search.previous.pt",
        "training.pt",
        "training.previous.pt",
    ),
    "model": ("model.json", "weights.safetensors"),
    "requests": ("pause", "stop", "cancel", "labels"),
    "logs": ("worker.log",),
    "preview": ("input.npz", "labels.npy", "uncertainty.npy"),
    "annotation": ("annotation.json",),
}


def is_run(path: Path) -> bool:
    """Whether a folder is a run of this program, however little is in it; other programs have a config.json, too."""
    config = path / "config.json"
    if (path / "annotation" / "annotation.json").is_file():
        return True
    if config.is_file() and (path / "events.jsonl").is_file():
        return True
    content = read_object(config)
    described = "version" in content and not content.keys().isdisjoint({"data", "fit", "search", "training"})
    return described or read_object(path / "job.json").get("step") in get_args(Step)


def find_runs(folder: Path, depth: int = 2) -> Iterator[Run]:
    """The runs in and under a folder, sorted by name: runs/NAME, or one folder further down as demo/run.

    Parameters
    ----------
    folder : Path
        It may be a run itself.
    depth : int
        How many folders further down is looked.
    """
    with suppress(OSError):  # a folder that may not be looked into, which hides no other
        if is_run(folder):
            yield Run(folder)
        elif depth > 0:
            for inner in sorted(folder.iterdir()):
                if inner.is_dir() and not inner.name.startswith("."):
                    yield from find_runs(inner, depth - 1)


class Run:
    """A run folder; `Run.create` makes one, `Run.open` takes an existing one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> Run:
        """Make the folder if it is missing.

        Raises
        ------
        UserError
            When it cannot be made, or holds an image or a model: then something else was meant.
        """
        refuse_address(path, "runs are kept on a disk; give --run a path")
        run = cls(path)
        if looks_like_zarr(path) or (path / "model.json").exists():
            kind = "a Zarr store" if looks_like_zarr(path) else "a model"
            raise UserError(f"{path} is {kind} and no place for a run; choose another --run")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise UserError(f"{path} is not a folder, as a run has to be; choose another --run") from error
        except OSError as error:
            raise UserError(
                f"cannot make the run folder {path}: {error.strerror or error}; choose another --run"
            ) from error
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        run = cls(path)
        if not (run.config_file.is_file() or is_run(path)):
            raise UserError(f"{path} is not a run folder; start a run with 'napari-autosegnet fit'")
        return run

    def file(self, *names: str) -> Path:
        """A file or folder of the run, which may be missing.

        Raises
        ------
        UserError
            When it, or a folder of the run around it, is a link, a pipe or a device.
        """
        path = self.path
        for name in names:
            path = path / name
            _refuse_link(path)
        return path

    @property
    def refusal(self) -> str | None:
        """Why the folder is not worked with: something in it leads elsewhere. None where nothing does."""
        try:
            for folder, names in ENTRIES.items():
                for name in names:
                    self.file(*filter(None, (folder, name)))
        except UserError as error:
            return str(error)
        return None

    @property
    def config_file(self) -> Path:
        return self.file("config.json")

    @property
    def events_file(self) -> Path:
        return self.file("events.jsonl")

    @property
    def architecture_file(self) -> Path:
        return self.file("architecture.json")

    @property
    def training_architecture_file(self) -> Path:
        """What the run's training began with; ``architecture_file`` may be another one's by then."""
        return self.file("training-architecture.json")

    @property
    def menu_file(self) -> Path:
        """Networks that a fit has to offer."""
        return self.file("networks.json")

    @property
    def model_folder(self) -> Path:
        return self.file("model")

    @property
    def has_model(self) -> bool:
        return (self.model_folder / "model.json").is_file()

    @property
    def has_architecture(self) -> bool:
        """Whether a search left something to train."""
        return self.architecture_file.is_file()

    def checkpoint_file(self, name: Literal["fit", "search", "training"]) -> Path:
        return self.file("checkpoints", f"{name}.pt")

    def read_config(self) -> dict[str, Any]:
        content = read_json(self.config_file, "start a new run")
        if not isinstance(content, dict) or content.get("version") != CONFIG_VERSION:
            raise UserError(
                f"{self.config_file} is not of version {CONFIG_VERSION} that this program reads; start a new run"
            )
        return content

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process.

        Raises
        ------
        UserError
            When another process works in this folder.
        """
        with ExitStack() as stack:
            try:
                # Whoever asks `is_active` holds the lock for a moment.
                stack.enter_context(held(self._lock_file, patience=0.5))
            except InUseError as error:
                who = f" ({error})" if str(error) else ""
                raise UserError(
                    f"the run folder {self.path} is in use by another process{who}; wait, stop it with "
                    f"'napari-autosegnet runs stop {self.path}', or choose another --run"
                ) from None
            except OSError as error:
                raise UserError(
                    f"cannot write in the run folder {self.path}: {error.strerror or error}; choose another --run"
                ) from error
            yield

    @property
    def is_active(self) -> bool:
        """Whether a process holds the run now."""
        return is_held(self._lock_file)

    @property
    def _lock_file(self) -> Path:
        self.file(".lock.holder")  # the marker that `locks` puts beside it where there are no locks
        return self.file(".lock")

    def report(self, event: Event) -> None:
        """Append an event to ``events.jsonl`` (a `Report`)."""
        try:
            append_line(self.events_file, format_event(event, datetime.now(UTC)))
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"cannot write {self.events_file}: {reason}; free some space or start a new run") from error

    def events(self) -> list[Event]:
        """All events so far; damaged lines, such as one cut short by a crash, are left out."""
        try:
            with open(self.events_file, "rb") as handle:
                lines = iter(lambda: handle.readline(_MAX_LINE), b"")
                return [event for line in lines if (event := parse_event(line)) is not None]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"cannot read {self.events_file}: {error.strerror or error}; start a new run") from error

    def request_file(self, what: Request) -> Path:
        return self.file("requests", what)

    def request(self, what: Request, content: str = "") -> None:
        """Ask the process that works in this run to pause, to stop and keep the best, to cancel, or to look at labels.

        Whatever was asked for under this name before is replaced.
        """
        write_atomically(self.request_file(what), content)

    def withdraw(self, *what: Request) -> None:
        """Take requests back: by default all but that for labels, which a job that is resumed still owes an answer."""
        for name in what or ("pause", "stop", "cancel"):
            self.request_file(name).unlink(missing_ok=True)

    def requested(self, what: Request) -> bool:
        return self.request_file(what).exists()

    def should_stop(self, interrupted: ShouldStop = never_stop) -> bool:
        """Whether a stop was asked for (a `ShouldStop`); waits here as long as a pause is asked for.

        ``interrupted`` is another way to ask for a stop, which ends the waiting too.
        """
        if self.requested("pause") and not interrupted():
            self.report(Paused())
            while self.requested("pause") and not (self.requested("stop") or self.requested("cancel") or interrupted()):
                time.sleep(0.1)
            self.report(Resumed())
        asked = self.requested("stop") or self.requested("cancel")
        # Asked last: a worker ends there when it is to be cancelled, and never takes that for a stop.
        return interrupted() or asked
