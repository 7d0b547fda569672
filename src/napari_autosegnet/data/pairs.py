"""Which labels belong to which image: told by the names of files, never by their order alone.

Each image must have one partner (see `name_matching`); everything else is refused, with what has none.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_autosegnet.data.images import ImageStack, folder_files, open_labels, open_selected
from napari_autosegnet.data.name_matching import check_order, is_label_name, matched
from napari_autosegnet.data.readers.formats import without_ending
from napari_autosegnet.data.selection import ALL, Selection
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import PairMatched
from napari_autosegnet.plain_text import counted, listed, natural_key

if TYPE_CHECKING:
    from napari_autosegnet.data.labeled_stacks import LabeledStack
    from napari_autosegnet.events import Report

#: Pairs that are reported.
_MAX_TOLD = 8


def open_pair(image: Path, labels: Path, read: Selection = ALL) -> tuple[ImageStack, ImageStack]:
    """Open an image and its labels, the sections of both in one order; see `paired_files`."""
    ours, theirs = paired_files(image, labels)
    opened = open_selected(image, read, ours)
    marks = _open_alike(labels, read.time_point, read.axes, theirs)
    if theirs is None and marks.path == opened.path:
        raise UserError(f"{labels} is given as an image and as its labels; give the labels that belong to it")
    return opened, marks


def _open_alike(labels: Path, time: int | None, axes: str | None, files: Sequence[Path] | None) -> ImageStack:
    """Labels of an image that is read at a time point, or with named axes; they may have fewer axes."""
    spatial = None if axes is None else axes.lower().replace("c", "")
    named = dict.fromkeys([axes, spatial, None if spatial is None else spatial.replace("t", ""), None])
    first: UserError | None = None
    for names in named:
        for point in dict.fromkeys([time, None]):
            try:
                return open_labels(labels, time=point, axes=names, files=files)
            except UserError as error:
                first = first or error
    assert first is not None
    raise first


def paired_files(image: Path, labels: Path) -> tuple[list[Path] | None, list[Path] | None]:
    """The files of two folders, those of the second in the order of their partners; None for anything else.

    One folder may hold both images and labels.

    Raises
    ------
    UserError
        When the names in the folders do not match one to one.
    """
    ours, theirs = folder_files(image), folder_files(labels)
    if ours is None or theirs is None:
        return None, None
    if image.resolve() == labels.resolve():
        ours, theirs = _apart(ours, image)
    names = ([without_ending(file.name) for file in files] for files in (ours, theirs))
    order = matched(*names, where=(image, labels))
    return ours, [theirs[index] for index in order]


def given_pairs(images: Sequence[Path], labels: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Images and the labels of each, in the order given.

    A path may be a pattern such as ``images/*.tif``; then pairs are found by the names. Otherwise the order given
    counts, unless the names contradict it.

    Raises
    ------
    UserError
        When there are not as many of one as of the other, no file matches a pattern, or the names say something else.
    """
    ours, theirs = ([file for path in paths for file in _expanded(path)] for paths in (images, labels))
    names = _list_names(ours), _list_names(theirs)
    if len(ours) > len(images) or len(theirs) > len(labels):
        order = matched(*names, where=(listed(images, 2), listed(labels, 2)))
        return ours, [theirs[index] for index in order]
    if len(ours) != len(theirs):
        counts = f"{counted(len(ours), 'image')} and {counted(len(theirs), 'label file')}"
        raise UserError(
            f"{counts} are given; give the labels of each image, in the same order, or two folders or patterns, whose "
            "files are paired by their names"
        )
    check_order(*names)
    return ours, theirs


def tell_pairs(stacks: Sequence[LabeledStack], report: Report) -> None:
    """Tell which labels were taken for which image: the first pairs, and how many there are."""
    ours, theirs = zip(*(_names_of(stack) for stack in stacks), strict=True) if stacks else ((), ())
    sides = (
        _with_folders([stack.image for stack in stacks], ours),
        _with_folders([stack.labels for stack in stacks], theirs),
    )
    pairs = list(zip(*sides, strict=True))
    for number, (image, labels) in enumerate(pairs[:_MAX_TOLD], start=1):
        more = len(pairs) - number if number == _MAX_TOLD else 0
        report(PairMatched(image=image, labels=labels, more=more))


def _with_folders(stacks: Sequence[ImageStack], names: Sequence[Sequence[str]]) -> list[str]:
    """All names of one side; with the folders in which they differ, where files of several images are called alike."""
    flat = [name for each in names for name in each]
    paths = [stack.path for stack in stacks if stack.path is not None]
    if len(set(flat)) == len(flat) or len(paths) < len(stacks):
        return flat
    places = [
        Path(place) if stack.section_names and path.is_dir() else Path(place).parent
        for place, stack, path in zip(_list_names(paths), stacks, paths, strict=True)
    ]
    return [(place / name).as_posix() for place, each in zip(places, names, strict=True) for name in each]


def _names_of(stack: LabeledStack) -> tuple[Sequence[str], Sequence[str]]:
    """Names of the files of a pair, as many of each side; of every section's where each is a file."""
    ours, theirs = (
        each.section_names or (each.path.name if each.path is not None else each.name,)
        for each in (stack.image, stack.labels)
    )
    if len(ours) == len(theirs):
        return ours, theirs
    # A folder beside a file with as many pages.
    count = max(len(ours), len(theirs))
    return _paged(ours, count), _paged(theirs, count)


def _paged(names: Sequence[str], count: int) -> Sequence[str]:
    return names if len(names) == count else [f"page {page} of {names[0]}" for page in range(count)]


def _expanded(path: Path) -> list[Path]:
    """The files that a pattern fits; the path itself if it is none."""
    if path.exists() or not glob.has_magic(str(path)):
        return [path]
    files = [Path(each) for each in glob.glob(str(path), recursive=True)]
    if not files:
        raise UserError(f"no file matches '{path}'; check the pattern")
    return sorted(files, key=lambda file: natural_key(str(file)))


def _list_names(paths: Sequence[Path]) -> list[str]:
    """Names of listed files, with those of the folders in which they differ."""
    folders = [path.absolute().parent for path in paths]
    shared = os.path.commonpath(folders) if folders else ""
    return [
        (folder.relative_to(shared) / without_ending(path.name)).as_posix()
        for folder, path in zip(folders, paths, strict=True)
    ]


def _apart(files: Sequence[Path], folder: Path) -> tuple[list[Path], list[Path]]:
    """Images and labels of one folder, by the words in their names."""
    labels = [file for file in files if is_label_name(without_ending(file.name))]
    images = [file for file in files if file not in labels]
    if not images or not labels:
        raise UserError(
            f"{folder} is given for images and labels; name its label files so that they can be told from images, "
            "for example cell1.tif and cell1_mask.tif, or put them into a folder of their own"
        )
    return images, labels
