"""Edits of numbered objects, and the log that keeps them: append-only, one JSON line for each.

What is undone stays in the log; undoing is a line, too. A line that a crash tore is left out: nobody was told that it
was kept.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from napari_autosegnet.errors import UserError
from napari_autosegnet.files import append_line, refuse_pipe
from napari_autosegnet.inference.blocks import Shape
from napari_autosegnet.inference.output.arrays import sync_file
from napari_autosegnet.inference.output.ledger import locked, sync_folder

VERSION = 1
#: Voxels of the largest box within which an object is split; it bounds the memory.
MAX_SPLIT = 2**26

Number = Annotated[int, Field(gt=0)]
Place = Annotated[int, Field(ge=0)]


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Header(_Line):
    """The first line: which objects the edits are of, and the digest of the table that they had then."""

    format: Literal["napari-autosegnet/edits"] = "napari-autosegnet/edits"
    version: int = VERSION
    objects: str
    table: str = ""


class Merge(_Line):
    """Several objects are one, which has the number of the first."""

    edit: Literal["merge"] = "merge"
    objects: Annotated[tuple[Number, ...], Field(min_length=2)]


class Delete(_Line):
    """Objects are background."""

    edit: Literal["delete"] = "delete"
    objects: Annotated[tuple[Number, ...], Field(min_length=1)]


class Split(_Line):
    """A part of an object is another one, with a number that no other has or had.

    ``mask`` says which voxels of the box at ``start`` that are: bits, compressed with zlib, in base64.
    """

    edit: Literal["split"] = "split"
    object: Number
    new: Number
    start: tuple[Place, Place, Place]
    shape: tuple[Number, Number, Number]
    mask: str

    @classmethod
    def of(cls, number: int, new: int, mask: npt.NDArray[np.bool_], start: Sequence[int]) -> Split:
        """A split, given the mask (z, y, x) of its new part; only the box around that is kept."""
        places = np.argwhere(mask)
        low, high = places.min(axis=0), places.max(axis=0) + 1
        inner = mask[tuple(slice(*span) for span in zip(low, high, strict=True))]
        z, y, x = (int(value) for value in low + np.array(start))
        text = base64.b64encode(zlib.compress(np.packbits(inner).tobytes())).decode()
        return cls(object=number, new=new, start=(z, y, x), shape=inner.shape, mask=text)

    @property
    def part(self) -> npt.NDArray[np.bool_]:
        """The voxels (z, y, x) of the box that the new object has."""
        return _decoded(self.mask, self.shape)

    @model_validator(mode="after")
    def _has_its_voxels(self) -> Split:
        if math.prod(self.shape) > MAX_SPLIT:
            raise ValueError("the box is too large")
        _decoded(self.mask, self.shape)
        return self


class Undo(_Line):
    edit: Literal["undo"] = "undo"


class Redo(_Line):
    edit: Literal["redo"] = "redo"


Change = Merge | Delete | Split
_PARSER: TypeAdapter[Header | Change | Undo | Redo] = TypeAdapter(
    Header | Annotated[Merge | Delete | Split | Undo | Redo, Field(discriminator="edit")]
)


class EditLog:
    """The edits of a store's objects.

    Parameters
    ----------
    path : Path
        The log; it is made with the first edit.
    objects : str
        What tells the objects from others.
    table : str
        Digest of their table, which tells the same sooner.

    Attributes
    ----------
    done, undone : list of Change
        Edits that apply, and those that can be done again, the next one last.
    highest : int
        The highest number that any edit names: the next part gets a higher one.
    notes : tuple of str
        What could not be read.

    Raises
    ------
    UserError
        When the log is of other objects, or cannot be read.
    """

    done: list[Change]
    undone: list[Change]
    highest: int
    notes: tuple[str, ...]
    _known: int  # bytes of the file
    _has_header: bool

    def __init__(self, path: Path, objects: str, table: str = "") -> None:
        self.path = path
        self._objects, self._table = objects, table
        self._read()

    @classmethod
    def of_table(cls, path: Path, table: str) -> EditLog | None:
        """A log whose edits are of the objects of a table, to be read only; None where its digest does not say that."""
        try:
            log = cls(path, "", table)
        except UserError:
            return None
        return log

    def append(self, edit: Change | Undo | Redo) -> None:
        """Write an edit and wait until it is on the disk.

        Raises
        ------
        UserError
            When the disk is full, or another window or process edited the objects meanwhile.
        """
        with locked(self.path):
            if self._size() != self._known:
                self._read()
                raise UserError("these objects were edited elsewhere meanwhile; look at them again, then edit them")
            try:
                if not self._has_header:
                    append_line(self.path, Header(objects=self._objects, table=self._table).model_dump_json())
                append_line(self.path, edit.model_dump_json())
                sync_file(self.path)
                sync_folder(self.path.parent)
            except OSError as error:
                raise UserError(f"cannot write {self.path}: {error.strerror or error}; free some space") from error
            self._has_header = True
            self._known = self._size()
            self._take(edit)

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def _read(self) -> None:
        self.done, self.undone, self.highest, self.notes = [], [], 0, ()
        self._known, self._has_header = 0, False
        refuse_pipe(self.path, "delete it")
        if not self.path.exists():
            return
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror or error}; check its permissions") from error
        self._known = len(content)
        for number, line in enumerate(content.splitlines(), start=1):
            try:
                entry = _PARSER.validate_json(line)
            except ValidationError:
                if line:
                    self.notes += (f"line {number} of {self.path} is damaged or cut off; its edit is left out",)
                continue
            if isinstance(entry, Header):
                self._check(entry)
                self._has_header = True
            else:
                self._take(entry)
        if (self.done or self.undone) and not self._has_header:
            raise UserError(f"the first line of {self.path} is lost, so it is not known whose edits these are; move it")

    def _check(self, header: Header) -> None:
        if header.version > VERSION:
            raise UserError(f"{self.path} is of a newer version of this program; update it")
        if header.objects != self._objects and (not self._table or header.table != self._table):
            raise UserError(
                f"the edits in {self.path} are of other objects than those that are there now; move the file away"
            )

    def _take(self, edit: Change | Undo | Redo) -> None:
        if isinstance(edit, Undo | Redo):
            source, target = (self.done, self.undone) if isinstance(edit, Undo) else (self.undone, self.done)
            if source:
                target.append(source.pop())
            return
        self.highest = max(self.highest, *((edit.new,) if isinstance(edit, Split) else edit.objects))
        self.done.append(edit)
        self.undone.clear()


@lru_cache(maxsize=256)
def _decoded(text: str, shape: Shape) -> npt.NDArray[np.bool_]:
    count = math.prod(shape)
    try:
        decoder = zlib.decompressobj()
        content = decoder.decompress(base64.b64decode(text, validate=True), -(-count // 8))
    except (ValueError, zlib.error) as error:
        raise ValueError("the mask is damaged") from error
    if len(content) != -(-count // 8):
        raise ValueError("the mask is cut off")
    mask = np.unpackbits(np.frombuffer(content, np.uint8), count=count).astype(bool).reshape(shape)
    mask.setflags(write=False)
    return mask
