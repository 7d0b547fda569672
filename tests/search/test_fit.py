"""Networks of several sizes compete, and a killed fit ends as an undisturbed one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from learnable import Blobs, blobs
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import CandidateRated, Epoch, Event, Note, Report
from napari_autosegnet.networks.pretrained import start_from_public_images
from napari_autosegnet.networks.specification import NetworkSpecification
from napari_autosegnet.search.candidates import SIZES, Candidate
from napari_autosegnet.search.fit import TRAINING_COST, Fit
from napari_autosegnet.search.latency import LATENCY_SIDE
from napari_autosegnet.settings import AugmentationSettings, FitSettings
from napari_autosegnet.training.patches_ahead import PatchStream
from napari_autosegnet.training.self_teaching import FOREST_EPOCHS
from napari_autosegnet.training.trainer import Trainer
from napari_autosegnet.training.training_data import TrainingData

SETTINGS = FitSettings(
    epochs=9,
    budget=None,
    candidates=3,
    steps_per_epoch=4,
    batch_size=2,
    patch_size=32,
    augmentation=AugmentationSettings(rotation="none", elastic=0, blur=0),
)


@pytest.fixture(autouse=True)
def _same_latencies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which network is chosen may depend on how fast each is, and that is measured."""
    measure(monkeypatch, lambda network: 100 / network.stem_stride)


def measure(monkeypatch: pytest.MonkeyPatch, latency: Callable[[NetworkSpecification], float]) -> None:
    """Let networks take so many milliseconds."""
    monkeypatch.setattr(
        "napari_autosegnet.search.fit.measured_latencies", lambda networks, device: [latency(each) for each in networks]
    )


def make(settings: FitSettings = SETTINGS, checkpoint: Path | None = None) -> Fit:
    data = replace(blobs(), everything=Blobs)
    return Fit(data, settings, in_channels=1, checkpoint=checkpoint)


def figures(fit: Fit) -> list[tuple[str, int, float, float]]:
    return [
        (str(each.size), each.trainer.budget.epoch, each.scores.mean_iou, each.trainer.best.loss)
        for each in fit.candidates
    ]


def test_the_chosen_one_trains_to_the_end_at_a_falling_rate_on_everything() -> None:
    heard: list[Event] = []
    drawn = 0

    def all_patches() -> PatchStream:
        nonlocal drawn
        drawn += 1
        return Blobs()

    fit = Fit(replace(blobs(), everything=all_patches), SETTINGS, in_channels=1)
    chosen = fit.run(report=heard.append)
    epochs = [event for event in heard if isinstance(event, Epoch)]
    rated = [event for event in heard if isinstance(event, CandidateRated)]
    assert [event.epoch for event in epochs] == list(range(1, 10)), "those of all networks together"
    assert [event.network for event in rated[:3]] == [str(size) for size in SIZES[:3]]
    assert len(rated) == 6 and chosen is not None and rated[5].network == str(chosen.size)
    assert sorted(each.trainer.budget.epoch for each in fit.candidates) == [1, 2, 6] and drawn == 1
    rates = [event.learning_rate for event in epochs if event.network == str(chosen.size)]
    full = SETTINGS.optimization.learning_rate
    assert rates[1] == pytest.approx(full), "steady after the first epoch"
    assert all(later < earlier for earlier, later in pairwise(rates[2:])) and rates[-1] < 0.1 * full
    assert [event.mean_iou is None for event in epochs] == [False] * 5 + [True] * 4, (
        "what is learned from, is not scored"
    )
    kept = chosen.result
    assert kept.unchecked is not None and chosen.trainer.last is not None
    assert kept.best.mean_iou == chosen.trainer.last.mean_iou
    assert not all(torch.equal(value, kept.best.weights[name]) for name, value in kept.unchecked.items())
    for other in fit.candidates:
        assert (other.result.unchecked is None) == (other is not chosen)


def test_sizes_that_are_too_slow_for_the_time_do_not_compete(monkeypatch: pytest.MonkeyPatch) -> None:
    measure(monkeypatch, lambda network: 1e8 if network.stem_stride == 2 else 1e-3)
    fit = make(SETTINGS.changed(epochs=4, budget=1e4, candidates=None, choosing=0.5))
    fit.run()
    assert [each.size for each in fit.candidates] == [SIZES[0], SIZES[2]]


@pytest.mark.parametrize(("epochs_in_first_round", "competes"), [(2.7, True), (2.3, False)])
def test_about_three_epochs_in_the_first_round_are_enough(
    epochs_in_first_round: float, competes: bool, monkeypatch: pytest.MonkeyPatch, use_threads: Callable[[int], None]
) -> None:
    use_threads(1)
    settings = SETTINGS.changed(epochs=None, budget=1e4, candidates=None, choosing=0.5)
    # Of eight, each has 1/3 of half of the time divided by eight.
    seconds = 1e4 * 0.5 / 3 / 8 / epochs_in_first_round
    pixels = settings.steps_per_epoch * settings.batch_size * settings.patch_size**2
    slow = 1000 * seconds / (TRAINING_COST * pixels / LATENCY_SIDE**2)

    measure(monkeypatch, lambda network: slow if network.stem_stride == 2 else 1e-3)
    fit = make(settings)
    fit.run(should_stop=lambda: True)
    assert any(each.size.stem_stride == 2 for each in fit.candidates) == competes


def test_speeds_are_measured_again_after_each_round(
    monkeypatch: pytest.MonkeyPatch, use_threads: Callable[[int], None]
) -> None:
    use_threads(1)
    measured = iter([90.0, 80.0, 40.0, 50.0, 60.0, 30.0])  # two at first, both after each of two rounds
    measure(monkeypatch, lambda network: next(measured))
    fit = make(SETTINGS.changed(epochs=3, candidates=2))
    fit.run()
    assert [each.latency for each in fit.candidates] == [40, 30], "the lowest, also of the one that left"


def test_all_networks_of_a_round_get_the_same_time() -> None:
    fit = make(SETTINGS.changed(epochs=None, budget=1000.0))
    assert fit.run(should_stop=lambda: True) is None
    # 0.6 of the budget are two rounds before the last, however long an epoch of each of the three takes.
    side_by_side = min(3, torch.get_num_threads())
    for each in fit.candidates:
        assert each.limits.seconds == pytest.approx(1000 * 0.6 / 2 / 3 * side_by_side)


def test_the_rate_falls_from_where_the_last_round_begins() -> None:
    fit = make(SETTINGS.changed(epochs=None, budget=1.0, candidates=1, choosing=0.7))
    chosen = fit.run()
    assert chosen is not None and chosen.limits.fall_from is not None
    assert 0.7 <= chosen.limits.fall_from < 1


def scarce() -> TrainingData:
    """With too few pixels to check anything."""
    data = blobs()
    few = data.validation_targets.clone()
    few[:, 2:] = -1
    return replace(data, validation_targets=few, everything=Blobs)


def test_too_few_checked_pixels_compare_nothing() -> None:
    heard: list[Event] = []
    fit = Fit(scarce(), SETTINGS.changed(candidates=None), in_channels=1)
    fit.run(report=heard.append, should_stop=lambda: True)
    assert [each.size for each in fit.candidates] == [SIZES[0]]
    assert any(isinstance(event, Note) and "too little annotation" in event.text for event in heard)


class Painted:
    """Data with more to check, once so many epochs are over."""

    def __init__(self, epoch: int, told: list[Event]) -> None:
        self.epoch, self._told, self._taken = epoch, told, False

    @property
    def is_waiting(self) -> bool:
        return not self._taken and sum(isinstance(event, Epoch) for event in self._told) >= self.epoch

    def take(self, epoch: int) -> TrainingData:
        self._taken = True
        return replace(blobs(), everything=Blobs, version=1)


TRIED = SETTINGS.changed(candidates=None, epochs=12)


def test_a_network_learns_from_all_of_a_few_strokes_after_a_trial() -> None:
    heard: list[Event] = []
    results: list[tuple[bool, bool]] = []
    fit = Fit(scarce(), TRIED, in_channels=1)

    def look(candidate: Candidate) -> None:
        same = all(
            torch.equal(value, candidate.trainer.best.weights[name]) for name, value in candidate.weights.items()
        )
        results.append((same, candidate.result.unchecked is None))

    chosen = fit.run(report=heard.append, on_epoch=look)
    assert chosen is not None and chosen.trainer.began_at == 5, "the epoch in which 0.35 of the budget is used up"
    validated = [event.validation_loss is not None for event in heard if isinstance(event, Epoch)]
    assert validated == [True] * 5 + [False] * 7
    new = FOREST_EPOCHS - 1
    assert results[5 : 5 + new] == [(True, True)] * new, "it knows less at first: the one of the trial is shown"
    assert results[5 + new :] == [(False, False)] * (7 - new)


@pytest.mark.parametrize("epochs", [4, 5, 7])
@pytest.mark.parametrize("painted", [None, 6])
def test_a_fit_on_few_strokes_is_resumed_exactly(epochs: int, painted: int | None, tmp_path: Path) -> None:
    def run(checkpoint: Path | None, stop_after: int = 99) -> Fit:
        told: list[Event] = []
        settled = replace(blobs(), everything=Blobs, version=1) if painted and epochs > painted else scarce()
        again = checkpoint is not None and checkpoint.exists()
        fit = Fit(settled if again else scarce(), TRIED, in_channels=1, checkpoint=checkpoint)
        if again:
            fit.resume()
        more = None if painted is None or (again and epochs > painted) else Painted(painted - epochs * again, told)
        fit.run(
            report=told.append,
            should_stop=lambda: sum(isinstance(event, Epoch) for event in told) >= stop_after,
            more_data=more,
        )
        return fit

    undisturbed = run(None)
    run(tmp_path / "fit.pt", stop_after=epochs)
    resumed = run(tmp_path / "fit.pt")
    assert figures(resumed) == figures(undisturbed)
    (one,), (other,) = resumed.candidates, undisturbed.candidates
    assert one.trainer.began_at == other.trainer.began_at == (5 if painted is None else 6)
    for name, value in one.weights.items():
        assert torch.equal(value, other.weights[name]), name


def test_once_enough_is_painted_a_network_begins_anew_and_is_checked() -> None:
    heard: list[Event] = []
    fit = Fit(scarce(), TRIED, in_channels=1)
    fit.run(report=heard.append, more_data=Painted(6, heard))
    validated = [event.validation_loss is not None for event in heard if isinstance(event, Epoch)]
    assert validated == [True] * 5 + [False] + [True] * 2 + [False] * 4, "a trial, all strokes, checked, the last round"
    assert fit.candidates[0].trainer.began_at == 6


def test_without_learning_from_everything_the_last_round_is_validated() -> None:
    data = blobs()
    settings = SETTINGS.changed(learn_from_everything=False, candidates=1, epochs=3)
    fit = Fit(replace(data, everything=lambda: pytest.fail("not asked for")), settings, in_channels=1)
    heard: list[Event] = []
    chosen = fit.run(report=heard.append)
    assert chosen is not None and chosen.result.unchecked is None
    assert len({event.validation_loss for event in heard if isinstance(event, Epoch)}) == 3


@pytest.mark.parametrize(("stop_at", "threads"), [(11, 2), (21, 3)])
def test_a_stopped_fit_continues_to_the_same_networks_side_by_side(
    stop_at: int, threads: int, tmp_path: Path, use_threads: Callable[[int], None]
) -> None:
    use_threads(1)
    undisturbed = make()
    undisturbed.run()
    use_threads(threads)
    first = make(checkpoint=tmp_path / "fit.pt")
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > stop_at

    first.run(should_stop=stop)
    second = make(checkpoint=tmp_path / "fit.pt")
    if (tmp_path / "fit.pt").exists():
        second.resume()
    second.run()
    assert figures(second) == figures(undisturbed)
    assert second.chosen is not None and undisturbed.chosen is not None
    assert second.chosen.size == undisturbed.chosen.size


def test_each_thread_trains_a_network(use_threads: Callable[[int], None]) -> None:
    use_threads(2)
    reporting: dict[int, int] = {}

    def hear(event: Event) -> None:
        if isinstance(event, Epoch):
            reporting[event.epoch] = threading.get_ident()

    make(SETTINGS.changed(epochs=8, candidates=2, choosing=0.75)).run(report=hear)
    assert len({reporting[epoch] for epoch in range(1, 7)}) == 2, "side by side"
    assert {reporting[7], reporting[8]} == {threading.get_ident()}, "the last one alone"


def test_epochs_that_end_at_the_same_moment_are_counted_each(use_threads: Callable[[int], None]) -> None:
    use_threads(2)
    fit, heard = make(SETTINGS.changed(epochs=8, candidates=2, choosing=0.75)), list[int]()
    both_trained = threading.Barrier(2)

    def hear(event: Event) -> None:
        if isinstance(event, Epoch):
            heard.append(event.epoch)

    def run(trainer: Trainer, *arguments: Any, report: Report, really: Any = Trainer.run, **options: Any) -> Any:
        def together(event: Event) -> None:
            if isinstance(event, Epoch) and len(fit.competing) == 2:
                both_trained.wait(timeout=30)
            report(event)

        return really(trainer, *arguments, report=together, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Trainer, "run", run)
        fit.run(report=hear)
    assert heard == list(range(1, 9))


def test_there_is_something_to_return_from_the_first_epoch_on() -> None:
    seen: list[Candidate] = []
    fit = make()
    fit.run(on_epoch=seen.append)
    assert len(seen) >= 2 and all(each.trainer.best.weights for each in seen)
    stopped = make()
    assert stopped.run(should_stop=lambda: True) is None, "nothing was trained"
    heard: list[Event] = []

    def after_one_epoch() -> bool:
        return any(isinstance(event, Epoch) for event in heard)

    assert make().run(report=heard.append, should_stop=after_one_epoch) is not None


def test_a_budget_too_short_trains_the_usual_size_and_says_so() -> None:
    heard: list[Event] = []
    fit = make(SETTINGS.changed(epochs=2, candidates=None))
    chosen = fit.run(report=heard.append)
    assert chosen is not None and chosen.size == SIZES[0] and len(fit.candidates) == 1
    assert any(isinstance(event, Note) and "too little time" in event.text for event in heard)


def test_with_little_annotation_the_usual_network_begins_with_learned_weights() -> None:
    data = blobs()
    few = data.validation_targets.clone()
    few[:, 2:] = -1
    scarce = replace(data, validation_targets=few)
    settings = SETTINGS.changed(patch_size=128, candidates=None)
    begins: dict[str, torch.Tensor] = {}
    for name, part, pretrained in (("few", scarce, True), ("many", data, True), ("off", scarce, False)):
        fit = Fit(part, settings.changed(pretrained=pretrained), in_channels=1)
        fit.run(should_stop=lambda: True)
        begins[name] = fit.candidates[0].trainer.learner.network.state_dict()["stem.0.weight"]
    fresh = SIZES[0].specification(128, settings.network, in_channels=1, classes=len(data.class_names)).build()
    assert start_from_public_images(fresh, SIZES[0].name)
    assert torch.equal(begins["few"], fresh.state_dict()["stem.0.weight"])
    assert torch.equal(begins["many"], begins["off"]) and not torch.equal(begins["many"], begins["few"])


def test_a_checkpoint_of_another_fit_is_refused(tmp_path: Path) -> None:
    first = make(SETTINGS.changed(epochs=2, candidates=1), tmp_path / "fit.pt")
    first.run()
    other = Fit(blobs(), SETTINGS, in_channels=2, checkpoint=tmp_path / "fit.pt")
    with pytest.raises(UserError, match="does not fit this run"):
        other.resume()


def test_building_candidates_draws_nothing_from_torchs_generator_between_seeds() -> None:
    torch.manual_seed(3)
    one = make(SETTINGS.changed(epochs=1, candidates=1))
    one.run()
    torch.manual_seed(4)
    two = make(SETTINGS.changed(epochs=1, candidates=1))
    two.run()
    assert figures(one) == figures(two)
