"""Files that a crash leaves whole, and paths that are none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from napari_autosegnet.addresses import address_of, on_disk
from napari_autosegnet.errors import UserError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a crash at any moment leaves the old content or the new one.

    Raises
    ------
    UserError
        When the disk is full or the place cannot be written.
    """
    with replacing(path) as temporary:
        if isinstance(content, str):
            temporary.write_text(content, encoding="utf-8")
        else:
            temporary.write_bytes(content)


@contextmanager
def replacing(path: Path, keep: Path | None = None) -> Iterator[Path]:
    """Give a temporary path beside ``path``; it is synced and renamed to ``path`` at the end.

    What was there before is kept as ``keep``, if that is given.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def refuse_unwritable(path: Path) -> None:
    """Refuse a file that `replacing` could not write, before the work that takes long; no folder is made.

    Raises
    ------
    UserError
        When its folder, or the one that this would be made in, takes no file of that name.
    """
    refuse_address(path, "files are written to a disk; give a path")
    around = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    trial = around / _temporary(path).name
    try:
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot write {path}: {error.strerror or error}; free some space or choose another folder")


def relative(path: Path, folder: Path) -> str:
    """A path inside a folder as seen from it, so that the folder can be moved; others as they are."""
    inside = path.is_relative_to(folder.absolute())
    return Path(os.path.relpath(path, folder.absolute())).as_posix() if inside else str(path)


def append_line(path: Path, line: str) -> None:
    """Append a line to a file, which is made if it is missing.

    What a crash or a full disk left of the last line is ended first, or the new one would be glued to it and lost.
    """

    def open_no_link(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)

    with open(path, "a+b", opener=open_no_link) as handle:
        is_torn = False
        if handle.seek(0, os.SEEK_END):
            handle.seek(-1, os.SEEK_END)
            is_torn = handle.read(1) != b"\n"
        handle.write((b"\n" if is_torn else b"") + line.encode() + b"\n")


def refuse_pipe(path: Path, advice: str) -> None:
    """Refuse a pipe or a device, whose end may never come.

    Raises
    ------
    UserError
        When it is one; it ends in the advice.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{path} is not a file but a pipe or a device; {advice}")


def refuse_foreign(path: Path, is_own: Callable[[bytes], bool]) -> None:
    """Refuse to replace what is not a file of this program, which its content tells.

    Raises
    ------
    UserError
        When something else is there, or a file that cannot be read.
    """
    if not os.path.lexists(path):
        return
    try:
        may_go = is_own(path.read_bytes())
    except OSError:
        may_go = False
    if not may_go:
        raise UserError(f"{path} exists and was not written by this program; choose another name")


def refuse_inside(path: Path, source: Path | None) -> None:
    """Refuse to write into a folder of images, or a store, that is read: it would become one of them.

    Raises
    ------
    UserError
        When the path lies in it.
    """
    if source is not None and source.is_dir() and source.resolve() in path.resolve().parents:
        raise UserError(f"{path} lies in {source}, which is read; choose another folder")


def refuse_address(path: Path, advice: str) -> None:
    """Refuse what is to be written to an address such as ``s3://`` or ``file://``, of which a folder would be made.

    Raises
    ------
    UserError
        When it is one; it ends in the advice.
    """
    address = address_of(path)
    if address is not None:
        raise UserError(f"{address} is an address, and {advice}")
    if on_disk(path) != path:
        raise UserError(f"{on_disk(path).as_uri()} is an address; give the path {on_disk(path)}")
