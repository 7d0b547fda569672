"""History and status, folded from the events of a run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_autosegnet.events import (
    ArchitectureFound,
    Epoch,
    Event,
    Failed,
    Finished,
    Note,
    Paused,
    ProgressMade,
    QualityMeasured,
    Resumed,
    Started,
    Stopped,
    WarningRaised,
    format_event,
    parse_event,
)
from napari_autosegnet.run import Run, RunHistory, RunStatus

START = datetime(2026, 1, 1, tzinfo=UTC)
FOLDS = settings(max_examples=30, deadline=None)
STEPS = st.sampled_from(["search", "train"])
NUMBERS = st.none() | st.floats(0, 1)
EVENTS = st.one_of(
    st.builds(Started, step=STEPS),
    st.builds(Finished, step=STEPS),
    st.builds(Stopped, step=st.none() | STEPS),
    st.builds(Failed, step=st.none() | STEPS, text=st.just("gone")),
    st.just(Paused()),
    st.just(Resumed()),
    st.builds(
        Epoch,
        step=STEPS,
        epoch=st.integers(1, 5),
        loss=NUMBERS,
        mean_iou=NUMBERS,
        best_reward=NUMBERS,
        iou=st.dictionaries(st.sampled_from("ab"), NUMBERS),
        seconds=st.none() | st.floats(0, 1e6),
        seconds_left=st.none() | st.floats(0, 1e6),
    ),
    st.builds(ProgressMade, step=st.sampled_from(["predict", "instances"]), done=st.integers(0, 9), total=st.just(9)),
    st.builds(ArchitectureFound, architecture=st.just({}), score=NUMBERS),
    st.builds(
        QualityMeasured,
        step=STEPS,
        pixels=st.just({"a": 5}),
        sections=st.just(1),
        mean_iou=st.floats(0, 1),
        iou=st.just({"a": 0.5}),
    ),
    st.just(WarningRaised(text="collapsed")),
    st.just(Note(text="x")),
)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def timed(events: Sequence[Event]) -> list[Event]:
    """The events, one a second, as they come from a file."""
    return [event.model_copy(update={"time": at(second)}) for second, event in enumerate(events)]


def status_of(*events: Event, **filters: Any) -> RunStatus:
    status = RunStatus(**filters)
    for event in timed(events):
        status.add(event)
    return status


def epoch(number: int, **values: Any) -> Epoch:
    return Epoch(**{"step": "train", "epoch": number, **values})


# Properties


@FOLDS
@given(events=st.lists(EVENTS, max_size=12), cut=st.integers(0, 12), step=st.none() | STEPS)
def test_folding_in_pieces_is_folding_at_once(events: list[Event], cut: int, step: Any) -> None:
    """Also where one who comes later reads the first part from the file."""
    events = timed(events)
    history, status = RunHistory.of(events[:cut]), RunStatus(step)
    for event in events[:cut]:
        status.add(event)
    for event in events[cut:]:
        history.add(event)
        status.add(event)
    whole = RunStatus(step)
    for event in events:
        whole.add(event)
    assert history == RunHistory.of(events) and status == whole
    for name in ("search", "train"):
        numbers = [each.epoch for each in history.epochs(name)]  # type: ignore[arg-type]
        assert numbers == sorted(set(numbers))


@FOLDS
@given(events=st.lists(EVENTS, max_size=8), damage=st.binary(max_size=40), place=st.integers(0, 8))
def test_a_damaged_line_leaves_the_rest(
    events: list[Event], damage: bytes, place: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = Run.create(tmp_path_factory.mktemp("run"))
    lines = [format_event(event, at(0)).encode() for event in events]
    damaged = damage.replace(b"\n", b"")
    if parse_event(damaged) is None:
        lines.insert(place, damaged)
    run.events_file.write_bytes(b"".join(line + b"\n" for line in lines))
    expected = [event.model_copy(update={"time": at(0)}) for event in events]
    assert RunHistory.of(run.events()) == RunHistory.of(expected)
    assert RunStatus.after(run.events()) == RunStatus.after(expected)


# History


def test_an_epoch_replaces_itself_and_all_later_ones() -> None:
    history = RunHistory.of([epoch(n, loss=1.0) for n in (1, 2, 3, 4)])
    history.add(Epoch(step="search", epoch=2, loss=7.0))
    history.add(epoch(3, loss=0.5))
    assert history.points("train", "loss") == [(1, 1.0), (2, 1.0), (3, 0.5)]
    history.add(epoch(1, loss=0.1))
    assert history.points("train", "loss") == [(1, 0.1)] and history.points("search", "loss") == [(2, 7.0)]


def test_points_are_those_that_have_a_value() -> None:
    history = RunHistory.of([epoch(1, iou={"a": 0.5}), epoch(2, iou={"a": None, "b/c": 0.25}), epoch(3)])
    assert history.class_names("train") == ["a", "b/c"]
    assert history.points("train", "iou/a") == [(1, 0.5)]
    assert history.points("train", "iou/b/c") == [(2, 0.25)]
    assert history.points("train", "loss") == history.points("search", "loss") == []


def test_warnings_of_the_search_stand_at_their_epoch() -> None:
    searched = [Epoch(step="search", epoch=n) for n in (1, 2)]
    warning = WarningRaised(text="collapsed")
    assert RunHistory.of([*searched, warning]).warnings == [2]
    assert RunHistory.of([*searched, warning, searched[1]]).warnings == []
    assert RunHistory.of([*searched, epoch(1), warning]).warnings == []


# Status


def test_how_a_run_ended() -> None:
    assert RunStatus.after([]).state == "new"
    assert status_of(Started(step="train"), epoch(1)).state == "interrupted"
    assert status_of(Started(step="train"), Finished(step="train")).state == "finished"
    assert status_of(Started(step="train"), Stopped(step="train"), Note(text="measuring")).state == "interrupted"
    assert status_of(Failed(text="gone")).state == "failed"


def test_the_best_score_is_of_the_job_that_goes_on() -> None:
    first = [Started(step="train"), epoch(1, mean_iou=0.8), epoch(2, mean_iou=0.6)]
    status = status_of(*first, Started(step="train"), epoch(3, mean_iou=0.7))
    assert (status.step, status.epoch, status.score) == ("train", 3, 0.8)
    again = status_of(*first, Started(step="train"), epoch(1, mean_iou=0.5))
    assert (again.epoch, again.score) == (1, 0.5), "another training, with more labels"
    searched = status_of(*first, Epoch(step="search", epoch=1, reward=0.1, best_reward=0.2))
    assert (searched.step, searched.score) == ("search", 0.2)


def test_only_the_jobs_of_a_step_count() -> None:
    status = RunStatus("train")
    counted = [status.add(each) for each in (Started(step="search"), Note(text="x"), Started(step="train"), Paused())]
    assert counted == [False, False, True, True]
    assert not status.add(Epoch(step="search", epoch=1)) and (status.last_step, status.step) == ("search", "train")
    assert status.paused and status.epoch is None


def test_blocks_of_any_stage_belong_to_the_segmentation() -> None:
    status = RunStatus("predict")
    for event in (Started(step="predict"), ProgressMade(step="instances", done=3, total=4)):
        assert status.add(event)
    assert status.fraction(START) == 0.75


def test_time_tells_more_than_what_is_counted_on_the_way() -> None:
    """A search with a budget counts its finalists, which are a small part of it."""
    status = status_of(epoch(1, seconds=100.0, seconds_left=100.0), ProgressMade(done=0, total=6, seconds_left=50.0))
    assert status.fraction(at(1)) == 0.75
    assert status_of(epoch(1), ProgressMade(done=3, total=6)).fraction(START) == 0.5


def test_time_stands_still_in_a_pause() -> None:
    events = [Started(step="train"), epoch(1, seconds=100.0, seconds_left=300.0)]
    status = status_of(*events)
    assert status.seconds_left(at(11)) == 290 and status.fraction(at(11)) == pytest.approx(110 / 400)
    status.add(Paused(time=at(11)))
    assert status.seconds_left(at(5000)) == 290
    status.add(Resumed(time=at(5000)))
    assert status.seconds_left(at(5040)) == 250 and status.seconds_left(at(9999)) == 0
    status.add(Started(step="train", time=at(9999)))
    assert status.seconds_left(at(9999)) is None and status.fraction(at(9999)) is None
