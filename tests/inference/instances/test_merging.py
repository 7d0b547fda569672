from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_autosegnet.data.annotations import default_classes
from napari_autosegnet.inference.instances.merging import Contacts, linked, merged
from napari_autosegnet.inference.instances.objects import merging_below, seed_mask


def contacts(*rows: tuple[int, int, int, float]) -> Contacts:
    """Contacts of fragments of ten voxels: one, other, faces, mean boundary probability."""
    pairs = np.array([row[:2] for row in rows])
    faces = np.array([row[2] for row in rows])
    boundary = np.round(255 * faces * np.array([row[3] for row in rows])).astype(np.int64)
    fragments = np.unique(pairs)
    none = np.zeros((0, 2), np.int64)
    return Contacts(fragments, np.full(len(fragments), 10), pairs, faces, boundary, none, none[:, 0])


def test_fragments_without_a_boundary_between_them_are_one() -> None:
    assert merged(4, contacts((1, 2, 5, 0.1), (2, 3, 5, 0.8), (3, 4, 5, 0.15)), 0.2).tolist() == [0, 1, 1, 2, 2]
    assert merged(4, contacts((1, 2, 5, 0.1), (2, 3, 5, 0.8), (3, 4, 5, 0.15)), 0.0).tolist() == [0, 1, 2, 3, 4]
    assert merged(2, Contacts.added([]), 0.2).tolist() == [0, 1, 2]


def test_means_are_taken_anew_after_a_merge() -> None:
    """3 meets 2 in a gap of the boundary, and 1 along much of it: of 1 and 2 together it is another object."""
    gap = contacts((1, 2, 50, 0.02), (2, 3, 5, 0.1), (1, 3, 45, 0.6))
    assert merged(3, gap, 0.2).tolist() == [0, 1, 1, 2]
    chain = contacts((1, 2, 50, 0.02), (2, 3, 5, 0.1), (1, 3, 2, 0.6))
    assert merged(3, chain, 0.3).tolist() == [0, 1, 1, 1]


def test_merging_one_after_another_is_the_same() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        pairs = np.unique(np.sort(generator.integers(1, 31, (60, 2)), axis=1), axis=0)
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        found = contacts(*((int(a), int(b), int(generator.integers(1, 99)), generator.random()) for a, b in pairs))
        expected = np.arange(31)
        counts = zip(found.faces.tolist(), found.boundary.tolist(), strict=True)
        sums = dict(zip(map(tuple, pairs.tolist()), counts, strict=True))
        while sums:
            (one, other), (faces, boundary) = min(sums.items(), key=lambda each: each[1][1] / each[1][0])
            if boundary / (255 * faces) >= 0.4:
                break
            expected[expected == other] = one
            anew: dict[tuple[int, int], tuple[int, int]] = {}
            for pair, (f, v) in sums.items():
                a, b = sorted(one if each == other else each for each in pair)
                if a != b:
                    before = anew.get((a, b), (0, 0))
                    anew[a, b] = (before[0] + f, before[1] + v)
            sums = anew
        _, expected = np.unique(expected, return_inverse=True)
        assert merged(30, found, 0.4).tolist() == expected.tolist()


def test_sections_are_linked_where_fragments_overlap_well() -> None:
    """3 and 4 lie below 1; of the 1 and 2 that were merged, 4 shares too little."""
    none = np.zeros((0, 2), np.int64)
    overlaps, shared = np.array([[1, 3], [1, 4]]), np.array([40, 20])
    found = Contacts(np.arange(1, 5), np.array([60, 40, 50, 30]), none, none[:, 0], none[:, 0], overlaps, shared)
    assert linked(np.array([0, 1, 2, 3, 4], np.uint32), found).tolist() == [0, 1, 2, 1, 3]
    assert linked(np.array([0, 1, 1, 2, 3], np.uint32), found).tolist() == [0, 1, 1, 1, 2]
    assert linked(np.array([0, 1, 1, 2, 2], np.uint32), found).tolist() == [0, 1, 1, 1, 1]


@pytest.mark.parametrize("by_section", [False, True])
def test_contacts_of_tiles_add_up(tmp_path: Path, by_section: bool) -> None:
    generator = np.random.default_rng(0)
    fragments = generator.integers(0, 4, (6, 7, 8)).astype(np.uint32)
    boundary = generator.integers(0, 256, fragments.shape).astype(np.uint8)
    whole = Contacts.of(fragments, boundary, fragments.shape, by_section=by_section)
    parts = []
    for z, y in [(0, 0), (0, 4), (3, 0), (3, 4)]:
        core = (3, min(4, 7 - y), 8)
        with_next = (slice(z, z + 4), slice(y, y + 5))
        part = Contacts.of(fragments[with_next], boundary[with_next], core, by_section=by_section)
        part.save(tmp_path / f"{z}-{y}.npz")
        parts.append(Contacts.load(tmp_path / f"{z}-{y}.npz"))
    together = Contacts.added(parts)
    for name, values in vars(whole).items():
        np.testing.assert_array_equal(getattr(together, name), values, err_msg=name)
    assert whole.voxels.tolist() == np.bincount(fragments.ravel())[1:].tolist()

    def faces(*axes: int) -> int:
        along = [np.moveaxis(fragments, axis, 0) for axis in axes]
        sides = [np.sort([each[:-1].ravel(), each[1:].ravel()], axis=0).T for each in along]
        return sum(int((each == [1, 3]).all(axis=1).sum()) for each in sides)

    assert whole.faces[whole.pairs.tolist().index([1, 3])] == (faces(1, 2) if by_section else faces(0, 1, 2))
    if by_section:
        assert whole.shared[whole.overlaps.tolist().index([1, 3])] == faces(0)
    else:
        assert not len(whole.overlaps)


def test_only_a_class_that_is_a_boundary_tells_objects_apart() -> None:
    def default(*names: str) -> float:
        return merging_below(default_classes(list(names)), (1,), None)

    assert default("Membrane", "cell") == default("cell boundary", "cell", "rest") == 0.2
    assert default("background", "nucleus") == 0
    assert merging_below(default_classes(["background", "nucleus"]), (1,), 0.1) == 0.1
    # The boundary itself may be what is numbered.
    assert merging_below(default_classes(["cell", "membrane"]), (1,), None) == 0


@pytest.mark.parametrize(("sure", "seeds"), [(0.0, 5), (0.2, 3)])
def test_objects_grow_from_where_a_boundary_is_improbable(sure: float, seeds: int) -> None:
    boundary = np.array([[[255, 100, 0, 0, 0, 0, 0, 100, 255]]], np.uint8)
    assert seed_mask(boundary, 2, (1, 1, 1), sure).sum() == seeds
