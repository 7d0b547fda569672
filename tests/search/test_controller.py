"""The controller."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from napari_autosegnet.architecture import OPERATIONS, SearchSpace
from napari_autosegnet.search.controller import Controller

SPACE = SearchSpace()


def make(space: SearchSpace = SPACE, seed: int = 0) -> Controller:
    return Controller(space, generator=torch.Generator().manual_seed(seed))


def test_initial_weights_are_uniform() -> None:
    values = torch.cat([p.detach().flatten() for p in make().parameters()])
    assert values.abs().max() <= 0.1
    assert float(values.std()) == pytest.approx(0.1 / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize(
    "space", [SPACE, SearchSpace(cells=1, levels=1), SearchSpace(short_skips=False, long_skips=False)]
)
def test_log_probability_is_the_sum_over_the_choices_made(space: SearchSpace) -> None:
    controller = make(space)
    with torch.no_grad():
        for parameter in controller.parameters():
            parameter.mul_(20)
        sample = controller.sample(16, torch.Generator().manual_seed(1))
        again = controller.evaluate(sample.choices)
    torch.testing.assert_close(sample.log_probabilities, again.log_probabilities)
    torch.testing.assert_close(sample.entropies, again.entropies)


def test_probabilities_of_all_architectures_add_up_to_one() -> None:
    tiny = SearchSpace(operations=("sep_conv_3x3", "identity"), cells=1, levels=1)
    every = np.array(np.meshgrid(*[range(d.choices) for d in tiny.decisions])).T.reshape(-1, len(tiny.decisions))
    allowed = [row.tolist() for row in every if tiny.allows(tiny.decode(row))]
    with torch.no_grad():
        total = make(tiny, 3).evaluate(torch.tensor(allowed)).log_probabilities.sum(dim=1).exp().sum()
    assert float(total) == pytest.approx(1.0, abs=1e-4)


def test_a_layer_of_identities_is_never_sampled() -> None:
    space = SearchSpace(operations=("identity", "sep_conv_3x3"), cells=1)
    sample = make(space).sample(400, torch.Generator().manual_seed(0))
    assert all(space.allows(architecture) for architecture in sample.architectures(space))
    assert torch.isfinite(sample.log_probabilities).all() and torch.isfinite(sample.entropies).all()


def test_an_up_layer_reads_what_long_skips_are_joined_to() -> None:
    space = SearchSpace(operations=("sep_conv_3x3",), cells=2)
    sample = make(space).sample(400, torch.Generator().manual_seed(0))
    architectures = sample.architectures(space)
    assert all(1 in architecture.up.inputs_read for architecture in architectures)
    # Only there: the other layers may read h[t-2] alone.
    assert any(1 not in architecture.down.inputs_read for architecture in architectures)
    assert torch.isfinite(sample.log_probabilities).all() and torch.isfinite(sample.entropies).all()


def test_the_least_entropy_is_that_of_the_surest_choices() -> None:
    controller = make()
    b = 1.1
    surest = torch.tensor([b, -b, -b]).softmax(0)
    expected = float(-(surest * surest.log()).sum())
    three = SearchSpace(operations=("conv_3x3",), cells=2, levels=1)
    # Per layer two inputs of two and two of three places, one operation each; and one long skip.
    two = torch.tensor([b, -b]).softmax(0)
    of_two = float(-(two * two.log()).sum())
    assert make(three).least_entropy == pytest.approx(3 * (2 * of_two + 2 * expected) + of_two, rel=1e-5)
    assert controller.least_entropy < 0.8 * sum(math.log(d.choices) for d in SPACE.decisions)
    operations = torch.full((len(OPERATIONS),), -1.1 / 2.5)
    operations[0] = 1.1 / 2.5
    assert controller.largest_identity_fraction == pytest.approx(float(operations.softmax(0)[0]))


def test_it_starts_even_and_its_entropy_is_the_distributions() -> None:
    # Without long skips nothing is forbidden but layers of identities.
    space = SearchSpace(long_skips=False)
    sample = make(space).sample(64, torch.Generator().manual_seed(0))
    largest = sum(math.log(d.choices) for d in space.decisions)
    entropies = sample.entropies.sum(dim=1)
    assert entropies.mean().item() == pytest.approx(largest, rel=0.01)
    # An estimate from the choices made would scatter much more.
    assert entropies.std() < 0.1 * sample.log_probabilities.sum(dim=1).std() + 0.05
    counts = torch.stack([(sample.choices[:, 1::2][:, :18] == i).sum() for i in range(len(OPERATIONS))])
    assert counts.min() > 0.8 * counts.float().mean()


def test_logits_are_bounded() -> None:
    controller = make()
    with torch.no_grad():
        for parameter in controller.parameters():
            parameter.mul_(1000)
        sample = controller.sample(32, torch.Generator().manual_seed(0))
    operations = [i for i, d in enumerate(SPACE.decisions) if d.kind == "operation"]
    # Two logits differ by at most 2 * 1.10 / 2.5, so no operation is rarer than this.
    rarest = math.exp(-1.1 / 2.5) / (math.exp(-1.1 / 2.5) + (len(OPERATIONS) - 1) * math.exp(1.1 / 2.5))
    unmasked = operations[0:5]
    assert sample.log_probabilities[:, unmasked].exp().min() >= rarest - 1e-6


def test_the_same_seed_writes_the_same_architectures() -> None:
    first = make(seed=5).sample(8, torch.Generator().manual_seed(2)).choices
    assert torch.equal(first, make(seed=5).sample(8, torch.Generator().manual_seed(2)).choices)
    assert not torch.equal(first, make(seed=6).sample(8, torch.Generator().manual_seed(3)).choices)
