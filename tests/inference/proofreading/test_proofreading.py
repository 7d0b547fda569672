from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_autosegnet import api
from napari_autosegnet.cli.app import run
from napari_autosegnet.errors import StoppedError, UserError
from napari_autosegnet.inference.instances.measurements import Measurements
from napari_autosegnet.inference.output.ledger import edit_log_path, object_table_path
from napari_autosegnet.inference.proofreading.edited import Edited
from napari_autosegnet.inference.proofreading.edits import Delete, EditLog, Merge, Redo, Split, Undo
from napari_autosegnet.inference.proofreading.opened import shown_levels
from napari_autosegnet.inference.proofreading.proofreading import Proofreading
from napari_autosegnet.units import Placement
from object_stores import write_objects

NANOMETERS = Placement((20.0, 4.0, 4.0), (100.0, 2.0, -6.0), "nanometer")


def two_balls() -> np.ndarray:
    """Object 3 is two balls that touch, 5 and 9 are boxes, in (6, 24, 40)."""
    z, y, x = np.indices((6, 24, 40))
    objects = np.zeros((6, 24, 40), np.uint32)
    for center in (8, 18):
        objects[(3 * (z - 3)) ** 2 + (y - 8) ** 2 + (x - center) ** 2 < 36] = 3
    objects[1:4, 17:23, 2:20] = 5
    objects[2:6, 2:20, 30:39] = 9
    return objects


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_objects(tmp_path / "cells.zarr", two_balls(), NANOMETERS)


# ---------------------------------------------------------------- lazily and at once

boxes = st.tuples(*(st.tuples(st.integers(0, size - 1), st.integers(1, 5)) for size in (4, 11, 12)))
numbers = st.integers(1, 9)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("merge"), numbers, numbers),
        st.tuples(st.just("delete"), numbers),
        st.tuples(st.just("split"), numbers, boxes),
        st.just(("undo",)),
        st.just(("redo",)),
    ),
    max_size=12,
)


def at_once(objects: np.ndarray, edit: Merge | Delete | Split) -> np.ndarray:
    """An edit of a whole volume, as anybody would write it down."""
    result = objects.copy()
    if isinstance(edit, Merge):
        result[np.isin(objects, edit.objects)] = edit.objects[0]
    elif isinstance(edit, Delete):
        result[np.isin(objects, edit.objects)] = 0
    else:
        place = tuple(slice(start, start + size) for start, size in zip(edit.start, edit.shape, strict=True))
        result[place][edit.part] = edit.new
    return result


@given(steps=steps, seed=st.integers(0, 3), factor=st.sampled_from([(1, 1, 1), (1, 2, 2), (2, 3, 1)]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_edits_applied_block_by_block_equal_those_of_the_whole_volume(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any], seed: int, factor: tuple[int, int, int]
) -> None:
    stored = np.random.default_rng(seed).integers(0, 5, (4, 11, 12)).astype(np.uint32)
    log = EditLog(tmp_path_factory.mktemp("log") / "cells.edits.jsonl", "these")
    volumes, undone = [stored], []
    for kind, *what in steps:
        now = volumes[-1]
        if kind in ("undo", "redo"):
            log.append(Undo() if kind == "undo" else Redo())
            source, target = (volumes, undone) if kind == "undo" else (undone, volumes)
            if len(source) > (kind == "undo"):
                target.append(source.pop())
            continue
        there = sorted(set(np.unique(now).tolist()) - {0})
        if not there:
            continue
        chosen = list(dict.fromkeys(there[each % len(there)] for each in what if isinstance(each, int)))
        edit: Merge | Delete | Split
        if kind == "merge":
            if len(chosen) < 2:
                continue
            edit = Merge(objects=tuple(chosen))
        elif kind == "delete":
            edit = Delete(objects=tuple(chosen))
        else:
            inside = np.zeros(now.shape, bool)
            inside[tuple(slice(start, start + size) for start, size in what[1])] = True
            inside &= now == chosen[0]
            if not inside.any():
                continue
            edit = Split.of(chosen[0], max(4, log.highest) + 1, inside, (0, 0, 0))
        log.append(edit)
        volumes.append(at_once(now, edit))
        undone.clear()
    again = EditLog(log.path, "these")
    assert (again.done, again.undone, again.notes) == (log.done, log.undone, ())
    edited = Edited(again.done)
    level = stored[tuple(slice(None, None, step) for step in factor)]
    lazily = np.zeros_like(level)
    for origin in np.ndindex(2, 3, 3):
        z, y, x = (place * size for place, size in zip(origin, (2, 4, 5), strict=True))
        block = level[z : z + 2, y : y + 4, x : x + 5].copy()
        if block.size:
            lazily[z : z + 2, y : y + 4, x : x + 5] = edited.apply(block, (z, y, x), factor)
    np.testing.assert_array_equal(lazily, volumes[-1][tuple(slice(None, None, step) for step in factor)])


# ---------------------------------------------------------------- objects of a store


def test_objects_are_merged_split_and_deleted_and_all_of_it_undone(store: Path) -> None:
    before = two_balls()
    objects = Proofreading(store)
    assert object_table_path(store).exists()  # it was missing, and is measured once
    new = objects.split([(3, 6, 6), (3, 10, 8)], [(3, 8, 19), (3, 8, 45)])
    assert new == 10
    whole = np.asarray(objects.levels[0])
    assert set(np.unique(whole)) == {0, 3, 5, 9, 10}
    np.testing.assert_array_equal(np.isin(whole, (3, 10)), before == 3)
    # It is cut where the balls touch.
    assert np.flatnonzero((whole == 10).any(axis=(0, 1))).min() in (13, 14)
    assert np.flatnonzero((whole == 3).any(axis=(0, 1))).max() in (12, 13)
    assert objects.merge([5, 10]) == 5
    objects.delete([9])
    merged = np.where(np.isin(whole, (5, 10)), 5, np.where(whole == 9, 0, whole))
    np.testing.assert_array_equal(np.asarray(objects.levels[0]), merged)
    np.testing.assert_array_equal(np.asarray(objects.levels[1]), merged[:, ::2, ::2])
    assert objects.levels[0][3, 8, 19] == 5
    np.testing.assert_array_equal(objects.levels[0][2, ..., ::-3], merged[2, :, ::-3])
    again = Proofreading(store)
    np.testing.assert_array_equal(np.asarray(again.levels[0]), merged)
    # What was merged is split along other lines; its number is one that was never given.
    z, y, x = again.box(5)
    around = merged[z[0] : z[1], y[0] : y[1], x[0] : x[1]]
    assert (around == 5).sum() == (merged == 5).sum() > around.size / 5
    assert again.split([(2, 19, 4)], [(2, 19, 18)]) == 11
    assert again.object_of(10) == 5
    for _ in range(4):
        again.undo()
    np.testing.assert_array_equal(np.asarray(again.levels[0]), before)
    with pytest.raises(UserError, match="nothing to undo"):
        again.undo()
    for _ in range(3):
        again.redo()
    np.testing.assert_array_equal(np.asarray(again.levels[0]), merged)
    # Another window knows nothing of that.
    with pytest.raises(UserError, match="edited elsewhere"):
        objects.delete([5])
    np.testing.assert_array_equal(np.asarray(objects.levels[0]), merged)
    objects.undo()
    with pytest.raises(UserError, match="nothing to redo"):
        objects.delete([3]) or objects.redo()


def test_a_stroke_in_a_thin_part_gets_its_half_of_the_object(tmp_path: Path) -> None:
    bar = np.zeros((1, 24, 60), np.uint32)
    bar[0, 2:22, :30] = bar[0, 8:16, 30:] = 1
    objects = Proofreading(write_objects(tmp_path / "bar.zarr", bar, NANOMETERS))
    # The second one is in the thick part, but near its edge.
    new = objects.split([(0, 12, 40), (0, 12, 50)], [(0, 4, 4), (0, 7, 4)])
    whole = np.asarray(objects.levels[0])
    assert (whole[0, 2:22, :16] == new).mean() > 0.95 and (whole[0, 8:16, 36:] == 1).all()


def test_what_cannot_be_edited_is_refused_in_one_line(store: Path) -> None:
    objects = Proofreading(store)
    objects.delete([9])
    for edit, words in (
        (lambda: objects.merge([3, 3]), "two different objects"),
        (lambda: objects.merge([3, 0]), "choose an object first"),
        (lambda: objects.merge([3, 9]), "no object 9"),
        (lambda: objects.delete([77]), "no object 77"),
        (lambda: objects.split([(3, 8, 8)], [(2, 19, 5)]), "different objects"),
        (lambda: objects.split([(3, 8, 8)], [(-9, 8, 8)]), "within the volume"),
        (lambda: objects.split([(3, 8, 8)], [(3, 8, 8)]), "cover each other"),
        (lambda: objects.split([(3, 8, 8)], [(3, 8, float("nan"))]), "not numbers"),
    ):
        with pytest.raises(UserError, match=words):
            edit()
    assert len(Proofreading(store).log.done) == 1
    with pytest.raises(UserError, match="no numbered objects; predict with --instances"):
        Proofreading(store.parent / "none.zarr")
    with pytest.raises(StoppedError):
        object_table_path(store).unlink()
        Proofreading(store, lambda: True)
    object_table_path(store).write_text("object\n7\n")
    with pytest.raises(UserError, match="delete it, and the objects are measured again"):
        Proofreading(store)
    object_table_path(store).unlink()
    write_objects(store, np.where(two_balls() == 3, 4, 0), NANOMETERS)
    with pytest.raises(UserError, match="of other objects than those that are there now"):
        Proofreading(store)


def test_only_what_is_looked_at_is_read(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = Proofreading(store)
    read = 0

    class Watched:
        def __init__(self, array: Any) -> None:
            self.array, self.shape, self.dtype = array, array.shape, array.dtype

        def __getitem__(self, key: Any) -> Any:
            nonlocal read
            values = self.array[key]
            read += values.size
            return values

    for level in objects.levels:
        object.__setattr__(level, "array", Watched(level.array))
    objects.split([(3, 8, 6)], [(3, 8, 19)])
    assert read < two_balls().size / 2  # the box of object 3, and the strokes
    read = 0
    assert objects.levels[0][2, 3:5, 7:9].shape == (2, 2)
    objects.merge([5, 9])
    objects.undo()
    assert read == 4
    # What was looked at last can be read ahead of the next look, which then reads nothing.
    objects.levels[0].look_again()
    assert read == 8
    np.testing.assert_array_equal(objects.levels[0][2, 3:5, 7:9], two_balls()[2, 3:5, 7:9])
    assert read == 8


def test_a_store_is_shown_as_edited_only_by_edits_of_its_own_objects(store: Path) -> None:
    levels, edited, notes = shown_levels(store)
    assert notes == () and not edited.splits
    np.testing.assert_array_equal(np.asarray(levels[0]), two_balls())
    objects = Proofreading(store)
    objects.split([(3, 8, 6)], [(3, 8, 19)])
    objects.delete([9])
    now = np.asarray(objects.levels[0])
    for path in (store, store / "labels" / "instances"):
        levels, edited, notes = shown_levels(path)
        assert notes == () and len(edited.splits) == 1
        np.testing.assert_array_equal(np.asarray(levels[0]), now)
        np.testing.assert_array_equal(np.asarray(levels[1]), now[:, ::2, ::2])
    with pytest.raises(UserError, match="objects are not painted"):
        levels[0][0, 0, 0] = 1
    # The table says the same in other words: then its content tells.
    table = object_table_path(store)
    table.write_text(table.read_text() + "\n")
    assert shown_levels(store)[2] == ()
    np.testing.assert_array_equal(np.asarray(shown_levels(store)[0][0]), now)
    # Of other objects, or of who knows which, nothing is applied, and a line says so.
    table.write_text(table.read_text().replace("5,", "4,", 1))
    for words in ("of other objects", "not applied before the objects are measured"):
        levels, _, notes = shown_levels(store)
        assert words in notes[0]
        np.testing.assert_array_equal(np.asarray(levels[0]), two_balls())
        table.unlink(missing_ok=True)


# ---------------------------------------------------------------- the log


def test_a_log_that_was_cut_off_anywhere_holds_all_edits_but_the_last(tmp_path: Path) -> None:
    log = EditLog(tmp_path / "edits.jsonl", "these")
    log.append(Merge(objects=(1, 2)))
    log.append(Split.of(1, 7, np.ones((2, 3, 4), bool), (0, 0, 0)))
    content = log.path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]
    for length in {*range(0, len(content), 7), *ends, *(end - 1 for end in ends)} - {len(content)}:
        log.path.write_bytes(content[:length])
        torn = EditLog(log.path, "these")
        # A whole line may lack its end.
        whole = sum(length >= end - 1 for end in ends)
        assert len(torn.done) == max(0, whole - 1)
        assert len(torn.notes) == (length not in (0, *ends, *(end - 1 for end in ends)))
        torn.append(Delete(objects=(3,)))
        assert EditLog(log.path, "these").done == [*log.done[: max(0, whole - 1)], Delete(objects=(3,))]
    for damage, words in (
        (content.replace(b'"version":1', b'"version":9'), "newer version"),
        (b"\n".join(content.splitlines()[1:]), "first line of .* is lost"),
    ):
        log.path.write_bytes(damage)
        with pytest.raises(UserError, match=words):
            EditLog(log.path, "these")
    # A mask that grows beyond its box, or falls short of it, is no mask.
    log.path.write_bytes(content.replace(b'"shape":[2,3,4]', b'"shape":[9,9,9]'))
    assert len(EditLog(log.path, "these").done) == 1


def test_what_was_merged_can_be_edited_though_the_line_of_its_split_is_lost(store: Path) -> None:
    objects = Proofreading(store)
    before = np.asarray(objects.levels[0])
    assert objects.merge([5, objects.split([(3, 6, 6), (3, 10, 8)], [(3, 8, 19), (3, 8, 45)])]) == 5
    header, _, merge = objects.log.path.read_text().splitlines()
    objects.log.path.write_text(f"{header}\nlost\n{merge}\n")
    again = Proofreading(store)
    assert len(again.log.notes) == 1
    z, y, x = again.box(5)
    assert (before[slice(*z), slice(*y), slice(*x)] == 5).sum() == (before == 5).sum()
    np.testing.assert_array_equal(np.asarray(again.levels[0]), before)
    again.delete([5])
    np.testing.assert_array_equal(np.asarray(again.levels[0]), np.where(before == 5, 0, before))
    again.undo()
    assert again.split([(3, 6, 6), (3, 10, 8)], [(3, 8, 19), (3, 8, 45)]) == 11, "10 is part of 5"
    assert 11 in np.asarray(again.levels[0])


@pytest.mark.skipif(sys.platform == "win32", reason="has no kill -9")
def test_a_killed_editor_leaves_a_log_of_all_edits_that_it_told_of(tmp_path: Path) -> None:
    program = f"""
import numpy as np, pathlib
from napari_autosegnet.inference.proofreading.edits import EditLog, Split
log = EditLog(pathlib.Path({str(tmp_path / "edits.jsonl")!r}), "these")
mask = np.random.default_rng(0).random((20, 40, 40)) < 0.5
for number in range(len(log.done) + 1, 10**6):
    log.append(Split.of(1, number, mask, (0, 0, 0)))
    print(number, flush=True)
"""
    for least in (1, 4, 7):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            told = 0
            while told < least:
                told = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            told = max([told, *map(int, process.stdout.read().split())])
        log = EditLog(tmp_path / "edits.jsonl", "these")
        assert [edit.new for edit in log.done] == list(range(1, len(log.done) + 1))
        assert len(log.done) in (told, told + 1)
        assert len(log.notes) <= 1


# ---------------------------------------------------------------- a store of their own


@pytest.mark.parametrize("kind", ["0.5", "shards", "0.4", "2D"])
def test_edited_objects_are_exported_and_measured(tmp_path: Path, kind: str, tree: Callable[[Path], Any]) -> None:
    before = two_balls()
    more: dict[str, Any] = {"shards": {"sharded": True}, "0.4": {"zarr_format": 2}}.get(kind, {})
    store = write_objects(tmp_path / "cells.zarr", before[3] if kind == "2D" else before, NANOMETERS, **more)
    section = 0 if kind == "2D" else 3
    objects = Proofreading(store)
    objects.split([(section, 8, 6)], [(section, 8, 19)])
    objects.merge([9, 5])
    stored = tree(store)
    out = tmp_path / "mended.zarr"
    assert run(["objects", "export", str(store), "--out", str(out)]) == 0
    assert tree(store) == stored
    written = Proofreading(out)
    assert not written.log.done and written.placement == objects.placement
    for mine, theirs in zip(written.levels, objects.levels, strict=True):
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(theirs))
        assert (mine.array.chunks, mine.array.shards) == (theirs.array.chunks, theirs.array.shards)
    yaozarrs.validate_zarr_store(str(out))
    yaozarrs.validate_zarr_store(str(out / "labels" / "instances"))
    wanted = Measurements()
    whole = np.asarray(objects.levels[0]).reshape(objects.shape)
    wanted.add(whole, objects.shape, (0, 0, 0))
    wanted.write(tmp_path / "wanted.csv", objects.placement)
    assert object_table_path(out).read_text() == (tmp_path / "wanted.csv").read_text()
    with pytest.raises(UserError, match="exists; choose another name"):
        api.export_objects(store, out)
    with pytest.raises(UserError, match=r"written as Zarr, not as \.tif; give --out NAME\.zarr, then convert it"):
        api.export_objects(store, tmp_path / "mended.tif")
    assert not (tmp_path / "mended.tif").exists()
    # One that was stopped leaves nothing; what a crash left is replaced.
    crashed = tmp_path / ".more.zarr.partial"
    crashed.mkdir()
    with pytest.raises(StoppedError):
        api.export_objects(store, tmp_path / "more.zarr", should_stop=lambda: True)
    assert not list(tmp_path.glob("*more.zarr*")) or {p.name for p in tmp_path.glob("*more.zarr*")} == {
        ".more.zarr.lock"
    }
    crashed.mkdir()
    assert tree(api.export_objects(store, tmp_path / "more.zarr")).keys() == tree(out).keys()
    assert not edit_log_path(out).exists()
