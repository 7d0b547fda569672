"""A forest that teaches a network: labels of what nobody painted, where it is sure of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.annotations import LabeledStack
from napari_autosegnet.data.loaded_regions import normalized_section
from napari_autosegnet.data.normalization import Normalization
from napari_autosegnet.data.split import Region
from napari_autosegnet.pixel_classifier.drawn_pixels import MIN_PER_CLASS, drawn_by_class
from napari_autosegnet.pixel_classifier.features import features_at, pixel_features, reach
from napari_autosegnet.pixel_classifier.trees import fit_trees, probabilities

#: A pixel is taught where the forest's probability of its class is at least this.
SURE = 0.7
#: Most annotated pixels that the forest is fitted on.
MAX_PIXELS = 8_000
#: Most pixels that are looked at to teach; they take about 2 s of a processor core per million.
MAX_TAUGHT = 8 * 2**20
#: Side of the tiles that are taught or left out.
_TILE = 512

import os
W, HALF = float(os.environ.get("W", 0.5)), float(os.environ.get("HALF", 0.01))


def teacher_weight(annotated: float) -> float:
    """By the annotated fraction."""
    return W / (1 + annotated / HALF) if annotated < 0.5 else 0.0


Labels = npt.NDArray[np.uint8]


def taught_labels(
    stacks: Sequence[LabeledStack],
    regions: Sequence[Region],
    normalization: Normalization,
    *,
    context: int = 0,
    seed: int = 0,
    threads: int = 1,
) -> list[Labels] | None:
    """What a forest says of regions that it is fitted on: class numbers (y, x) of each, 0 where it is not sure.

    Of more than `MAX_TAUGHT` pixels, tiles with the most annotation come first, others at random. None where fewer
    than two classes are annotated. The same for the same seed, whatever the number of threads.
    """
    features, targets = [], []
    most = max(MIN_PER_CLASS, MAX_PIXELS // (len(stacks[0].mapping.classes) * len(_by_section(regions))))
    for (stack, section), own in _by_section(regions).items():
        target = _target(stacks[stack], section, [regions[index] for index in own])
        places = drawn_by_class(target.ravel(), most)
        if len(places):
            image = normalized_section(stacks, (stack, section), normalization, context)
            found = features_at(lambda y, x: image[:, y, x], places, target.shape[1], threads=threads)  # noqa: B023
            features.append(found)
            targets.append(target.ravel()[places].astype(np.int64))
    if not targets or len(np.unique(np.concatenate(targets))) < 2:
        return None
    forest = fit_trees(np.concatenate(features), np.concatenate(targets), seed=seed, threads=threads)
    numbers = forest.classes_.astype(np.uint8)
    taught = [np.zeros((region.y[1] - region.y[0], region.x[1] - region.x[0]), np.uint8) for region in regions]
    chosen = _chosen_tiles(stacks, regions, np.random.default_rng(seed))
    margin = reach()
    for (stack, section), own in _by_section(regions).items():
        tiles = [(index, y, x) for index in own for y, x in chosen[index]]
        if not tiles:
            continue
        image = normalized_section(stacks, (stack, section), normalization, context)
        for index, y, x in tiles:
            top, left = max(0, y.start - margin), max(0, x.start - margin)
            around = pixel_features(image[:, top : y.stop + margin, left : x.stop + margin], threads=threads)
            inside = around[:, y.start - top : y.stop - top, x.start - left : x.stop - left]
            sureness = probabilities(forest, inside, threads=threads)
            labels = np.where(sureness.max(0) >= SURE, numbers[sureness.argmax(0)], 0)
            region = regions[index]
            rows = slice(y.start - region.y[0], y.stop - region.y[0])
            taught[index][rows, x.start - region.x[0] : x.stop - region.x[0]] = labels
    return taught


def _by_section(regions: Sequence[Region]) -> dict[tuple[int, int], list[int]]:
    """Numbers of the regions of each section."""
    found: dict[tuple[int, int], list[int]] = {}
    for index, region in enumerate(regions):
        found.setdefault((region.stack, region.section), []).append(index)
    return found


def _target(stack: LabeledStack, section: int, regions: Sequence[Region]) -> Labels:
    """Class numbers of a whole section, 0 beyond the regions."""
    target = stack.target(section)
    found = np.zeros_like(target)
    for region in regions:
        here = slice(*region.y), slice(*region.x)
        found[here] = target[here]
    return found


def _chosen_tiles(
    stacks: Sequence[LabeledStack], regions: Sequence[Region], generator: np.random.Generator
) -> list[list[tuple[slice, slice]]]:
    """Tiles of each region that are taught, within their sections."""
    tiles: list[tuple[int, int, slice, slice]] = []
    for index, region in enumerate(regions):
        target = stacks[region.stack].target(region.section)
        for y, x in itertools.product(_spans(region.y), _spans(region.x)):
            tiles.append((int(np.count_nonzero(target[y, x])), index, y, x))
    order = sorted(generator.permutation(len(tiles)).tolist(), key=lambda number: -tiles[number][0])
    found: list[list[tuple[slice, slice]]] = [[] for _ in regions]
    left = MAX_TAUGHT
    for number in order:
        _, index, y, x = tiles[number]
        left -= (y.stop - y.start) * (x.stop - x.start)
        if left < 0 and any(found):
            break
        found[index].append((y, x))
    return found


def _spans(span: tuple[int, int]) -> Iterator[slice]:
    begin, end = span
    count = -(-(end - begin) // _TILE)
    edges = [begin + k * (end - begin) // count for k in range(count + 1)]
    return (slice(*pair) for pair in itertools.pairwise(edges))
