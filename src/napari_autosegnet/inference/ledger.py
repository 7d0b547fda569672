"""Which blocks of a result are done, and of what model, input and settings.

``<store>.ledger.jsonl`` lies beside the result, or beside the outermost Zarr around it: readers of the store never
meet it, and the store is the same bytes whether the run was interrupted or not. Its first line holds the
fingerprint, every further line one finished block, written after the block's data is safely on the disk. A store
cannot tell by itself: a finished block of background leaves no chunk.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, get_args

from napari_autosegnet.data.identity import same_identity
from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.places import Part, zarrs_around
from napari_autosegnet.locks import InUseError, held
from napari_autosegnet.run import write_atomically

Status = Literal["done", "skipped"]

FORMAT = "napari-autosegnet/ledger"
VERSION = 1


class Ledger:
    """An open ledger; `Ledger.open` checks that it belongs to the run that is to go on.

    Parameters
    ----------
    path : Path
        The ledger's file.
    parts : Mapping[str, Any]
        JSON-able identity per part ("model", "image", "settings", ...).
    """

    def __init__(self, path: Path, parts: Mapping[str, Any]) -> None:
        self.path = path
        self.parts: dict[str, Any] = json.loads(json.dumps(dict(parts)))
        self._finished: dict[int, dict[int, Status]] = {}

    @classmethod
    def open(cls, path: Path, parts: Mapping[str, Any]) -> Ledger:
        """Open the ledger of an earlier run, or begin one.

        Raises
        ------
        UserError
            When the ledger belongs to another model, input or settings (it says which differ), or is damaged.
        """
        if not path.exists():
            return cls.begin(path, parts)
        ledger = cls(path, parts)
        ledger._read()
        return ledger

    @classmethod
    def begin(cls, path: Path, parts: Mapping[str, Any]) -> Ledger:
        """Begin a ledger, in the place of an earlier one if there is one."""
        ledger = cls(path, parts)
        ledger.restart()
        return ledger

    @staticmethod
    def parts_of(path: Path) -> dict[str, Any]:
        """Identity per part that a ledger was begun with; empty when there is none, or a damaged one."""
        try:
            with open(path, "rb") as handle:
                return dict(json.loads(handle.readline())["parts"])
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    @classmethod
    def settings_of(cls, path: Path) -> dict[str, Any]:
        """Settings among them."""
        found = cls.parts_of(path).get("settings")
        return found if isinstance(found, dict) else {}

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all parts."""
        return hashlib.sha256(json.dumps(self.parts, sort_keys=True).encode()).hexdigest()

    def finished(self, level: int = 0) -> dict[int, Status]:
        """Finished blocks of a pyramid level by their number."""
        return self._finished.setdefault(level, {})

    def restart(self) -> None:
        """Forget every block."""
        self._finished.clear()
        header = {"format": FORMAT, "version": VERSION, "fingerprint": self.fingerprint, "parts": self.parts}
        write_atomically(self.path, json.dumps(header) + "\n")
        sync_folder(self.path.parent)

    def record(self, block: int, status: Status, *, level: int = 0) -> None:
        """Note a finished block; its data must be on the disk by now.

        Raises
        ------
        OSError
            When the disk is full; the block then counts as not done.
        """
        line = json.dumps({"level": level, "block": block, "status": status}) + "\n"
        with open(self.path, "ab") as handle:
            handle.write(line.encode())
            handle.flush()
            os.fsync(handle.fileno())
        self.finished(level)[block] = status

    def _read(self) -> None:
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror or error}") from error
        header, *lines = content.split(b"\n")
        self._check(header)
        intact = len(header) + 1
        for line in lines[:-1]:
            try:
                entry = json.loads(line)
                if entry["status"] not in get_args(Status):
                    raise ValueError(entry["status"])
                self.finished(int(entry["level"]))[int(entry["block"])] = entry["status"]
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                break  # torn by a crash or a full disk; what follows was never promised
            intact += len(line) + 1
        if intact < len(content):
            # The next line must not be glued to the torn one.
            os.truncate(self.path, intact)

    def _check(self, header: bytes) -> None:
        again = "give another --out, or start again with --overwrite"
        try:
            found = json.loads(header)
            parts = dict(found["parts"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{self.path} is damaged; {again}") from error
        if found.get("format") != FORMAT or found.get("version") != VERSION:
            raise UserError(f"{self.path} was written by another version of napari-autosegnet; {again}")
        differing = [
            name for name in {**self.parts, **parts} if not same_identity(parts.get(name), self.parts.get(name))
        ]
        if differing:
            what = "; ".join(_difference(name, parts.get(name), self.parts.get(name)) for name in differing)
            raise UserError(f"the result beside {self.path} was made differently ({what}); {again}")


def written_parts(path: Path) -> frozenset[Part]:
    """What the run of a ledger wrote: nothing where there is no ledger, labels at least where it is damaged."""
    if not path.exists():
        return frozenset()
    asked = Ledger.settings_of(path)
    more: tuple[Part, ...] = ("probabilities", "instances")
    return frozenset(["labels", *(part for part in more if asked.get(part))])


def ledger_path(store: Path) -> Path:
    """The ledger of a store or file: beside it, or beside the outermost Zarr that it lies in."""
    return _beside(_record_name(store), "{}.ledger.jsonl")


def instance_ledger_path(store: Path) -> Path:
    """The ledger of a store's numbered objects."""
    return _beside(_record_name(store), "{}.instances.ledger.jsonl")


def scratch_path(store: Path) -> Path:
    """The folder for what is needed until a store's objects are numbered."""
    return _beside(_record_name(store), ".{}.instances")


def _record_name(store: Path) -> Path:
    """What a store's records are called after, and beside which they lie: one name whatever links lead there."""
    store = store.resolve()
    around = zarrs_around(store)
    if not around:
        return store
    inner = store.relative_to(around[-1])
    return around[-1].with_name(".".join((around[-1].name, *inner.parts)))


def _beside(store: Path, pattern: str) -> Path:
    return store.with_name(pattern.format(store.name))


@contextmanager
def locked(*places: Path) -> Iterator[None]:
    """Hold the places of a result for this process.

    Raises
    ------
    UserError
        When another process writes there.
    """
    with ExitStack() as stack:
        for place in places:
            file = _beside(_record_name(place), ".{}.lock")
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(held(file))
            except InUseError as error:
                who = f" ({error})" if str(error) else ""
                raise UserError(
                    f"another process is writing {place}{who}; wait for it, or give another --out"
                ) from None
            except OSError as error:
                raise UserError(
                    f"cannot write beside {place}: {error.strerror or error}; give another --out"
                ) from error
        yield


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power failure (where the system can)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def program_version() -> str:
    try:
        return version("napari-autosegnet")
    except PackageNotFoundError:
        return "unknown"


def _difference(name: str, old: Any, new: Any) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        changed = [key for key in {**old, **new} if not same_identity({key: old.get(key)}, {key: new.get(key)})]
        if name == "settings":
            return ", ".join(f"{key} was {old.get(key)}, now {new.get(key)}" for key in changed)
        return f"another {name}: {', '.join(changed)} differ"
    if name == "model":
        return "another model"
    return f"{name} was {old}, now {new}"
