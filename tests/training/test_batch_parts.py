"""Gradients by parts of a batch are those of the whole batch, and the same for any number of threads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from napari_autosegnet.architecture import SearchSpace
from napari_autosegnet.networks.baselines import PSPNet, UNet
from napari_autosegnet.networks.specification import NetworkSpecification
from napari_autosegnet.settings import NetworkSettings
from napari_autosegnet.training.batch_parts import BatchParts
from napari_autosegnet.training.losses import cross_entropy, dice_loss
from napari_autosegnet.training.precision import training_precision
from napari_autosegnet.training.threads import WorkerThreads, single_threaded

CPU = torch.device("cpu")
SETTINGS = NetworkSettings(base_width=8, max_width=16, stem_stride=2)
SPACE = SearchSpace(levels=1)


def build(name: str) -> tuple[nn.Module, tuple[object, ...]]:
    """A network in training mode, and what it is given beside images."""
    torch.manual_seed(0)
    if name == "unet":
        return UNet(1, 3, base_width=8, levels=2).train(), ()
    if name == "pspnet":
        return PSPNet(1, 3, base_width=8, depth=14).train(), ()
    specification = NetworkSpecification.for_patches(64, SETTINGS, in_channels=1, classes=3)
    drawn = SPACE.sample(np.random.default_rng(1))
    if name == "supernet":
        return specification.build_searched(SPACE).train(), (drawn,)
    return specification.build_searched(SPACE.plain if name == "plain" else drawn).train(), ()


def batch(count: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 1, 64, 64, generator=generator).contiguous(memory_format=torch.channels_last)
    return images, torch.randint(-1, 3, (count, 64, 64), generator=generator)


def gradients(net: nn.Module, parts: BatchParts | None, count: int, *more: object) -> list[Tensor | None]:
    """Those of the network's parameters, and its running statistics: of the batch by parts, or in one piece."""
    images, targets = batch(count)

    def predict(some: Tensor) -> Tensor:
        with training_precision(CPU):
            return net(some, *more).float()

    def loss(logits: Tensor) -> Tensor:
        return cross_entropy(logits, targets) + dice_loss(logits, targets)

    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.zero_grad()
    with single_threaded():
        if parts is None:
            loss(predict(images)).backward()  # type: ignore[no-untyped-call]
        else:
            parts.add_gradients(list(net.parameters()), images, predict, loss)
    found = [value.grad for value in net.parameters()] + [value.clone() for value in net.buffers()]
    net.load_state_dict(before)
    return found


@pytest.mark.parametrize(
    ("name", "count"), [("plain", 4), ("plain", 3), ("random", 4), ("supernet", 4), ("unet", 3), ("pspnet", 4)]
)
def test_they_are_those_of_the_batch_in_one_piece(
    name: str, count: int, use_threads: Callable[[int], None], matrix_units: Callable[[bool], None]
) -> None:
    matrix_units(False)
    use_threads(2)
    net, more = build(name)
    expected = gradients(net, None, count, *more)
    found = gradients(net, BatchParts(WorkerThreads(CPU)), count, *more)
    assert sum(value is not None for value in expected) > 10
    largest = max(float(value.abs().max()) for value in expected if value is not None)
    for value, other in zip(found, expected, strict=True):
        if value is None or other is None:
            assert value is other is None
        else:
            assert value.stride() == other.stride()
            torch.testing.assert_close(value, other, rtol=1e-3, atol=1e-5 * largest)


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("name", ["random", "supernet", "unet"])
def test_they_are_the_same_to_the_last_bit_for_any_number_of_threads(
    name: str, bfloat16: bool, use_threads: Callable[[int], None], matrix_units: Callable[[bool], None]
) -> None:
    matrix_units(bfloat16)
    net, more = build(name)
    found = []
    for count in (1, 2, 4, 1):
        use_threads(count)
        found.append(gradients(net, BatchParts(WorkerThreads(CPU)), 4, *more))
    for values in zip(*found, strict=True):
        assert all(value is values[0] is None or torch.equal(value, values[0]) for value in values)


def test_they_are_added_to_those_that_are_there(use_threads: Callable[[int], None]) -> None:
    use_threads(2)
    net, parts = nn.Conv2d(1, 2, 3), BatchParts(WorkerThreads(CPU))
    weights = [net.weight, net.bias]
    value = parts.add_gradients(weights, batch()[0], net, lambda logits: logits.square().mean())
    assert not value.requires_grad and net.weight.grad is not None and net.bias.grad is not None
    first = net.weight.grad.clone(), net.bias.grad.clone()
    parts.add_gradients(weights, batch()[0], net, lambda logits: logits.square().mean())
    torch.testing.assert_close((net.weight.grad, net.bias.grad), (2 * first[0], 2 * first[1]))


@pytest.mark.parametrize("fails", ["first", "last"])
@pytest.mark.parametrize("count", [1, 2])
def test_an_error_in_one_part_comes_through(fails: str, count: int, use_threads: Callable[[int], None]) -> None:
    use_threads(count)
    net, _ = build("unet")
    images, parts = batch()[0], BatchParts(WorkerThreads(CPU))

    def predict(some: Tensor) -> Tensor:
        if torch.equal(some, images[:2] if fails == "first" else images[2:]):
            raise torch.OutOfMemoryError("out of memory")
        return net(some)  # type: ignore[no-any-return]

    with pytest.raises(torch.OutOfMemoryError):
        parts.add_gradients(list(net.parameters()), images, predict, torch.mean)
    value = parts.add_gradients(list(net.parameters()), images, net, torch.mean)
    assert torch.isfinite(value)
