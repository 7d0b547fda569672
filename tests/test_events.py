"""Events: what is accepted, and the line that each becomes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from napari_autosegnet.events import (
    Epoch,
    Event,
    Note,
    PreviewDrawn,
    QualityMeasured,
    format_event,
    listeners,
    parse_event,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)


def test_a_line_holds_what_was_given_and_the_time() -> None:
    event = Epoch(step="train", epoch=3, loss=0.5, iou={"a": None})
    line = format_event(event, NOW)
    assert json.loads(line) == {
        "event": "epoch",
        "time": "2026-01-02T03:04:05.678+00:00",
        "step": "train",
        "epoch": 3,
        "iou": {"a": None},
        "loss": 0.5,
    }
    assert line.startswith('{"event":"epoch","time":') and event.time is None
    assert parse_event(line) == event.model_copy(update={"time": NOW})


def test_every_kind_of_event_has_a_name_of_its_own() -> None:
    kinds = get_args(get_args(Event)[0])
    names = {kind.model_fields["event"].default for kind in kinds}
    assert len(names) == len(kinds) == 23
    assert all(kind.__doc__ for kind in kinds)


@pytest.mark.parametrize(
    "values",
    [
        {"epoch": "many"},
        {"epoch": True},
        {"seconds": "x"},
        {"step": ["search"]},
        {"step": "dance"},
        {"iou": [0.5]},
        {"phase": 5},
        {"epoch": 10**30},
        {"event": "party"},
    ],
)
def test_a_line_whose_values_are_of_another_kind_is_damaged(values: dict[str, Any]) -> None:
    good = {"event": "epoch", "step": "train", "epoch": 1, "seconds": 1, "iou": {"a": None}, "reward": None}
    assert parse_event(json.dumps(good | {"new": [1]})) == Epoch(step="train", epoch=1, seconds=1.0, iou={"a": None})
    assert parse_event(json.dumps({**good, **values})) is None


@pytest.mark.parametrize("line", ["", "null", "[" * 100_000, b"\xff", '{"event": "note", "te', '{"text": "x"}'])
def test_what_is_no_event_is_damaged(line: str | bytes) -> None:
    assert parse_event(line) is None


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400])
def test_numbers_that_cannot_be_drawn_are_none(value: str) -> None:
    event = parse_event(f'{{"event": "epoch", "step": "train", "epoch": 1, "loss": {value}, "iou": {{"a": {value}}}}}')
    assert event == Epoch(step="train", epoch=1, loss=None, iou={"a": None})
    assert Epoch(step="train", epoch=1, loss=float("nan")).loss is None


@pytest.mark.parametrize("time", ["yesterday", 5, None, "9999-99-99"])
def test_an_event_is_worth_more_than_its_time(time: Any) -> None:
    event = parse_event(json.dumps({"event": "note", "text": "x", "time": time}))
    assert event == Note(text="x")


def test_names_that_are_no_utf8_are_written_out() -> None:
    event = Note(text="daten-\udcff µ")
    assert event.text == "daten-\\xff µ" and parse_event(format_event(event, NOW)) is not None


def test_an_event_that_is_wrong_is_refused_where_it_is_made() -> None:
    with pytest.raises(ValidationError):
        Epoch(step="train", epoch="3")  # type: ignore[arg-type]


def test_a_quality_is_written_with_what_it_means() -> None:
    event = QualityMeasured(step="train", pixels={"a": 900, "b": 37}, sections=1, mean_iou=0.7, iou={"a": 0.7, "b": 0})
    content = json.loads(format_event(event, NOW))
    assert content["known"] is False and "finds nothing of 'b'" in content["weakness"]
    read = parse_event(json.dumps(content))
    assert isinstance(read, QualityMeasured) and read.quality == event.quality


def test_listeners_hear_the_same() -> None:
    heard: list[Event] = []
    event = PreviewDrawn(shape=(2, 3), input=4)
    listeners(heard.append, heard.append)(event)
    assert heard == [event, event]
