"""Gradients with the help of threads are those of torch's own backward pass."""

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
from napari_autosegnet.training.losses import cross_entropy, dice_loss
from napari_autosegnet.training.precision import training_precision
from napari_autosegnet.training.threads import WorkerThreads, single_threaded
from napari_autosegnet.training.weight_gradients import set_gradients

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


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 1, 64, 64, generator=generator).contiguous(memory_format=torch.channels_last)
    return images, torch.randint(-1, 3, (4, 64, 64), generator=generator)


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("name", ["plain", "random", "supernet", "unet", "pspnet"])
def test_they_are_the_same_to_the_last_bit(
    name: str, bfloat16: bool, use_threads: Callable[[int], None], matrix_units: Callable[[bool], None]
) -> None:
    matrix_units(bfloat16)
    net, more = build(name)
    images, targets = batch()

    def loss() -> Tensor:
        with training_precision(CPU):
            logits = net(images, *more).float()
        return cross_entropy(logits, targets) + dice_loss(logits, targets)

    use_threads(1)
    loss().backward()  # type: ignore[no-untyped-call]
    expected = [p.grad for p in net.parameters()]
    assert sum(gradient is not None for gradient in expected) > 10
    for count in (1, 2, 4):
        use_threads(count)
        net.zero_grad()
        with single_threaded():
            set_gradients(loss, WorkerThreads(CPU))
        for parameter, gradient in zip(net.parameters(), expected, strict=True):
            if gradient is None:
                assert parameter.grad is None
            else:
                assert parameter.grad is not None and torch.equal(parameter.grad, gradient)
                assert parameter.grad.stride() == gradient.stride()


def test_they_are_added_to_those_that_are_there(use_threads: Callable[[int], None]) -> None:
    use_threads(2)
    net, images = nn.Conv2d(1, 2, 3), batch()[0]
    threads = WorkerThreads(CPU)
    value = set_gradients(lambda: net(images).square().mean(), threads)
    assert not value.requires_grad and net.weight.grad is not None and net.bias.grad is not None
    first = net.weight.grad.clone(), net.bias.grad.clone()
    set_gradients(lambda: net(images).square().mean(), threads)
    torch.testing.assert_close((net.weight.grad, net.bias.grad), (2 * first[0], 2 * first[1]))


@pytest.mark.parametrize("count", [1, 2])
def test_weights_that_do_not_learn_and_weights_used_twice(count: int, use_threads: Callable[[int], None]) -> None:
    use_threads(count)
    frozen, shared = nn.Conv2d(1, 4, 3).requires_grad_(False), nn.Conv2d(4, 4, 3)
    images = batch()[0]

    def loss() -> Tensor:
        return shared(shared(frozen(images))).square().mean()

    loss().backward()  # type: ignore[no-untyped-call]
    assert shared.weight.grad is not None and shared.bias.grad is not None
    expected = shared.weight.grad.clone(), shared.bias.grad.clone()
    shared.zero_grad()
    set_gradients(loss, WorkerThreads(CPU))
    assert frozen.weight.grad is None
    torch.testing.assert_close((shared.weight.grad, shared.bias.grad), expected)


def test_an_error_in_a_thread_comes_through(
    use_threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_autosegnet.training import weight_gradients

    def no_memory(*args: object) -> list[Tensor]:
        raise torch.OutOfMemoryError("out of memory")

    use_threads(2)
    monkeypatch.setattr(weight_gradients, "convolution_gradients", no_memory)
    net, images = nn.Conv2d(1, 2, 3), batch()[0]
    with pytest.raises(torch.OutOfMemoryError):
        set_gradients(lambda: net(images).square().mean(), WorkerThreads(CPU))
