from __future__ import annotations

import numpy as np
import pytest
import torch

import small_jobs
from learnable import blobs
from napari_autosegnet.architecture import SearchSpace
from napari_autosegnet.errors import UserError
from napari_autosegnet.networks.specification import NetworkSpecification, parameter_count
from napari_autosegnet.search.limits import Limits
from napari_autosegnet.search.search import Search

CPU = torch.device("cpu")
SPECIFICATION = NetworkSpecification(in_channels=1, classes=2, levels=1, base_width=8, max_width=8, stem_stride=4)
SETTINGS = small_jobs.SEARCH.changed(selection={"candidates": 6, "finalists": 3}, samples_per_update=3)


def median_parameters(limits: Limits) -> int:
    generator = np.random.default_rng(0)
    space = SearchSpace(levels=limits.specification.levels)
    return int(np.median([limits.parameters(space.sample(generator)) for _ in range(40)]))


def test_parameters_are_those_of_the_network_that_is_trained() -> None:
    architecture = SearchSpace().sample(np.random.default_rng(0))
    limits = Limits(SPECIFICATION, CPU, max_parameters=1000)
    built = SPECIFICATION.model_copy(update={"architecture": architecture}).build()
    assert limits.parameters(architecture) == parameter_count(built)
    assert not limits.is_small_enough(architecture)
    assert Limits(SPECIFICATION, CPU).is_small_enough(architecture)


def test_a_wider_network_takes_longer_and_measuring_draws_nothing() -> None:
    architecture = SearchSpace().sample(np.random.default_rng(0))
    before = torch.get_rng_state()
    narrow = Limits(SPECIFICATION, CPU, max_latency=0.001)
    wide = SPECIFICATION.model_copy(update={"base_width": 16, "max_width": 16, "stem_stride": 2})
    assert Limits(wide, CPU).latency(architecture) > narrow.latency(architecture) > 0
    assert torch.equal(torch.get_rng_state(), before)
    assert not narrow.is_fast_enough(architecture)
    assert Limits(SPECIFICATION, CPU).is_fast_enough(architecture)


@pytest.mark.parametrize(("strategy", "fraction"), [("reinforce", 0.3), ("random", 1.0), ("evolution", 0.3)])
def test_every_finalist_keeps_to_the_limit(strategy: str, fraction: float) -> None:
    final = SPECIFICATION.model_copy(update={"base_width": 12, "max_width": 24})
    limit = median_parameters(Limits(final, CPU))
    changes = {"strategy": strategy, "selection": {"fraction": fraction}, "max_parameters": limit}
    search = Search(blobs(), SETTINGS.changed(**changes), in_channels=1, final=final)
    result = search.run()
    assert result is not None and result.finalists
    own = Limits(final, CPU)
    assert all(own.parameters(finalist.architecture) <= limit for finalist in result.finalists)
    assert own.parameters(result.architecture) <= limit


@pytest.mark.slow
def test_limits_that_nothing_keeps_to_are_refused_in_one_line() -> None:
    for changes, word in (({"max_parameters": 10}, "--max-parameters 10"), ({"max_latency": 1e-6}, "--max-latency")):
        search = Search(blobs(), SETTINGS.changed(**changes), in_channels=1)
        with pytest.raises(UserError, match=word) as raised:
            search.run()
        assert "\n" not in str(raised.value) and "allow more" in str(raised.value)
