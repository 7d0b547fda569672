"""PNG, JPEG and BMP, and folders of images: a file is a section."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.readers.tiff import TIFF_SUFFIXES, TiffRequest, open_tiff
from napari_autosegnet.data.stack import (
    Array,
    ImageStack,
    natural_key,
    stem,
)
from napari_autosegnet.errors import UserError

#: Decoded sections that are kept for the next read take no more memory than this, unless one alone does.
KEPT_BYTES = 2**30

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp"})


def image_files(folder: Path) -> list[Path]:
    """The pictures in a folder, in natural order of their names.

    Raises
    ------
    UserError
        When there are none.
    """
    files = [
        file
        for file in folder.iterdir()
        if file.suffix.lower() in TIFF_SUFFIXES | PICTURE_SUFFIXES and not file.name.startswith(".")
    ]
    if not files:
        inside = sorted((each.name for each in folder.iterdir() if each.is_dir()), key=natural_key)
        such_as = f"; give one of the folders in it: {', '.join(inside[:6])}" if inside else ""
        raise UserError(f"the folder {folder} holds no TIFF, PNG, JPEG or BMP image and is no Zarr store{such_as}")
    return sorted(files, key=lambda file: natural_key(file.name))


@dataclass
class _FilesSource:
    """One file per section, decoded as a whole. Blocks are read one by one, so what one read decodes is kept."""

    paths: Sequence[Path]
    labels: bool
    _kept: dict[int, Array] = field(default_factory=dict, repr=False)

    def read(self, z: slice, y: slice, x: slice) -> Array:
        wanted = range(z.start, z.stop)
        kept = {index: section for index, section in self._kept.items() if index in wanted}
        self._kept = {}  # the others leave the memory before more come
        free = KEPT_BYTES - sum(section.nbytes for section in kept.values())
        out: Array | None = None
        for place, index in enumerate(wanted):
            section = kept[index] if index in kept else self._decode(index)
            if index not in kept and (not kept or section.nbytes <= free):
                kept[index] = section
                free -= section.nbytes
            part = section[:, y, x]
            if out is None:
                out = np.empty((len(part), len(wanted), *part.shape[1:]), part.dtype)
            out[:, place] = part
        assert out is not None
        self._kept = kept  # as a whole, and never changed again: several threads may read
        return out

    def files(self) -> Sequence[Path]:
        return self.paths

    def _decode(self, index: int) -> Array:
        file = self.paths[index]
        if file.suffix.lower() in TIFF_SUFFIXES:
            return open_tiff(TiffRequest(file, labels=self.labels, alone=True)).section(0)
        return _read_picture(file, labels=self.labels)


def stack_of_files(files: Sequence[Path], path: Path, *, is_2d: bool, labels: bool) -> ImageStack:
    shapes, kinds = [], []
    notes: list[str] = []
    for file in files:
        if file.suffix.lower() in TIFF_SUFFIXES:
            single = open_tiff(TiffRequest(file, labels=labels, alone=True))
            if single.sections > 1:
                raise UserError(f"{file} has {single.sections} pages; a folder holds one section per file")
            notes.extend(single.notes)
            shapes.append(single.section_shape(0))
            kinds.append((single.channels, single.dtype))
        else:
            shape, channels, dtype = _describe_picture(file, labels=labels)
            shapes.append(shape)
            kinds.append((channels, dtype))
    for file, kind in zip(files, kinds, strict=True):
        if kind != kinds[0]:
            first, other = (f"{dtype} with {channels} channels" for channels, dtype in (kinds[0], kind))
            raise UserError(f"{file.name} is {other}, {files[0].name} is {first}; give images of one kind in {path}")
    largest = max(height * width for height, width in shapes) * kinds[0][0] * kinds[0][1].itemsize
    return ImageStack(
        _FilesSource(files, labels),
        name=stem(path),
        path=path,
        shapes=shapes,
        channels=kinds[0][0],
        dtype=kinds[0][1],
        is_2d=is_2d,
        # Half of what is kept: neighbours that a model looks at come on top.
        sections_at_once=max(1, KEPT_BYTES // 2 // max(1, largest)),
        section_names=tuple(file.stem for file in files),
        notes=notes,
    )


def _picture_mode(mode: str, *, labels: bool) -> tuple[str | None, int, npt.DTypeLike]:
    """What a Pillow mode is turned into (None: read as it is), its channels and pixel type."""
    if mode == "P":
        # In a label picture the palette only colours the class numbers.
        return (None, 1, np.uint8) if labels else ("RGB", 3, np.uint8)
    if mode == "1":
        return None, 1, np.uint8
    if mode in ("L", "LA", "La"):
        return (None if mode == "L" else "L"), 1, np.uint8
    if mode.startswith("I;16"):
        return None, 1, np.uint16
    if mode in ("I", "F"):
        return None, 1, np.int32 if mode == "I" else np.float32
    return (None if mode == "RGB" else "RGB"), 3, np.uint8


def _describe_picture(file: Path, *, labels: bool) -> tuple[tuple[int, int], int, np.dtype[Any]]:
    from PIL import Image

    with warnings.catch_warnings():
        # Sections of more than 90 megapixels are ordinary here, not an attack.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(file) as picture:
                _, channels, dtype = _picture_mode(picture.mode, labels=labels)
                return (picture.height, picture.width), channels, np.dtype(dtype)
        except Image.DecompressionBombError as error:
            raise UserError(f"{file} is too large for a picture file; save it as TIFF or Zarr") from error


def _read_picture(file: Path, *, labels: bool) -> Array:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(file) as picture:
            mode, channels, dtype = _picture_mode(picture.mode, labels=labels)
            found = np.asarray(picture.convert(mode) if mode else picture).astype(dtype, copy=False)
    return np.moveaxis(found, -1, 0) if channels > 1 else found[np.newaxis]
