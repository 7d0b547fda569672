"""The search as a whole, on a small problem."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learnable import blobs
from napari_autosegnet.architecture import SearchSpace
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import (
    ArchitectureFound,
    CandidatesRated,
    Epoch,
    Event,
    FinalistTrained,
    Note,
    ProgressMade,
    WarningRaised,
)
from napari_autosegnet.search.search import Search, SearchResult
from napari_autosegnet.search.selection import Finalist, Selection
from napari_autosegnet.settings import NetworkSettings, SearchSettings, SelectionSettings
from napari_autosegnet.training.trainer import Trainer
from napari_autosegnet.training.training_data import TrainingResult, Validation
from remembered_events import Events

SETTINGS = SearchSettings(
    epochs=4,
    patch_size=32,
    batch_size=4,
    steps_per_epoch=4,
    warmup_fraction=0.25,
    updates_per_epoch=2,
    samples_per_update=3,
    space=SearchSpace(cells=1),
    selection=SelectionSettings(candidates=4, finalists=3, steps=4, plain_steps=0),
    network=NetworkSettings(base_width=4, max_width=8, stem_stride=2),
)


def make(settings: SearchSettings = SETTINGS, checkpoint: Path | None = None) -> Search:
    return Search(blobs(), settings, in_channels=1, checkpoint=checkpoint)


def run(search: Search, stop_after: int | None = None) -> tuple[SearchResult, Events]:
    result, listener = run_or_not(search, stop_after)
    assert result is not None
    return result, listener


def run_or_not(search: Search, stop_after: int | None) -> tuple[SearchResult | None, Events]:
    listener = Events()
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return stop_after is not None and asked > stop_after

    return search.run(report=listener, should_stop=stop), listener


@pytest.fixture(scope="module")
def undisturbed() -> tuple[SearchResult, Events]:
    """A search from beginning to end, with which others are compared."""
    return run(make())


def losses(listener: Events) -> list[float]:
    return [event.loss for event in listener.of(Epoch)]


@pytest.mark.parametrize("strategy", ["reinforce", "random", "evolution"])
def test_every_strategy_ends_with_a_winner(strategy: str, undisturbed: tuple[SearchResult, Events]) -> None:
    search = make(SETTINGS.changed(strategy=strategy))
    result, listener = undisturbed if strategy == SETTINGS.strategy else run(search)
    assert search.space.allows(result.architecture)
    assert [event.phase for event in listener.of(Epoch)] == ["warm-up", "search", "search", "search"]
    assert listener.of(ArchitectureFound)[-1].architecture == result.architecture.model_dump(mode="json")
    # Three finalists, then two; the best wins, the plain chain with its lead.
    assert [event.count for event in listener.of(FinalistTrained)] == [3, 3, 3, 2, 2]
    last = [f for f in result.finalists if f.rounds == 2]
    assert len(last) == 2
    best = max(last, key=lambda f: (f.score or 0.0) + f.margin)
    assert (result.architecture, result.score) == (best.architecture, best.score)


def test_ratings_and_trainings_of_finalists_are_counted(undisturbed: tuple[SearchResult, Events]) -> None:
    """Each takes up to minutes in which nothing else is told."""
    told = undisturbed[1].of(ProgressMade)
    rated = [event for event in told if event.step == "candidates rated"]
    assert [event.done for event in rated] == list(range(1, len(rated) + 1)) and rated[-1].total == len(rated)
    trained = [event for event in told if event.step == "finalists trained"]
    assert sorted({event.done for event in trained}) == [0, 1, 2, 3, 4] and {event.total for event in trained} == {5}
    assert len(trained) > 2 * 5, "at its beginning, and after each epoch"


def test_the_same_seed_finds_the_same(undisturbed: tuple[SearchResult, Events]) -> None:
    first, heard = undisturbed
    second, again = run(make())
    assert first.architecture == second.architecture
    assert losses(heard) == losses(again)
    other, heard = run(make(SETTINGS.changed(seed=1)))
    assert losses(heard) != losses(again)
    assert {f.architecture for f in other.finalists} != {f.architecture for f in first.finalists}


@pytest.mark.parametrize("stop_after", [7, *(pytest.param(count, marks=pytest.mark.slow) for count in (13, 24))])
def test_resumed_equals_undisturbed(tmp_path: Path, stop_after: int, undisturbed: tuple[SearchResult, Events]) -> None:
    expected, heard = undisturbed
    _, before = run_or_not(make(checkpoint=tmp_path / "search.pt"), stop_after)
    resumed = make(checkpoint=tmp_path / "search.pt")
    resumed.resume()
    assert 0 < resumed.budget.epoch < SETTINGS.epochs
    result, after = run(resumed)
    assert losses(before) + losses(after) == losses(heard)
    rewards = [event.reward for event in before.of(Epoch) + after.of(Epoch)]
    assert rewards == [event.reward for event in heard.of(Epoch)]
    assert result.architecture == expected.architecture
    assert result.score == expected.score


def test_a_search_ended_among_its_finalists_goes_on_there(
    tmp_path: Path, undisturbed: tuple[SearchResult, Events]
) -> None:
    expected, heard = undisturbed

    class EndedError(Exception):
        pass

    def report(event: Event) -> None:
        if isinstance(event, FinalistTrained) and event.round == 2:
            raise EndedError

    with pytest.raises(EndedError):
        make(checkpoint=tmp_path / "search.pt").run(report=report)
    resumed = make(checkpoint=tmp_path / "search.pt")
    resumed.resume()
    result, listener = run(resumed)
    assert result.architecture == expected.architecture and result.score == expected.score
    assert len(listener.of(Epoch)) == 0
    assert len(listener.of(FinalistTrained)) < len(heard.of(FinalistTrained))


@pytest.mark.parametrize(
    "trained", [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(3, marks=pytest.mark.slow), 4]
)
def test_a_search_stopped_in_the_midst_of_a_finalist_goes_on_exactly(
    tmp_path: Path, trained: int, undisturbed: tuple[SearchResult, Events]
) -> None:
    expected, _ = undisturbed
    search = make(checkpoint=tmp_path / "search.pt")
    listener = Events()
    asked = 0

    def stop() -> bool:
        nonlocal asked
        among_finalists = search.selection is not None and len(listener.of(FinalistTrained)) == trained
        asked += among_finalists
        return among_finalists and asked > 3

    search.run(report=listener, should_stop=stop)
    assert len(listener.of(FinalistTrained)) == trained
    resumed = make(checkpoint=tmp_path / "search.pt")
    resumed.resume()
    result, _ = run(resumed)
    assert [f.score for f in result.finalists] == [f.score for f in expected.finalists]
    assert result.architecture == expected.architecture


def test_a_stop_keeps_the_best_without_further_training() -> None:
    result, listener = run(make(), stop_after=14)
    assert listener.of(FinalistTrained) == []
    assert result.architecture in [f.architecture for f in result.finalists]
    assert all(f.architecture != make().space.plain for f in result.finalists), "nobody rated it before the stop"


def test_a_stop_before_anything_was_rated_finds_nothing() -> None:
    result, listener = run_or_not(make(), stop_after=2)
    assert result is None
    assert listener.of(ArchitectureFound) == []


def test_the_three_ends(undisturbed: tuple[SearchResult, Events]) -> None:
    by_loss, listener = run(make(SETTINGS.changed(epochs=50, stop_loss=10.0)))
    assert by_loss.epochs == 1 and "the loss" in listener.of(Note)[0].text
    by_reward, listener = run(make(SETTINGS.changed(epochs=50, stop_accuracy=0.0, warmup_fraction=0)))
    assert by_reward.epochs == 1 and "the mean reward" in listener.of(Note)[0].text
    by_epochs, _ = undisturbed
    assert by_epochs.epochs == SETTINGS.epochs


def test_a_budget_covers_search_and_selection() -> None:
    search = make(SETTINGS.changed(epochs=10**6, budget=6.0))
    result, listener = run(search)
    assert 4.5 < result.seconds < 15
    seconds = {event.phase: event.seconds for event in listener.of(Epoch)}
    assert seconds["warm-up"] < seconds["search"] <= 0.7 * 6 + 4
    assert listener.of(FinalistTrained)


def test_collapse_raises_one_alarm(monkeypatch: pytest.MonkeyPatch, undisturbed: tuple[SearchResult, Events]) -> None:
    search = make()
    found = search.strategy.statistics()
    found["entropy"] = 0.9 * found["least_entropy"] + 0.1 * found["largest_entropy"]
    monkeypatch.setattr(search.strategy, "statistics", lambda: found)
    _, listener = run(search)
    assert len(listener.of(WarningRaised)) == 1
    assert "almost always the same" in listener.of(WarningRaised)[0].text
    assert undisturbed[1].of(WarningRaised) == []


@pytest.mark.slow
def test_a_controller_that_loves_identities_raises_the_alarm() -> None:
    settings = SETTINGS.changed(steps_per_epoch=40, controller={"learning_rate": 0.01}, space={"cells": 3})
    search = make(settings)
    for _ in range(30):
        proposed = search.strategy.propose(10)
        search.strategy.learn(proposed, [architecture.identity_fraction for architecture in proposed])
    _, listener = run(search)
    assert ["as many identities as it can" in event.text for event in listener.of(WarningRaised)] == [True]


def test_rewards_see_all_of_the_validation_part_and_every_class() -> None:
    data = blobs()
    # Two thirds of the patches, by their place, show but one class.
    few = data.validation_targets.clone()
    few[: 2 * len(few) // 3] = 0
    count = len(few) // 4
    settings = SETTINGS.changed(reward_patches=count)
    search = Search(replace(data, validation_targets=few), settings, in_channels=1)
    seen = search.supernet.targets[:count]
    assert set(seen.unique().tolist()) == {0, 1}
    images = [int((data.validation_images == image).flatten(1).all(1).nonzero()[0]) for image in search.supernet.images]
    assert sorted(images) == list(range(len(few)))
    assert max(images[:count]) > len(few) / 2 > min(images[:count])
    assert all(torch.equal(few[place], target) for place, target in zip(images, search.supernet.targets, strict=True))


def test_broken_shared_weights_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = make(checkpoint=tmp_path / "search.pt")
    learn, calls = search.supernet.learner.optimizer.step, 0

    def step() -> None:
        nonlocal calls
        calls += 1
        learn()
        if calls == 2 * SETTINGS.steps_per_epoch:  # the last of an epoch, whose loss shows nothing of it
            with torch.no_grad():
                next(search.supernet.learner.network.parameters()).fill_(torch.inf)

    monkeypatch.setattr(search.supernet.learner.optimizer, "step", step)
    result, listener = run(search)
    assert len([event for event in listener.of(Note) if "not finite" in event.text]) == 1
    assert result.epochs == SETTINGS.epochs and search.supernet.learner.is_finite()


def test_a_checkpoint_of_another_search_is_refused(tmp_path: Path) -> None:
    run_or_not(make(checkpoint=tmp_path / "search.pt"), stop_after=7)
    assert (tmp_path / "search.pt").exists()
    other = SETTINGS.changed(network=NetworkSettings(base_width=6, max_width=8))
    with pytest.raises(UserError, match="does not fit this search"):
        make(other, checkpoint=tmp_path / "search.pt").resume()


def test_the_plain_chain_competes_unless_told_otherwise(undisturbed: tuple[SearchResult, Events]) -> None:
    result, _ = undisturbed
    plain = [f for f in result.finalists if f.architecture == make().space.plain]
    assert len(plain) == 1 and plain[0].rating is not None and plain[0].rounds >= 1
    assert len(result.finalists) == SETTINGS.selection.finalists
    result, _ = run(make(SETTINGS.changed(selection={"plain_chain": False})))
    assert all(f.architecture != make().space.plain for f in result.finalists)


def test_what_is_found_has_to_beat_the_plain_chain_by_a_margin(tmp_path: Path) -> None:
    plain = make().space.plain
    unreachable = make(SETTINGS.changed(selection={"plain_margin": 1.0}), checkpoint=tmp_path / "search.pt")
    assert run(unreachable)[0].architecture == plain
    resumed = make(SETTINGS, checkpoint=tmp_path / "search.pt")
    resumed.resume()
    assert resumed.selection is not None
    # The others keep their scores, so only the margin can put the plain chain first.
    assert [f.margin for f in resumed.selection.finalists if f.architecture == plain] == [1.0]
    assert all(f.margin == 0 for f in resumed.selection.finalists if f.architecture != plain)


@pytest.mark.parametrize(("steps", "taken"), [(299, "plain"), (300, "found")])
def test_what_was_trained_too_shortly_does_not_replace_the_plain_chain(steps: int, taken: str) -> None:
    search = make(SETTINGS.changed(selection={"plain_steps": 300}))
    plain, found = search.space.plain, search.space.sample(np.random.default_rng(0))
    finalists = [
        Finalist(found, score=0.9, rounds=1, steps=steps),
        Finalist(plain, score=0.5, rounds=1, steps=steps, margin=0.01),
    ]
    search.selection = Selection(finalists, search.data, search.specification, search.settings, seconds=None)
    search.selection.round = search.selection.rounds
    result, listener = run(search)
    assert result.architecture == {"plain": plain, "found": found}[taken]
    (final,) = [event for event in listener.of(ArchitectureFound) if event.final]
    assert ("too shortly" in (final.remark or "")) == (taken == "plain")


@pytest.mark.parametrize(("lead", "told"), [(0.01, ["0.550", "0.555"]), (0.004, []), (0.0, [])])
def test_a_search_that_keeps_the_plain_chain_says_so(lead: float, told: list[str]) -> None:
    search = make()
    plain, found = search.space.plain, search.space.sample(np.random.default_rng(0))
    finalists = [
        Finalist(found, score=0.555, rounds=1, steps=300),
        Finalist(plain, score=0.55, rounds=1, steps=300, margin=lead),
    ]
    search.selection = Selection(finalists, search.data, search.specification, search.settings, seconds=None)
    assert search.selection.remark is None  # not over yet
    search.selection.round = search.selection.rounds
    result, listener = run(search)
    assert result.architecture == (plain if told else found)
    (final,) = [event for event in listener.of(ArchitectureFound) if event.final]
    assert (final.remark is not None) == bool(told) and all(score in final.remark for score in told)


@pytest.mark.parametrize(("misses", "taken"), [(True, "plain"), (False, "found")])
def test_what_misses_a_class_does_not_replace_the_plain_chain(misses: bool, taken: str, tmp_path: Path) -> None:
    search = make(checkpoint=tmp_path / "search.pt")
    plain, found = search.space.plain, search.space.sample(np.random.default_rng(0))
    finalists = [
        Finalist(found, score=0.475, rounds=1, steps=300, iou={"dark": 0.95, "bright": 0.0 if misses else 0.1}),
        Finalist(plain, score=0.45, rounds=1, steps=300, margin=0.01),
    ]
    search.selection = Selection(finalists, search.data, search.specification, search.settings, seconds=None)
    search.selection.round = search.selection.rounds
    result, listener = run(search)
    assert result.architecture == {"plain": plain, "found": found}[taken]
    (final,) = [event for event in listener.of(ArchitectureFound) if event.final]
    assert ("nothing of some class" in (final.remark or "")) == misses
    resumed = make(checkpoint=tmp_path / "search.pt")
    resumed.resume()
    assert resumed.selection is not None and resumed.selection.finalists[0].misses == misses


@pytest.mark.parametrize(("iou", "misses"), [((0.9, 0.0), True), ((0.9, 0.1), False), ((0.9, None), False)])
def test_a_finalist_that_finds_nothing_of_a_class_is_known(
    iou: tuple[float, float | None], misses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = make()
    finalist = Finalist(search.space.plain)
    selection = Selection([finalist], search.data, search.specification, search.settings, seconds=None)
    best = Validation(0.5, 0.5, dict(zip("ab", iou, strict=True)))
    result = TrainingResult(best, 1, 1.0)
    monkeypatch.setattr(Trainer, "run", lambda self, **more: result)
    selection.run()
    assert finalist.misses == misses


@pytest.mark.slow
def test_finalists_start_with_the_shared_weights_unless_told_otherwise() -> None:
    def first_weights(**changes: Any) -> tuple[torch.Tensor, torch.Tensor]:
        search = make(SETTINGS.changed(selection={"learning_rate": 1e-9, **changes}))
        run(search)
        assert search.selection is not None
        trainer = search.selection.trainers[search.selection.winner.architecture]
        return trainer.learner.network.state_dict()["head.weight"], search.supernet.learner.current.state_dict()[
            "head.weight"
        ]

    torch.testing.assert_close(*first_weights())
    own, shared = first_weights(inherit_weights=False)
    assert not torch.allclose(own, shared)


def test_a_finalist_begins_as_what_its_shared_weights_are() -> None:
    search = make()
    run(search)
    assert search.selection is not None
    architecture = search.space.plain
    images, _ = search.data.patches.sample(16, torch.Generator().manual_seed(0))
    with torch.no_grad():
        shared = search.supernet.learner.current.eval()(images, architecture).softmax(dim=1)
        difference = {}
        for begins in (False, True):
            network = search.selection.make_trainer(Finalist(architecture), begins=begins).learner.network.eval()
            difference[begins] = float((network(images).softmax(dim=1) - shared).abs().mean())
    # The supernet's batch norm keeps no statistics that could be handed down, so they are measured.
    assert difference[True] < 0.3 * difference[False]


def test_without_shared_weights_the_finalists_are_trained_alone_at_once() -> None:
    settings = SETTINGS.changed(strategy="random", selection={"fraction": 1.0})
    result, listener = run(make(settings))
    assert listener.of(Epoch) == [] and listener.of(CandidatesRated) == []
    first = [event for event in listener.of(FinalistTrained) if event.round == 1]
    assert len(first) == settings.selection.finalists and all(event.rating is None for event in first)
    best = max(first, key=lambda event: event.score)
    assert result.architecture == result.finalists[best.index - 1].architecture or result.score >= best.score


def test_a_stop_before_anything_was_trained_or_rated_finds_nothing() -> None:
    settings = SETTINGS.changed(strategy="random", selection={"fraction": 1.0})
    result, _ = run_or_not(make(settings), stop_after=0)
    assert result is None


def test_between_equal_scores_the_loss_decides() -> None:
    space = SearchSpace()
    generator = np.random.default_rng(0)
    finalists = [
        Finalist(space.sample(generator), rating=0.5, score=0.4, loss=loss, rounds=1) for loss in (0.3, 0.2, 0.4)
    ]
    search = make()
    selection = Selection(finalists, search.data, search.specification, SETTINGS, seconds=None)
    assert selection.winner is finalists[1]
    finalists[2].score = 0.41
    assert selection.winner is finalists[2]


def test_the_plain_chain_stays_to_the_longest_round_however_it_begins() -> None:
    space = SearchSpace()
    generator = np.random.default_rng(0)
    scores = (0.5, 0.6, 0.7, 0.1)
    finalists = [Finalist(space.sample(generator), score=score, rounds=1) for score in scores]
    search = make()
    selection = Selection(finalists, search.data, search.specification, SETTINGS, seconds=None)
    selection.round = 1
    assert selection.competing == [finalists[2], finalists[1]]
    finalists[3].margin = 0.01
    assert selection.competing == [finalists[2], finalists[3]]
    assert selection.winner is finalists[2]
    finalists[3].score, finalists[3].rounds = 0.695, 2
    finalists[2].rounds = 2
    assert selection.winner is finalists[3]
