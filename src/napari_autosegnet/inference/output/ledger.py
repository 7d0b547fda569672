"""Which blocks of a result are done, and of what model, input and settings.

``<store>.ledger.jsonl`` lies beside the result, or beside the outermost Zarr around it: readers of the store never
meet it, and the store is the same bytes whether the run was interrupted or not. Its first line holds the
fingerprint, every further line one finished block, written after the block's data is safely on the disk. A store
cannot tell by itself: a finished block of background leaves no chunk. So a line says what its block left on the disk,
too, and is believed only as long as that is still there. Each line has a checksum: one that was damaged is as if it had
never been written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from napari_autosegnet.data.identity import same_identity
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Note, Report
from napari_autosegnet.files import write_atomically
from napari_autosegnet.inference.compute.faint import FaintRun
from napari_autosegnet.inference.output.places import Part
from napari_autosegnet.locks import InUseError, held
from napari_autosegnet.ome_zarr.paths import zarrs_around

Status = Literal["done", "skipped"]

FORMAT = "napari-autosegnet/ledger"
VERSION = 2
#: Threads that look at what is on the disk, and blocks that each takes at a time.
_THREADS = 16
_BATCH = 500


@dataclass(frozen=True)
class Entry:
    """A finished block: how, and which files it left (see `napari_autosegnet.inference.output.output.Output.written`).

    ``blank`` are its sections that have one gray value throughout, which were left 0; ``faint`` show next to
    nothing in it.
    """

    status: Status
    files: int
    blank: tuple[int, ...] = ()
    faint: tuple[FaintRun, ...] = ()


class Ledger:
    """An open ledger; `Ledger.open` checks that it belongs to the run that is to continue.

    Parameters
    ----------
    path : Path
        The ledger's file.
    parts : Mapping[str, Any]
        JSON-able identity per part ("model", "image", "settings", ...).

    Attributes
    ----------
    fingerprint : str
        SHA-256 over all parts.
    damaged : int
        Lines that could not be read; their blocks count as not done.
    """

    def __init__(self, path: Path, parts: Mapping[str, Any]) -> None:
        self.path = path
        self.parts: dict[str, Any] = json.loads(json.dumps(dict(parts)))
        self.fingerprint = _fingerprint(self.parts)
        self.damaged = 0
        self._entries: dict[int, dict[int, Entry]] = {}

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
        header = {"format": FORMAT, "version": VERSION, "fingerprint": ledger.fingerprint, "parts": ledger.parts}
        write_atomically(path, json.dumps(header) + "\n")
        sync_folder(path.parent)
        return ledger

    @classmethod
    def look(cls, path: Path) -> Ledger | None:
        """The ledger of a run, which may be writing it; None where there is none, or a damaged one."""
        parts = cls.parts_of(path)
        if not parts:
            return None
        ledger = cls(path, parts)
        ledger._read(mend=False)
        return ledger

    @staticmethod
    def parts_of(path: Path) -> dict[str, Any]:
        """Identity per part that a ledger was begun with; empty when there is none, or a damaged one."""
        try:
            with open(path, "rb") as handle:
                header = json.loads(handle.readline())
            parts = dict(header["parts"])
            return parts if header["fingerprint"] == _fingerprint(parts) else {}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return {}

    @classmethod
    def settings_of(cls, path: Path) -> dict[str, Any]:
        """Settings among them."""
        settings = cls.parts_of(path).get("settings")
        return settings if isinstance(settings, dict) else {}

    def finished(self, level: int = 0) -> dict[int, Status]:
        """Finished blocks of a pyramid level by their number."""
        return {block: entry.status for block, entry in self._entries.get(level, {}).items()}

    def is_finished(self, block: int, level: int = 0) -> bool:
        """Whether a block of a pyramid level is finished."""
        return block in self._entries.get(level, {})

    def forget(self, level: int) -> None:
        """Forget the blocks of a level until they are recorded again."""
        self._entries.pop(level, None)

    def forget_lost(self, written: Callable[[int, int], int], report: Report) -> None:
        """Forget the blocks of which a file is no longer on the disk.

        What somebody added or changed there is not looked at: it may be the work of hours.

        Parameters
        ----------
        written
            Tells which files of a block (level, number) are there. It is called in several threads, as a look at a
            network takes long.
        report
            Is told a ``note`` about blocks that are computed again.
        """
        lost = {level: self._lost(level, written) for level in self._entries}
        for level, blocks in lost.items():
            for block in blocks:
                del self._entries[level][block]
        # Levels below 0 are of what is not kept.
        count = sum(len(blocks) for level, blocks in lost.items() if level >= 0)
        if count:
            report(Note(text=f"{count} finished blocks are no longer on the disk; they are computed again"))
        if self.damaged:
            report(Note(text=f"{self.path} has damaged lines ({self.damaged}); their blocks are computed again"))

    def _lost(self, level: int, written: Callable[[int, int], int]) -> list[int]:
        entries = self._entries[level]
        blocks = tuple(entries)

        def lost_of(begin: int) -> list[int]:
            return [block for block in blocks[begin : begin + _BATCH] if entries[block].files & ~written(level, block)]

        with ThreadPoolExecutor(_THREADS) as pool:
            return [block for some in pool.map(lost_of, range(0, len(blocks), _BATCH)) for block in some]

    @property
    def blank_sections(self) -> list[int]:
        """Sections that were left 0 because they have one gray value throughout, in this run and those before."""
        return sorted({section for entry in self._entries.get(0, {}).values() for section in entry.blank})

    def faint_runs(self) -> dict[int, tuple[FaintRun, ...]]:
        """Which sections show next to nothing in each finished block, by its number."""
        return {block: entry.faint for block, entry in self._entries.get(0, {}).items()}

    def record(
        self,
        block: int,
        status: Status,
        *,
        level: int = 0,
        files: int = 0,
        blank: Sequence[int] = (),
        faint: Sequence[FaintRun] = (),
    ) -> None:
        """Note a finished block; its data must be on the disk by now.

        Raises
        ------
        OSError
            When the disk is full; the block then counts as not done.
        """
        entry: dict[str, Any] = {"level": level, "block": block, "status": status, "files": f"{files:x}"}
        if blank:
            entry["blank"] = list(blank)
        if faint:
            entry["faint"] = [list(run) for run in faint]
        line = json.dumps({**entry, "sum": self._checksum(entry)}) + "\n"
        with open(self.path, "ab") as handle:
            handle.write(line.encode())
            handle.flush()
            os.fsync(handle.fileno())
        self._entries.setdefault(level, {})[block] = Entry(status, files, tuple(blank), tuple(faint))

    def _checksum(self, entry: Mapping[str, Any]) -> str:
        """Of a line; other ledgers have others."""
        return hashlib.sha256((self.fingerprint + json.dumps(entry)).encode()).hexdigest()[:16]

    def _read(self, *, mend: bool = True) -> None:
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror or error}") from error
        header, *lines = content.split(b"\n")
        self._check(header)
        torn = lines.pop() if lines else b""
        if torn and mend:
            # By a crash or a full disk. The next line must not be glued to it.
            os.truncate(self.path, len(content) - len(torn))
        for line in lines:
            try:
                entry = json.loads(line)
                if entry.pop("sum") != self._checksum(entry):
                    raise ValueError
                faint = tuple(FaintRun(*run) for run in entry.get("faint", ()))
                known = Entry(entry["status"], int(entry["files"], 16), tuple(entry.get("blank", ())), faint)
                self._entries.setdefault(entry["level"], {})[entry["block"]] = known
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                self.damaged += 1

    def _check(self, header: bytes) -> None:
        again = "give another --out, or start again with --overwrite"
        try:
            content = json.loads(header)
            parts = dict(content["parts"])
            intact = content.get("fingerprint") == _fingerprint(parts)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{self.path} is damaged; {again}") from error
        if content.get("format") != FORMAT or content.get("version") != VERSION:
            raise UserError(f"{self.path} was written by another version of napari-autosegnet; {again}")
        if not intact:
            raise UserError(f"{self.path} is damaged; {again}")
        names = {**self.parts, **parts}
        differing = [name for name in names if not same_identity(parts.get(name), self.parts.get(name))]
        if differing:
            what = "; ".join(_difference(name, parts.get(name), self.parts.get(name)) for name in differing)
            raise UserError(f"the result beside {self.path} was made differently ({what}); {again}")
        # Samples that could not be read may differ, and the lines' checksums are those of the first run.
        self.parts, self.fingerprint = parts, content["fingerprint"]


def _fingerprint(parts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


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


def object_table_path(store: Path) -> Path:
    """The table of a store's numbered objects."""
    return _beside(_record_name(store), "{}.objects.csv")


def edit_log_path(store: Path) -> Path:
    """The log of edits of a store's numbered objects."""
    return _beside(_record_name(store), "{}.edits.jsonl")


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
