"""Training of one network."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from learnable import Blobs, blobs
from napari_autosegnet.architecture import SearchSpace
from napari_autosegnet.device import choose_device, memory_holders
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Epoch, Event, Note
from napari_autosegnet.networks.baselines import PSPNet
from napari_autosegnet.networks.specification import NetworkSpecification
from napari_autosegnet.settings import NetworkSettings, OptimizationSettings, TrainSettings
from napari_autosegnet.training.checkpoints import write_checkpoint
from napari_autosegnet.training.losses import dice_loss
from napari_autosegnet.training.schedules import Steady
from napari_autosegnet.training.trainer import Trainer
from napari_autosegnet.training.training_data import TrainingData
from napari_autosegnet.training.validation import PatchScores

SETTINGS = TrainSettings(
    epochs=4,
    steps_per_epoch=6,
    batch_size=4,
    patch_size=32,
    network=NetworkSettings(base_width=4, max_width=8),
    optimization=OptimizationSettings(average_weights=0.9),
)


def network() -> nn.Module:
    torch.manual_seed(0)
    specification = NetworkSpecification.for_patches(
        32,
        SETTINGS.network,
        in_channels=1,
        classes=2,
        architecture=SearchSpace(cells=1).sample(np.random.default_rng(2)),
    )
    return specification.build()


def test_data_says_on_how_much_is_validated() -> None:
    targets = torch.full((2, 4, 4), -1)
    targets[0, 0] = 1
    targets[1, :2] = 0
    data = TrainingData(blobs().patches, torch.zeros(2, 1, 4, 4), targets, ("dark", "bright", "none"), 2)
    assert data.checked.pixels == {"dark": 8, "bright": 4, "none": 0} and data.checked.sections == 2


def test_it_learns() -> None:
    settings = SETTINGS.changed(epochs=12, steps_per_epoch=10)
    losses: list[float] = []

    def report(event: Event) -> None:
        if isinstance(event, Epoch):
            losses.append(event.loss)

    result = Trainer(network(), blobs(), settings).run(report=report)
    assert result.best.mean_iou > 0.8
    assert losses[-1] < 0.5 * losses[0]
    assert result.epochs == 12


def test_where_too_little_is_checked_the_last_weights_are_kept() -> None:
    data = blobs()
    # Checked with wrong labels, a network gets worse while it learns.
    few = torch.where(torch.arange(32) < 1, 1 - data.validation_targets, -1)
    trainer = Trainer(network(), replace(data, validation_targets=few), SETTINGS.changed(epochs=4, steps_per_epoch=10))
    best = trainer.run().best
    assert trainer.data.checked.scarce and best.mean_iou < 0.2
    assert all((best.weights[name] == value).all() for name, value in trainer.learner.current.state_dict().items())


def scored(*right: int) -> PatchScores:
    """So many of 100 pixels of each class are right on each patch."""
    return PatchScores(np.array([[[each, 100 - each], [100 - each, each]] for each in right]), 0.5)


@pytest.mark.parametrize(
    ("average", "kept"),
    [
        (0.9, 3),  # the fourth epoch is worse on all patches, the third on half of them
        (0.0, 1),  # each epoch is another network
    ],
)
def test_the_latest_epoch_is_kept_unless_it_is_surely_worse(
    average: float, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = [scored(90, 90, 90, 90), scored(80, 99, 80, 99), scored(99, 80, 80, 99), scored(80, 81, 80, 81)]
    waiting = iter(epochs)
    monkeypatch.setattr("napari_autosegnet.training.trainer.score_network", lambda *_, **__: next(waiting))
    trainer = Trainer(network(), blobs(), SETTINGS.changed(optimization={"average_weights": average}))
    weights: list[dict[str, torch.Tensor]] = []
    trainer.run(on_epoch=lambda: weights.append(copy.deepcopy(trainer.learner.current.state_dict())))
    assert len(weights) == len(epochs)
    assert trainer.best.mean_iou == epochs[kept - 1].mean_iou
    assert epochs[0].mean_iou == max(each.mean_iou for each in epochs)
    assert all(torch.equal(trainer.best.weights[name], value) for name, value in weights[kept - 1].items())


@pytest.mark.parametrize(("epochs", "recent"), [(1, 1), (2, 2), (9, 2), (12, 3)])
def test_scores_of_the_last_quarter_of_the_epochs_are_kept(epochs: int, recent: int) -> None:
    trainer = Trainer(network(), blobs(), SETTINGS.changed(epochs=epochs, steps_per_epoch=1))
    trainer.run()
    again = Trainer(network(), blobs(), SETTINGS)
    again.load_state(trainer.state())
    for one in (trainer, again):
        assert [each.mean_iou for each in one.recent] == trainer.curve[-recent:]
    assert len(trainer.curve) == epochs
    trainer.learn_from(replace(blobs(), version=1))
    assert len(trainer.recent) == 1, "what was measured on other pixels is forgotten"


def pspnet() -> nn.Module:
    torch.manual_seed(0)
    return PSPNet(1, 2, base_width=4, depth=14)


def test_a_network_settles_on_a_few_strokes_until_there_are_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_autosegnet.training.trainer.SETTLES_AFTER", 2)
    many = replace(blobs(), everything=Blobs)
    few = many.validation_targets.clone()
    few[:, 2:] = -1
    scarce = replace(many, validation_targets=few)
    settings = SETTINGS.model_copy(update={"epochs": 11, "steps_per_epoch": 2})
    heard: list[Event] = []
    trainer = Trainer(network(), scarce, settings, schedule=Steady())

    def rates(epochs: int) -> list[float]:
        heard.clear()
        trainer.run(epochs=epochs, report=heard.append)
        return [event.learning_rate for event in heard if isinstance(event, Epoch)]

    full = settings.optimization.learning_rate
    assert rates(4)[1:] == pytest.approx([full] * 3), "while there is something to check with"
    trainer.begin_anew(network(), from_everything=True)
    settling = rates(4)
    assert settling[:2] == pytest.approx([full] * 2)
    assert settling[2:] == pytest.approx([full * (2 / 2.5) ** 2, full * (2 / 3.5) ** 2]), "of an epoch's last step"
    trainer.learn_from(scarce)
    assert rates(2) == pytest.approx([full] * 2), "new strokes"
    trainer.learn_from(many)
    assert rates(1) == pytest.approx([full])


@pytest.mark.parametrize("network", [network, pspnet])
def test_resumed_equals_undisturbed(tmp_path: Path, network: Callable[[], nn.Module]) -> None:
    undisturbed = Trainer(network(), blobs(), SETTINGS)
    expected = undisturbed.run()

    first = Trainer(network(), blobs(), SETTINGS, checkpoint=tmp_path / "training.pt")
    torch.manual_seed(1)  # nothing random comes from torch's own generator
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2 * SETTINGS.steps_per_epoch + 3  # in the middle of the third epoch

    first.run(should_stop=stop)
    assert first.budget.epoch == 2
    second = Trainer(network(), blobs(), SETTINGS, checkpoint=tmp_path / "training.pt")
    second.resume()
    result = second.run()
    assert result.epochs == SETTINGS.epochs
    assert result.best.mean_iou == expected.best.mean_iou
    assert second.curve == undisturbed.curve and len(second.curve) == SETTINGS.epochs
    for name, value in undisturbed.learner.network.state_dict().items():
        assert torch.equal(value, second.learner.network.state_dict()[name]), name


@pytest.mark.parametrize("change", [lambda moments: moments[:-1], lambda moments: [*moments[1:], moments[0]]])
def test_a_momentum_of_other_weights_is_refused(change: Callable[[list[torch.Tensor]], list[torch.Tensor]]) -> None:
    trainer = Trainer(network(), blobs(), SETTINGS.changed(epochs=1, steps_per_epoch=1))
    trainer.run()
    state = trainer.state()
    state["optimizer"]["moments"] = change(state["optimizer"]["moments"])
    with pytest.raises(UserError, match="does not fit this network"):
        trainer.load_state(state)


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "training.pt"
    trainer = Trainer(network(), blobs(), SETTINGS, checkpoint=file)
    with pytest.raises(UserError, match="no checkpoint"):
        trainer.resume()
    trainer.run()
    # The one before it would do.
    for each in (file, file.with_name("training.previous.pt")):
        content = each.read_bytes()
        each.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="damaged"):
        trainer.resume()
    write_checkpoint(file, {"epoch": 3})
    with pytest.raises(UserError, match="does not fit"):
        trainer.resume()


def test_out_of_memory_goes_on_with_smaller_batches_and_the_same_gradient(
    matrix_units: Callable[[bool], None],
) -> None:
    matrix_units(False)  # sums of rounded gradients differ

    class Narrow(nn.Module):
        """Takes two patches at most."""

        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(1, 2, 1)
            self.stride = 1

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training and len(x) > 2:
                raise torch.OutOfMemoryError("out of memory")
            return self.convolution(x)

    class Wide(Narrow):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.convolution(x)

    notes: list[str] = []

    def report(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    trained = []
    for kind in (Narrow, Wide):
        torch.manual_seed(0)
        # Dice is a ratio over the patches that are computed together, so its gradients do not add up exactly.
        trainer = Trainer(kind(), blobs(), SETTINGS.changed(epochs=1, loss="cross_entropy"))
        trainer.run(report=report)
        trained.append(trainer.learner.network.convolution.weight)
    assert len(notes) == 1 and "2 patches at a time" in notes[0] and "batch norm sees fewer" in notes[0]
    torch.testing.assert_close(trained[0], trained[1])


@pytest.mark.parametrize(
    ("epochs", "poisoned_calls", "rollbacks"),
    [
        (4, {9}, 1),
        # What was made ahead when an epoch is taken back is made again, hence one call more each time.
        (4, {9, 15, 22}, 3),  # in a row
        (8, {7, 20, 33, 46, 59, 72}, 6),  # with good epochs between
    ],
)
def test_a_loss_that_is_not_finite_is_rolled_back(epochs: int, poisoned_calls: set[int], rollbacks: int) -> None:
    class Poisoned:
        def __init__(self) -> None:
            self.inner = blobs().patches
            self.class_frequencies = self.inner.class_frequencies
            self.calls = 0

        def sample(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
            self.calls += 1
            images, targets = self.inner.sample(count, generator)
            return (images * float("nan") if self.calls in poisoned_calls else images), targets

    notes: list[str] = []

    def report(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    data = blobs()
    poisoned = type(data)(Poisoned(), data.validation_images, data.validation_targets, data.class_names)
    trainer = Trainer(network(), poisoned, SETTINGS.changed(epochs=epochs))
    result = trainer.run(report=report)
    assert result.epochs == epochs
    assert len(notes) == rollbacks and "not finite" in notes[0]
    assert trainer.learner.rate_factor == 0.5**rollbacks
    assert all(torch.isfinite(v).all() for v in result.best.weights.values())


def test_a_loss_that_is_never_finite_ends_in_a_line() -> None:
    data = blobs()
    trainer = Trainer(network(), data, SETTINGS)
    with torch.no_grad():
        next(trainer.learner.network.parameters()).fill_(torch.nan)
    trainer.learner.keep()
    with pytest.raises(UserError, match="not finite even at a low learning rate"):
        trainer.run()


def test_weights_that_the_last_step_broke_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(network(), blobs(), SETTINGS, checkpoint=tmp_path / "training.pt")
    learn, calls, notes = trainer.learner.optimizer.step, 0, []

    def step() -> None:
        nonlocal calls
        calls += 1
        learn()
        if calls == 2 * SETTINGS.steps_per_epoch:  # the loss of its epoch shows nothing of it
            with torch.no_grad():
                next(trainer.learner.network.parameters()).fill_(torch.inf)

    def report(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event)

    monkeypatch.setattr(trainer.learner.optimizer, "step", step)
    result = trainer.run(report=report)
    assert len(notes) == 1 and result.epochs == SETTINGS.epochs
    assert all(torch.isfinite(v).all() for v in trainer.learner.network.state_dict().values())


def test_a_budget_that_is_used_up_before_the_first_step() -> None:
    result = Trainer(network(), blobs(), SETTINGS.changed(budget=1e-6)).run()
    assert result.epochs == 0 and result.best.weights


def test_the_budget_ends_it() -> None:
    settings = SETTINGS.changed(epochs=10**6, budget=1.0)
    trainer = Trainer(network(), blobs(), settings)
    result = trainer.run()
    assert 0.9 < result.seconds < 10
    assert result.best.weights
    assert len(trainer.curve) == trainer.steps // settings.steps_per_epoch, "an epoch that was cut short is none"


def test_unknown_devices_are_refused() -> None:
    assert choose_device("cpu").type == "cpu"
    for name in ("cuda:99", "abacus"):
        with pytest.raises(UserError, match=f"no device '{name}'"):
            choose_device(name)


@pytest.mark.gpu
def test_who_holds_the_memory_of_a_graphics_card_is_told() -> None:
    hold = "import sys, torch; held = torch.zeros(2**30, device='cuda'); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        device = choose_device("cuda")
        own = torch.zeros(2**28, device=device)  # 1 GB
        told = memory_holders(device)
        other.kill()
    found = re.fullmatch(r", of whose ([\d.]+) GB this program holds ([\d.]+) and others ([\d.]+)", told)
    assert found is not None, told
    total, ours, others = map(float, found.groups())
    assert own.is_cuda and 1 <= ours < 4 and others >= 4 and ours + others < total


def test_of_a_processor_only_the_system_knows_who_holds_its_memory() -> None:
    assert memory_holders(torch.device("cpu")) == ""


def test_while_one_class_is_never_found_the_loss_decides() -> None:
    blind = network()
    head = [module for module in blind.modules() if isinstance(module, nn.Conv2d)][-1]
    assert head.bias is not None
    with torch.no_grad():
        head.bias[0] += 20.0
    seen: list[tuple[float, float]] = []

    def report(event: Event) -> None:
        if isinstance(event, Epoch):
            seen.append((event.mean_iou, event.validation_loss))

    slow = SETTINGS.changed(optimization={"learning_rate": 1e-3, "average_weights": 0.0})
    trainer = Trainer(blind, blobs(), slow)
    result = trainer.run(report=report)
    assert len({iou for iou, _ in seen}) == 1, "all is called one class"
    losses = [loss for _, loss in seen]
    assert losses[-1] < losses[0]
    assert result.best.loss == min(losses)


@pytest.mark.parametrize("kind", ["cross_entropy", "dice"])
def test_the_validation_loss_is_that_of_all_patches_together(kind: str) -> None:
    data = blobs()
    targets = data.validation_targets.clone()
    targets[0, :, 5:] = -1  # most of one patch is not annotated
    trainer = Trainer(network(), replace(data, validation_targets=targets), SETTINGS.changed(loss=kind))
    result = trainer.run()
    built = network()
    built.load_state_dict(result.best.weights)
    with torch.no_grad():
        logits = built.eval()(data.validation_images)
    expected = float(nn.functional.cross_entropy(logits, targets, ignore_index=-1))
    if kind == "dice":
        # A ratio of each batch, weighted by how much of it is annotated.
        batches = list(zip(logits.split(SETTINGS.batch_size), targets.split(SETTINGS.batch_size), strict=True))
        annotated = sum(int((t >= 0).sum()) for _, t in batches)
        expected += sum(float(dice_loss(x, t)) * int((t >= 0).sum()) / annotated for x, t in batches)
    assert result.best.loss == pytest.approx(expected, rel=1e-4)
