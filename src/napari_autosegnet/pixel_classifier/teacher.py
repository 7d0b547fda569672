"""A forest that teaches a network: labels of what nobody painted, where it is sure of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.labeled_stacks import LabeledStack
from napari_autosegnet.data.loaded_regions import DENSE_FRACTION, section_reader
from napari_autosegnet.data.normalization import Normalization
from napari_autosegnet.data.regions import Region, equal_parts, region_pixels
from napari_autosegnet.pixel_classifier.drawn_pixels import MIN_PER_CLASS, drawn_by_class
from napari_autosegnet.pixel_classifier.features import features_at, pixel_features, reach
from napari_autosegnet.pixel_classifier.trees import fit_trees, probabilities

#: A pixel is taught where the forest's probability of its class is at least this.
SURE = 0.7
#: Weight of the forest's labels where next to nothing is annotated, and the annotated fraction that halves it.
WEIGHT, HALVED_BY = 1.0, 0.01
#: Most annotated pixels that the forest is fitted on.
MAX_PIXELS = 8_000
#: Most pixels that are labeled to teach, which take about 2 s of a processor core per million.
MAX_LABELED = 4 * 2**20
#: Class numbers of what is painted and of what is taught are kept in one byte.
MAX_CLASSES = 127
#: Side of the tiles that are labeled or left out.
TILE = 512

Labels = npt.NDArray[np.uint8]


def teacher_weight(stacks: Sequence[LabeledStack], regions: Sequence[Region]) -> float:
    """How much the forest's labels of some regions count beside what is painted there.

    Less the more is annotated, and nothing where it is dense: then the network learns from people alone.
    """
    area = sum((region.y[1] - region.y[0]) * (region.x[1] - region.x[0]) for region in regions)
    annotated = float(region_pixels(stacks, regions).sum()) / max(area, 1)
    if annotated >= DENSE_FRACTION or len(stacks[0].mapping.classes) > MAX_CLASSES:
        return 0.0
    return WEIGHT / (1 + annotated / HALVED_BY)


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

    Of more than `MAX_LABELED` pixels, tiles with the most annotation come first, then others at random. None where
    fewer than two classes are annotated. The same for the same seed, whatever the number of threads.
    """
    sections = _by_section(regions)
    most = max(MIN_PER_CLASS, MAX_PIXELS // (len(stacks[0].mapping.classes) * len(sections)))
    features: list[npt.NDArray[np.float32]] = []
    classes: list[npt.NDArray[np.int64]] = []
    for (stack, section), own in sections.items():
        target = _target(stacks[stack], section, [regions[index] for index in own])
        places = drawn_by_class(target.ravel(), most)
        if len(places):
            read = section_reader(stacks, (stack, section), normalization, context)
            features.append(features_at(read, places, target.shape[1], threads=threads))
            classes.append(target.ravel()[places].astype(np.int64))
    if not classes or len(np.unique(np.concatenate(classes))) < 2:
        return None
    forest = fit_trees(np.concatenate(features), np.concatenate(classes), seed=seed, threads=threads)
    numbers, margin = forest.classes_.astype(np.uint8), reach()
    taught = [np.zeros((region.y[1] - region.y[0], region.x[1] - region.x[0]), np.uint8) for region in regions]
    tiles = _chosen_tiles(stacks, regions, np.random.default_rng(seed))
    for place, own in sections.items():
        if not any(tiles[index] for index in own):
            continue
        read = section_reader(stacks, place, normalization, context)
        for index, (y, x) in ((each, tile) for each in own for tile in tiles[each]):
            top, left = max(0, y.start - margin), max(0, x.start - margin)
            around = pixel_features(read(slice(top, y.stop + margin), slice(left, x.stop + margin)), threads=threads)
            inside = around[:, y.start - top : y.stop - top, x.start - left : x.stop - left]
            certainty = probabilities(forest, inside, threads=threads)
            rows, columns = (
                slice(span.start - begin, span.stop - begin)
                for span, (begin, _) in zip((y, x), (regions[index].y, regions[index].x), strict=True)
            )
            taught[index][rows, columns] = np.where(certainty.max(0) >= SURE, numbers[certainty.argmax(0)], 0)
    return taught


def _by_section(regions: Sequence[Region]) -> dict[tuple[int, int], list[int]]:
    """Numbers of the regions of each section."""
    sections: dict[tuple[int, int], list[int]] = {}
    for index, region in enumerate(regions):
        sections.setdefault((region.stack, region.section), []).append(index)
    return sections


def _target(stack: LabeledStack, section: int, regions: Sequence[Region]) -> Labels:
    """Class numbers of a whole section, 0 beyond the regions."""
    everything = stack.target(section)
    target = np.zeros_like(everything)
    for region in regions:
        here = slice(*region.y), slice(*region.x)
        target[here] = everything[here]
    return target


def _chosen_tiles(
    stacks: Sequence[LabeledStack], regions: Sequence[Region], generator: np.random.Generator
) -> list[list[tuple[slice, slice]]]:
    """Rows and columns of the tiles of each region that are labeled, within their sections."""
    tiles: list[tuple[int, slice, slice]] = []
    annotated: list[int] = []
    for index, region in enumerate(regions):
        target = stacks[region.stack].target(region.section)
        for y, x in itertools.product(equal_parts(*region.y, TILE), equal_parts(*region.x, TILE)):
            tiles.append((index, y, x))
            annotated.append(int(np.count_nonzero(target[y, x])))
    chosen: list[list[tuple[slice, slice]]] = [[] for _ in regions]
    left = MAX_LABELED
    for number in sorted(generator.permutation(len(tiles)).tolist(), key=lambda each: -annotated[each]):
        index, y, x = tiles[number]
        left -= (y.stop - y.start) * (x.stop - x.start)
        if left < 0 and any(chosen):
            break
        chosen[index].append((y, x))
    return chosen
