from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr
from scipy.ndimage import distance_transform_edt
from skimage.metrics import adapted_rand_error

from napari_autosegnet.data.annotations import default_classes
from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import BlockWritten, Event, Note
from napari_autosegnet.inference.compute.block_pixels import BlockResult
from napari_autosegnet.inference.compute.predictor import Predictor
from napari_autosegnet.inference.instances.objects import (
    contacts,
    describe_growth,
    describe_merging,
    flood,
    joined,
    label_seeds,
    object_classes,
    seed_mask,
)
from napari_autosegnet.inference.output.progress import PredictionSummary
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.model import Model
from napari_autosegnet.settings import PredictSettings

Tree = Callable[[Path], dict[str, bytes]]

#: Stated tolerance: share of wrongly joined or parted pairs of voxels between two block sizes.
TOLERANCE = 0.005


def cells(shape: tuple[int, int, int], count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cells of a Voronoi diagram (numbers from 1) and their smooth boundary probability, uint8."""
    generator = np.random.default_rng(seed)
    points = np.stack([generator.integers(0, size, count) for size in shape])
    centers = np.zeros(shape, np.int32)
    centers[tuple(points)] = np.arange(1, count + 1)
    nearest = distance_transform_edt(centers == 0, return_distances=False, return_indices=True)
    truth = centers[tuple(nearest)]
    between = np.zeros(shape, bool)
    for axis in range(3):
        step = np.diff(truth, axis=axis) != 0
        part = [slice(None)] * 3
        part[axis] = slice(1, None)
        between[tuple(part)] |= step
    distance = distance_transform_edt(~between)
    return truth, (255 * np.exp(-((distance / 2) ** 2))).astype(np.uint8)


class Painted(Predictor):
    """A predictor that knows the boundary probability: the image itself."""

    def block(self, plan: Any, block: Any, data: Any, **more: Any) -> BlockResult:
        inside = tuple(
            slice(span[0] - start, span[1] - start) for span, start in zip(block.core, data.origin, strict=True)
        )
        boundary = data.pixels[0][inside]
        scores = np.stack([boundary, 255 - boundary])
        return BlockResult((scores.argmax(0) + 1).astype(np.uint8), scores, 1)


@pytest.fixture
def number(tmp_path: Path, make_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> Any:
    from napari_autosegnet.inference.compute import sections

    monkeypatch.setattr(sections, "Predictor", Painted)
    model = make_model()
    model = Model(
        model.description.model_copy(update={"classes": default_classes(["membrane", "cell"])}), model.weights
    )

    def run(boundary: np.ndarray, block: tuple[int, int, int], name: str, **more: Any) -> PredictionSummary:
        scale = more.pop("scale", None)
        asked = {key: more.pop(key) for key in ("should_stop", "report") if key in more}
        wanted = {"instances": True, "instance_distance": 4.0, "instance_growth": "volume", **more}
        settings = PredictSettings(block=block, halo=0, **wanted)
        image = image_from_array(boundary, scale=scale)
        return predict_volume(model, image, tmp_path / name, settings, **asked)

    return run


def instances(folder: Path, level: int = 0) -> np.ndarray:
    return np.asarray(zarr.open_group(folder, mode="r")[f"labels/instances/{level}"])


def test_objects_do_not_depend_on_the_blocks(number: Any, tmp_path: Path) -> None:
    truth, boundary = cells((16, 80, 120), 20)
    found = {}
    for block in [(16, 80, 120), (8, 48, 64), (5, 40, 40)]:
        name = f"{block[1]}.zarr"
        number(boundary, block, name)
        found[block] = instances(tmp_path / name)
    whole = found[16, 80, 120]
    assert whole.dtype == np.uint32 and (whole > 0).sum() > 0.6 * whole.size
    assert adapted_rand_error(truth * (whole > 0), whole)[0] < 0.05
    for other in found.values():
        # Seeds are joined exactly, so the objects are as many; floods may differ far from their seeds.
        assert len(np.unique(other)) == len(np.unique(whole))
        assert ((other > 0) == (whole > 0)).mean() > 1 - TOLERANCE
        assert adapted_rand_error(whole, other)[0] < TOLERANCE


def test_the_store_lists_them_with_all_levels(number: Any, tmp_path: Path) -> None:
    _, boundary = cells((6, 60, 80), 12)
    summary = number(boundary, (3, 32, 32), "a.zarr", levels=3)
    assert summary.instances == tmp_path / "a.zarr" / "labels" / "instances"
    about: Any = zarr.open_group(tmp_path / "a.zarr")["labels"].attrs["ome"]
    assert about["labels"] == ["segmentation", "instances"]
    yaozarrs.validate_zarr_store(str(summary.instances))
    found = instances(tmp_path / "a.zarr")
    for level in (1, 2):
        np.testing.assert_array_equal(instances(tmp_path / "a.zarr", level), found[:, :: 2**level, :: 2**level])
    assert not list(tmp_path.glob(".*instances"))
    table = (tmp_path / "a.zarr.objects.csv").read_text().splitlines()
    assert [int(row.split(",")[1]) for row in table[1:]] == np.unique(found, return_counts=True)[1][1:].tolist()
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    number(boundary, (3, 32, 32), "a.zarr", levels=3)
    after = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    assert {f: t for f, t in after.items() if f.suffix != ".lock"} == {
        f: t for f, t in before.items() if f.suffix != ".lock"
    }


def test_stopped_and_gone_on_with_they_are_the_same(number: Any, tmp_path: Path, tree: Tree) -> None:
    _, boundary = cells((6, 60, 80), 12)
    number(boundary, (3, 32, 32), "whole.zarr", levels=2)
    for turn in range(100):
        left = 7 + turn

        def should_stop() -> bool:
            nonlocal left
            left -= 1
            return left < 0

        if not number(boundary, (3, 32, 32), "parts.zarr", levels=2, should_stop=should_stop).stopped:
            break
    assert 2 < turn < 99
    assert tree(tmp_path / "parts.zarr") == tree(tmp_path / "whole.zarr")


def test_small_objects_are_left_out_also_by_a_run_that_was_stopped(number: Any, tmp_path: Path, tree: Tree) -> None:
    _, boundary = cells((6, 60, 80), 12)
    number(boundary, (3, 32, 32), "all.zarr", levels=2)
    found = instances(tmp_path / "all.zarr")
    numbers, voxels = np.unique(found, return_counts=True)
    least = int(np.median(voxels[1:]))
    expected = np.where(np.isin(found, numbers[voxels < least]), 0, found)
    assert 1 < len(np.unique(expected)) < len(numbers)
    for turn in range(100):
        asked = 0

        def should_stop() -> bool:
            nonlocal asked
            asked += 1
            return asked > 10 + 7 * turn  # noqa: B023

        wanted = {"levels": 2, "instance_min_size": least}
        if not number(boundary, (3, 32, 32), "large.zarr", should_stop=should_stop, **wanted).stopped:
            break
    assert 2 < turn < 99
    np.testing.assert_array_equal(instances(tmp_path / "large.zarr"), expected)
    np.testing.assert_array_equal(instances(tmp_path / "large.zarr", 1), expected[:, ::2, ::2])
    rows = [row.split(",")[:2] for row in (tmp_path / "large.zarr.objects.csv").read_text().splitlines()[1:]]
    kept = voxels[1:] >= least
    assert rows == [[str(n), str(v)] for n, v in zip(numbers[1:][kept], voxels[1:][kept], strict=True)]
    before = tree(tmp_path / "large.zarr")
    number(boundary, (3, 32, 32), "large.zarr", levels=2, instance_min_size=least)
    assert tree(tmp_path / "large.zarr") == before
    (tmp_path / "large.zarr.objects.csv").unlink()
    shutil.rmtree(tmp_path / "large.zarr" / "labels" / "instances" / "0" / "c" / "1")
    number(boundary, (3, 32, 32), "large.zarr", levels=2, instance_min_size=least)
    assert tree(tmp_path / "large.zarr") == before


def test_overwriting_numbers_them_again(number: Any, tmp_path: Path, tree: Tree) -> None:
    _, one = cells((4, 40, 40), 6)
    _, other = cells((4, 40, 40), 9, seed=1)
    number(one, (4, 40, 40), "a.zarr")
    number(other, (4, 40, 40), "a.zarr", overwrite=True)
    number(other, (4, 40, 40), "b.zarr")
    assert tree(tmp_path / "a.zarr") == tree(tmp_path / "b.zarr")


@pytest.mark.parametrize("block", [(8, 24, 40), (3, 16, 16)])
def test_an_object_that_is_narrow_somewhere_stays_one(number: Any, tmp_path: Path, block: tuple[int, int, int]) -> None:
    """Two balls with a neck between them, and a third behind a weak boundary."""
    place = np.indices((8, 24, 60))
    cell = (abs(place[1] - 12) < 3) & (place[2] > 10) & (place[2] < 30)
    for x in (10, 30, 47):
        cell |= np.hypot(place[1] - 12, place[2] - x) < 9
    boundary = np.where(cell, 10, 250).astype(np.uint8)
    boundary[:, :, 38:40] = np.where(cell[:, :, 38:40], 110, 250)
    number(boundary, block, "one.zarr")
    found = instances(tmp_path / "one.zarr")
    assert found[4, 12, 10] == found[4, 12, 20] == found[4, 12, 30] != found[4, 12, 47]
    assert len(np.unique(found)) == 3
    number(boundary, block, "parts.zarr", instance_merge=0.0)
    parts = instances(tmp_path / "parts.zarr")
    # Cut at the neck, and not at a boundary that is not quite probable.
    assert parts[4, 12, 10] != parts[4, 12, 30] == parts[4, 12, 47]
    with pytest.raises(UserError, match="instance_merge was 0.2, now 0.1"):
        number(boundary, block, "one.zarr", instance_merge=0.1)


def serial_sections() -> tuple[np.ndarray, np.ndarray]:
    """Cells that drift from section to section, each over what was another's: truth and boundary probability."""
    truth, boundary = np.zeros((5, 60, 96), np.int32), np.full((5, 60, 96), 250, np.uint8)
    for section in range(5):
        for column in range(4):
            left = 2 + 22 * column + 4 * section
            cell = (section, slice(5, 55), slice(left, min(left + 20, 96)))
            truth[cell], boundary[cell] = column + 1, 10
    return truth, boundary


@pytest.mark.parametrize("block", [(5, 60, 96), (2, 32, 32)])
def test_cells_of_thick_sections_are_linked_where_they_overlap_best(
    number: Any, tmp_path: Path, block: tuple[int, int, int]
) -> None:
    truth, boundary = serial_sections()
    number(boundary, block, "sections.zarr", instance_growth="auto", scale=(50.0, 4.0, 4.0))
    found = instances(tmp_path / "sections.zarr")
    assert len(np.unique(found)) == 5 and adapted_rand_error(truth, found)[0] < 1e-6
    # Through the volume, a cell runs into its neighbor that lies below it.
    number(boundary, block, "volume.zarr", scale=(50.0, 4.0, 4.0))
    assert len(np.unique(instances(tmp_path / "volume.zarr"))) == 2


def test_how_objects_grow_is_decided_by_the_voxels(number: Any, tmp_path: Path) -> None:
    _, boundary = serial_sections()

    def grown(name: str, **more: Any) -> tuple[int, list[str]]:
        told: list[Event] = []
        number(boundary, (5, 60, 96), name, instance_growth="auto", report=told.append, **more)
        notes = [event.text for event in told if isinstance(event, Note) and "objects grow" in event.text]
        return len(np.unique(instances(tmp_path / name))) - 1, notes

    apart, volume, linked = "sections are", "through the volume (3D)", "in each section and are linked"
    told = f"{apart} 4 apart, pixels 4: objects grow {volume} (--instance-growth)"
    assert grown("cubes.zarr", scale=(4.0, 4.0, 4.0)) == (1, [told])
    told = f"{apart} 16 apart, pixels 4: objects grow {linked} (--instance-growth)"
    assert grown("thick.zarr", scale=(16.0, 4.0, 4.0)) == (4, [told])
    # As far apart, whichever way they are counted.
    assert grown("negative.zarr", scale=(-16.0, 4.0, 4.0)) == (4, [told])
    objects, (note,) = grown("unknown.zarr")
    assert objects == 4 and f"says nothing of its voxels: objects grow {linked}; if these are cubes, let" in note
    with pytest.raises(UserError, match="instance_growth was sections, now volume"):
        number(boundary, (5, 60, 96), "unknown.zarr", instance_growth="volume")


def test_it_is_said_how_objects_grow_and_which_fragments_merge() -> None:
    image = image_from_array(np.zeros((4, 8, 8), np.uint8), scale=(50, 4, 4))
    image.unit = "nanometer"
    apart = "sections are 50 nm apart, pixels 4 nm"
    for more, expected in (
        ({}, f"{apart}: objects grow in each section and are linked"),
        ({"planes": "all"}, f"{apart}, and the network sees three planes: objects grow through the volume (3D)"),
        ({"instance_growth": "volume"}, f"{apart}; as chosen, objects grow through the volume (3D)"),
    ):
        assert describe_growth(image, PredictSettings.model_validate(more)) == expected
    cells = default_classes(["cell", "membrane"])
    for more, expected in (
        ({}, "fragments merge where membrane between them is less probable than 0.2"),
        ({"instance_merge": 0.1}, "fragments merge where membrane between them is less probable than 0.1"),
        ({"instance_merge": 0}, "fragments that touch are not merged: only their shape tells them apart"),
    ):
        assert describe_merging(cells, PredictSettings.model_validate(more)) == expected
    without = default_classes(["cell", "background"])
    assert describe_merging(without, PredictSettings()).startswith("fragments that touch are not merged")


class Stop:
    """Stops a run once some objects are flooded."""

    asked = False

    def report(self, event: Event) -> None:
        self.asked |= isinstance(event, BlockWritten) and event.step == "instances"

    def __call__(self) -> bool:
        return self.asked


def test_numbers_of_a_run_that_was_stopped_are_not_taken_for_others(number: Any, tmp_path: Path, tree: Tree) -> None:
    """What is left of a stopped run: all, only its ledgers, only the hidden folder, or that and one ledger."""
    _, one = cells((4, 60, 80), 6)
    _, other = cells((4, 60, 80), 20, seed=1)
    number(other, (2, 32, 32), "expected.zarr")
    for kept in ("all", "ledgers", "scratch", "instance ledger"):
        out, scratch = tmp_path / f"{kept}.zarr", tmp_path / f".{kept}.zarr.instances"
        stop = Stop()
        assert number(one, (2, 32, 32), out.name, report=stop.report, should_stop=stop).stopped
        assert (scratch / "numbers.npz").exists()
        if kept != "all":
            shutil.rmtree(out)
        if kept == "ledgers":
            shutil.rmtree(scratch)
        if kept in ("scratch", "instance ledger"):
            (tmp_path / f"{out.name}.ledger.jsonl").unlink()
        if kept == "scratch":
            (tmp_path / f"{out.name}.instances.ledger.jsonl").unlink()
        number(other, (2, 32, 32), out.name, overwrite=kept in ("all", "ledgers"))
        assert tree(out) == tree(tmp_path / "expected.zarr"), kept
        assert not scratch.exists(), kept


def test_objects_that_were_deleted_are_numbered_as_before(number: Any, tmp_path: Path, tree: Tree) -> None:
    _, boundary = cells((4, 60, 80), 12)
    number(boundary, (2, 32, 32), "a.zarr", levels=2)
    before = tree(tmp_path / "a.zarr")
    for gone in ("0/c/1/0/1", "0/c/0", "1", ""):
        place = tmp_path / "a.zarr" / "labels" / "instances" / gone
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        number(boundary, (2, 32, 32), "a.zarr", levels=2)
        assert tree(tmp_path / "a.zarr") == before, gone


def test_overwriting_without_them_takes_them_off_the_list(number: Any, tmp_path: Path, tree: Tree) -> None:
    _, boundary = cells((4, 40, 40), 6)
    number(boundary, (4, 40, 40), "a.zarr")
    number(boundary, (4, 40, 40), "a.zarr", instances=False, overwrite=True)
    number(boundary, (4, 40, 40), "b.zarr", instances=False)
    about: Any = zarr.open_group(tmp_path / "a.zarr")["labels"].attrs["ome"]
    assert about["labels"] == ["segmentation"]
    assert tree(tmp_path / "a.zarr") == tree(tmp_path / "b.zarr")
    assert not (tmp_path / "a.zarr.instances.ledger.jsonl").exists()


def test_a_region_and_a_2d_image(number: Any, tmp_path: Path) -> None:
    _, boundary = cells((4, 60, 80), 12)
    number(boundary, (2, 32, 32), "a.zarr", region=":,10:50,20:")
    outside = np.ones(boundary.shape, bool)
    outside[:, 10:50, 20:] = False
    found = instances(tmp_path / "a.zarr")
    assert not found[outside].any() and found.any()
    number(boundary[0], (1, 32, 32), "flat.zarr")
    flat = instances(tmp_path / "flat.zarr")
    assert flat.shape == (60, 80) and len(np.unique(flat)) > 3


def test_files_cannot_hold_them(number: Any) -> None:
    _, boundary = cells((2, 20, 20), 2)
    for name, more in (("a.tif", {}), ("a.zarr", {"format": "zarr"})):
        with pytest.raises(UserError, match="need an OME-Zarr store"):
            number(boundary, (2, 20, 20), name, **more)


def test_which_classes_are_objects() -> None:
    def chosen(names: list[str], wanted: list[str] | None = None) -> tuple[int, ...]:
        return object_classes(default_classes(names), wanted)

    assert chosen(["membrane", "cell"]) == (1,)
    assert chosen(["Background", "myelin", "axon"]) == (1, 2)
    assert chosen(["Background", "myelin", "axon"], ["axon"]) == (2,)
    with pytest.raises(UserError, match="no class 'nucleus'"):
        chosen(["membrane", "cell"], ["nucleus"])
    with pytest.raises(UserError, match="--instance-classes"):
        chosen(["one", "two"])


def test_seeds_flat_and_empty() -> None:
    assert seed_mask(np.zeros((2, 9, 9), np.uint8), 4, (1, 1, 1)).all()
    assert not seed_mask(np.full((2, 9, 9), 255, np.uint8), 4, (1, 1, 1)).any()
    line = np.zeros((1, 9, 20), np.uint8)
    line[:, :, 10] = 255
    mask = seed_mask(line, 4, (1, 1, 1))
    assert mask[0, 0].nonzero()[0].tolist() == [*range(7), *range(14, 20)]
    # Sections ten pixels apart: a boundary in one is far from the next.
    assert seed_mask(np.concatenate([line, line * 0]), 4, (10, 1, 1))[1].all()


def test_parts_that_touch_are_one() -> None:
    one = np.array([[1, 0, 2]], np.uint32)
    other = np.array([[3, 3, 0]], np.uint32)
    pairs = contacts(one, other)
    assert pairs.tolist() == [[1, 3]]
    assert joined(3, pairs).tolist() == [0, 1, 2, 1]
    assert joined(2, np.zeros((0, 2), np.int64)).tolist() == [0, 1, 2]
    assert label_seeds(np.array([[[1, 0, 1]]], bool)).tolist() == [[[1, 0, 2]]]


def test_a_flood_ends_at_the_boundary() -> None:
    boundary = np.array([[[0, 50, 120, 100, 10, 200, 0]]], np.uint8)
    seeds = np.array([[[7, 0, 0, 0, 9, 0, 0]]], np.uint32)
    assert flood(boundary, seeds).tolist() == [[[7, 7, 9, 9, 9, 0, 0]]] or flood(boundary, seeds).tolist() == [
        [[7, 7, 7, 9, 9, 0, 0]]
    ]
    assert not flood(boundary, seeds * 0).any()
