"""Parts of a batch in threads of their own give what they give one after the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from learnable import blobs
from napari_autosegnet.config import NetworkSettings, SearchSettings, TrainSettings
from napari_autosegnet.search.search import Search
from napari_autosegnet.training.losses import cross_entropy
from napari_autosegnet.training.side_by_side import Part, SideBySide, annotated_share
from napari_autosegnet.training.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def network(seed: int = 0, classes: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, classes, 1))


def batch(count: int = 4) -> Part:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 1, 16, 16, generator=generator), torch.randint(
        -1, 3, (count, 16, 16), generator=generator
    )


@pytest.mark.parametrize(("threads", "images", "parts"), [(1, 4, 1), (2, 4, 2), (2, 3, 1), (2, 1, 1)])
def test_parts_are_equal_and_no_more_than_threads(threads: int, images: int, parts: int, two_threads: None) -> None:
    torch.set_num_threads(threads)
    side_by_side = SideBySide(images, CPU)
    assert side_by_side.count == parts
    divided = side_by_side.divide(*batch(images))
    assert [len(part[0]) for part in divided] == [images // parts] * parts


def test_the_main_thread_keeps_its_number_of_threads(two_threads: None) -> None:
    side_by_side = SideBySide(4, CPU)
    assert list(side_by_side.map(lambda _: torch.get_num_threads(), [0, 1])) == [1, 1]
    assert torch.get_num_threads() == 2


def test_a_device_other_than_the_cpu_gets_one_part(two_threads: None) -> None:
    assert SideBySide(4, torch.device("meta")).count == 1


def test_gradients_are_those_of_parts_one_after_the_other(two_threads: None) -> None:
    images, targets = batch()
    targets[0] = -1  # a part that is annotated less weighs less

    def loss(net: nn.Module, part: Part) -> Tensor:
        return cross_entropy(net(part[0]), part[1]) * annotated_share(part, targets)

    expected = network()
    total = 0.0
    for part in ((images[:2], targets[:2]), (images[2:], targets[2:])):
        value = loss(expected, part)
        value.backward()  # type: ignore[no-untyped-call]
        total += float(value.detach())
    found = network()
    side_by_side = SideBySide(4, CPU)
    replicas = side_by_side.replicas(found)
    for _ in range(3):
        reached = side_by_side.accumulate(replicas, side_by_side.divide(images, targets), loss)
    assert float(reached) == pytest.approx(total, rel=1e-6)
    for ours, theirs in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_the_weighted_parts_make_the_loss_of_the_whole_batch() -> None:
    images, targets = batch()
    targets[0] = -1
    logits = network().eval()(images)
    parts = [slice(0, 2), slice(2, 4)]
    summed = sum(
        cross_entropy(logits[part], targets[part]) * annotated_share((images[part], targets[part]), targets)
        for part in parts
    )
    torch.testing.assert_close(summed, cross_entropy(logits, targets))


def test_replicas_share_weights_and_keep_their_own_statistics(two_threads: None) -> None:
    net: nn.Module = network()
    _, replica = SideBySide(4, CPU).replicas(net)
    with torch.no_grad():
        next(net.parameters()).add_(1)
    assert torch.equal(next(net.parameters()), next(replica.parameters()))
    net.load_state_dict(network(seed=1).state_dict())
    assert torch.equal(next(net.parameters()), next(replica.parameters()))
    replica.train()
    replica(batch()[0])
    assert not torch.equal(replica.get_buffer("1.running_mean"), net.get_buffer("1.running_mean"))


def test_a_training_in_threads_learns_and_repeats_itself(two_threads: None) -> None:
    settings = TrainSettings(epochs=3, steps_per_epoch=20, batch_size=4, patch_size=32, average_weights=0.5)
    results = [Trainer(network(classes=2), blobs(seed=0), settings).run() for _ in range(2)]
    assert results[0].mean_iou > 0.5
    for name, weight in results[0].weights.items():
        assert torch.equal(weight, results[1].weights[name]), name


def test_a_search_in_threads_repeats_itself(two_threads: None) -> None:
    settings = SearchSettings(
        epochs=2,
        patch_size=32,
        batch_size=4,
        steps_per_epoch=3,
        warmup_share=0.5,
        controller_updates=1,
        controller_samples=2,
        candidates=2,
        finalists=2,
        finalist_steps=2,
        network=NetworkSettings(base_width=4, max_width=8),
    )
    results = [Search(blobs(seed=0), settings, in_channels=1).run() for _ in range(2)]
    assert results[0] is not None and results[1] is not None
    assert [(f.architecture, f.rating, f.score) for f in results[0].finalists] == [
        (f.architecture, f.rating, f.score) for f in results[1].finalists
    ]
