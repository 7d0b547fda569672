"""Which names belong together, such as ``cell1.tif`` and ``cell1_mask.tif``.

Names are compared without what all of one side share ("img_", "_mask", "_0000") and without words that say what kind
of picture a file holds.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from napari_autosegnet.errors import UserError
from napari_autosegnet.plain_text import listed

#: Words in the names of label files, and of image files.
_LABEL_WORDS = (
    "masks?|labels?|lbls?|segs?|segmentations?|gt|ground[ _-]?truth|truth|annotations?|annot|"
    "classes|instances?|targets?"
)
_IMAGE_WORDS = "images?|img|im|raw|data"
_LABEL_WORD = re.compile(rf"(?<![a-z])(cp[ _-])?({_LABEL_WORDS})(?![a-z])")
_WORD = re.compile(rf"(?<![a-z])(cp[ _-])?({_LABEL_WORDS}|{_IMAGE_WORDS})(?![a-z])")
_SEPARATORS = re.compile(r"[\s_.-]+")
_NUMBER = re.compile(r"\d+")
#: Names that a message shows.
_MAX_SHOWN = 6


def matched(images: Sequence[str], labels: Sequence[str], *, where: tuple[object, object]) -> list[int]:
    """For each image the index of its labels, by their names.

    Parameters
    ----------
    images, labels : sequence of str
        Names without the files' endings.
    where
        Where images and labels lie; for the error.

    Raises
    ------
    UserError
        When not every name has one partner on the other side.
    """
    best: tuple[list[str], list[str]] | None = None
    for ours, theirs in _keys(images, labels):
        if len(set(ours)) < len(ours) or len(set(theirs)) < len(theirs):
            continue
        if set(ours) == set(theirs):
            place = {key: index for index, key in enumerate(theirs)}
            return [place[key] for key in ours]
        if best is None or len(set(ours) & set(theirs)) > len(set(best[0]) & set(best[1])):
            best = ours, theirs
    if len(images) == len(labels) == 1 and not _contradict(_numbers(images[0]), _numbers(labels[0])):
        return [0]
    raise UserError(f"the names in {where[0]} and {where[1]} do not pair: {_lonely(images, labels, best)}")


def check_order(images: Sequence[str], labels: Sequence[str]) -> None:
    """Refuse lists of which the names say that something else belongs together."""
    for ours, theirs in _keys(images, labels):
        if len(set(ours)) < len(ours) or len(set(theirs)) < len(theirs):
            continue
        place = {key: index for index, key in enumerate(theirs)}
        for index, key in enumerate(ours):
            if place.get(key, index) != index:
                raise UserError(
                    f"'{images[index]}' is given with the labels '{labels[index]}', but by their names "
                    f"'{labels[place[key]]}' belong to it; give the labels in the order of the images"
                )
        if set(ours) == set(theirs):
            return


def partners(names: Sequence[str], table: Sequence[str]) -> list[int | None]:
    """For each name its index in a longer list of names; None where none, or more than one, fits."""
    for key in (str, _folded, _plain):
        places: dict[str, list[int]] = {}
        for index, name in enumerate(table):
            places.setdefault(key(name), []).append(index)
        places.pop("", None)  # of "image" and "labels" nothing is left
        known = [places.get(key(name), []) for name in names]
        if all(len(each) == 1 for each in known):
            return [each[0] for each in known]
    return [each[0] if len(each) == 1 else None for each in known]


def is_label_name(name: str) -> bool:
    """Whether a word in the name of a file says that it holds labels."""
    return _LABEL_WORD.search(name.casefold()) is not None


def _keys(images: Sequence[str], labels: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    """What is compared of the names, from the whole names to their hearts."""
    keys = [(list(images), list(labels))]
    for simpler in (_folded, lambda name: _unpadded(_folded(name)), _plain):
        sides = [[simpler(name) for name in side] for side in (images, labels)]
        keys.append((sides[0], sides[1]))
        affixes = [_affixes(side) for side in sides]
        # "scan1_" and "scan2_" are no two words for one thing.
        if not any(_contradict(_numbers(one), _numbers(other)) for one, other in zip(*affixes, strict=True)):
            ours, theirs = (
                [name[len(before) : len(name) - len(after)].strip("_") for name in side]
                for side, (before, after) in zip(sides, affixes, strict=True)
            )
            keys.append((ours, theirs))
    return keys


def _folded(name: str) -> str:
    """Without capitals; macOS writes the two dots of "\u00fc" as a letter of their own, other systems do not."""
    return unicodedata.normalize("NFC", name).casefold()


def _affixes(names: Sequence[str]) -> tuple[str, str]:
    """What all names begin and end with; numbers are not cut in two. Nothing for a single name."""
    if len(names) < 2:
        return "", ""
    after = _common_start([name[::-1] for name in names])[::-1]
    if any(name.removesuffix(after)[-1:].isdigit() for name in names):
        after = after.lstrip("0123456789")
    rest = [name[: len(name) - len(after)] for name in names]
    before = _common_start(rest)
    if any(name.removeprefix(before)[:1].isdigit() for name in rest):
        before = before.rstrip("0123456789")
    return before, after


def _common_start(names: Sequence[str]) -> str:
    first, last = min(names), max(names)
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return "".join(letter for letter, _ in same)


def _contradict(one: Sequence[int], other: Sequence[int]) -> bool:
    return bool(one and other and list(one) != list(other))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in _NUMBER.findall(text)]


def _unpadded(text: str) -> str:
    """With separators alike, and numbers without leading zeros."""
    return _NUMBER.sub(lambda number: str(int(number[0])), _SEPARATORS.sub("_", text).strip("_"))


def _without_words(text: str) -> str:
    return _SEPARATORS.sub("_", _WORD.sub("", text)).strip("_")


def _plain(name: str) -> str:
    return _unpadded(_without_words(_folded(name)))


def _lonely(images: Sequence[str], labels: Sequence[str], keys: tuple[list[str], list[str]] | None) -> str:
    """Which names have no partner, in words."""
    if keys is None:
        twice = [name for side in (images, labels) for name, count in Counter(side).items() if count > 1]
        which = f" ({listed(twice, _MAX_SHOWN)})" if twice else ""
        return f"several files have names that are alike{which}; give each image and its labels a name of their own"
    ours, theirs = (
        [name for name, key in zip(names, side, strict=True) if key not in other]
        for names, side, other in ((images, keys[0], keys[1]), (labels, keys[1], keys[0]))
    )
    parts = [
        f"{what} {listed(names, _MAX_SHOWN)}"
        for what, names in (("images without labels:", ours), ("labels without an image:", theirs))
        if names
    ]
    return f"{'; '.join(parts)}; rename or remove these"
