"""Events in words."""

from __future__ import annotations

from typing import Any

import pytest

from napari_autosegnet.event_words import line, under_way
from napari_autosegnet.events import (
    ArchitectureFound,
    BlocksPlanned,
    BlockWritten,
    CandidateRated,
    CandidatesRated,
    DataRead,
    Epoch,
    Event,
    Failed,
    FinalistTrained,
    Finished,
    Note,
    ProgressMade,
    QualityMeasured,
    RoundBegun,
    Started,
    Stopped,
    WarningRaised,
)

EPOCH = Epoch(step="train", epoch=3, epochs=10, loss=0.51234, mean_iou=0.7, seconds=30.0, seconds_left=70.0)
ARCHITECTURE: dict[str, Any] = {"down": []}


def test_an_epoch_in_one_line() -> None:
    assert line(EPOCH) == "train: epoch 3/10  loss 0.512  mean iou 0.700, 1 min 10 s left"


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Note(text="smaller batch"), "note: smaller batch"),
        (WarningRaised(text="entropy has collapsed"), "warning: entropy has collapsed"),
        (BlocksPlanned(blocks=8, done=3, skipped=0), "predict: 8 blocks, 3 done before"),
        (Finished(step="search", seconds=61.0), "search: finished in 1 min 01 s"),
        (Finished(step="search"), "search: finished in 0 s"),
        (Stopped(step="search", reason="asked"), "search: stopped (asked)"),
        (Stopped(), "job: stopped"),
        (Failed(text="gone"), "job: failed: gone"),
        (CandidatesRated(count=24, best=0.5), "search: 24 candidates rated, best 0.500"),
        (CandidatesRated(count=24), "search: 24 candidates rated"),
        (
            BlocksPlanned(blocks=2, halo=32, halo_agreement=0.99962),
            "predict: 2 blocks, halo 32 pixels (labels agree with exact on 99.962 % of pixels)",
        ),
        (
            BlocksPlanned(blocks=2, halo=8, precision="float16", precision_agreement=0.99991),
            "predict: 2 blocks, halo 8 pixels, float16 (labels agree with float32 on 99.991 % of pixels)",
        ),
        (
            FinalistTrained(index=1, count=4, round=2, rounds=3, score=0.5, parameters=1_200_000),
            "search: finalist 1 of 4, round 2 of 3: 0.500, 1.20 M parameters",
        ),
        (FinalistTrained(index=1, count=4, round=2, rounds=3), "search: finalist 1 of 4, round 2 of 3"),
        (ArchitectureFound(architecture=ARCHITECTURE, score=0.5, final=False), None),
        (ArchitectureFound(architecture=ARCHITECTURE, score=0.5), "search: architecture chosen (score 0.500)"),
        (
            ArchitectureFound(architecture=ARCHITECTURE, score=0.5, remark="why"),
            "search: architecture chosen (score 0.500); why",
        ),
        (Epoch(step="search", phase="warm-up", epoch=1, reward=None), "warm-up: epoch 1"),
        (
            QualityMeasured(step="train", mean_iou=0.71, iou={"a": 0.71}, pixels={"a": 1240}, sections=3),
            "train: quality 0.71, checked on 1,240 pixels of 3 sections",
        ),
        (ProgressMade(step="V_rand", done=2, total=30), "V_rand: 2 of 30"),
        (ProgressMade(step="V_rand", done=2, total=None), "V_rand: 2"),
        (DataRead(text=""), None),
        (BlockWritten(index=3, origin=(0, 0, 0), status="done", voxels=8, step="predict"), None),
    ],
)
def test_a_line_for_each_event(event: Event, words: str | None) -> None:
    assert line(event) == words


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Started(step="fit"), "preparing"),
        (RoundBegun(round=1, rounds=3, networks=("a", "b")), "comparing 2 networks, round 1 of 3"),
        (RoundBegun(round=2, rounds=3, networks=("a",)), "training a network: a"),
        (RoundBegun(round=3, rounds=3, networks=("a",)), "training the chosen one to the end: a"),
        (Epoch(step="search", epoch=3, phase="warm-up"), "epoch 3, warming up"),
        (EPOCH, "epoch 3"),
        (CandidateRated(network="a", round=1, rounds=2), None),
        (CandidateRated(network="a", round=2, rounds=2), "measuring and writing the networks"),
        (ProgressMade(step="candidates rated", done=1, total=8), "choosing the best networks: 1 of 8 rated"),
        (
            ProgressMade(step="finalists trained", done=1, total=8),
            "training the best few alone: 1 of 8 trainings done",
        ),
        (ProgressMade(step="cubes", done=1, total=8), "writing cubes: section 1 of 8"),
        (ProgressMade(step="seeds", done=1, total=8), "numbering objects: block 1 of 8"),
        (ProgressMade(done=1, total=8), "block 1 of 8"),
        (ProgressMade(done=1), None),
        (Note(text="smaller batch"), None),
    ],
)
def test_what_is_under_way(event: Event, words: str | None) -> None:
    assert under_way(event) == words
