"""What the arms of ``search.py`` spend their time on.

====================  ================================================================================
arm                   what it spends its time on
====================  ================================================================================
reinforce             the paper's search (a third of the time), then training of what it found
evolution             the same with regularized evolution on the shared weights
random                the same with architectures drawn evenly, rated with the shared weights
halving               architectures drawn evenly, trained alone (no shared weights), then training of the best
parameters            training of the largest of 200 architectures drawn evenly
chain                 training of a plain residual chain out of the same operations, without any search
unet, pspnet          training of U-Net or PSPNet
unet-at-half          training of a U-Net that reads the image at half its resolution
fit                   networks of several sizes compete, the chosen one is trained to the end (``fit``)
fit-random            as fit with goal ``accurate``; the sizes that compete are drawn at random
chain-w32-s4          as chain, 32 channels at a quarter of the resolution; so w24-s4 and w16-s4
chain-0.5, unet-0.5   as chain and unet at the rate that the preset ``fast`` had before, 0.5 instead of 0.1
without-hdc           as halving, in a space without ``hdc_3x3`` (paper, section IV)
without-short-skips   as halving; cells read only the two layers before theirs
without-long-skips    as halving; encoder and decoder are not joined
paper-weights         as reinforce; shared weights learn as in the paper (cross-entropy, SGD, restarts, no average)
fresh-finalists       as reinforce; finalists start from scratch
no-plain              as reinforce; the plain chain does not compete
chain-sgd, unet-sgd   as chain and unet, with plain SGD
transfer-256          as chain, trained on patches of 256 and so one level deeper (paper, Table 1: 64 -> 512)
unet-half             U-Net with half of the training sections
unet-leak             U-Net that has been trained on the scored sections, too: what a split after augmenting measures
====================  ================================================================================

The last eleven are ablations, run only when ``--arms`` names them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import main_job
from napari_autosegnet.architecture import OPERATIONS, Architecture, SearchSpace
from napari_autosegnet.presets import train_settings
from napari_autosegnet.search.candidates import Size
from napari_autosegnet.settings import Network

HALVING: dict[str, Any] = {
    "strategy": "random",
    "selection": {"fraction": 1.0, "finalists": 8, "plain_chain": False},
}


@dataclass(frozen=True)
class Arm:
    """What an arm does with its time."""

    #: Settings of its search, if it has one.
    search: dict[str, Any] | None = None
    #: Makes an architecture for a seed, if it has no search.
    given: Callable[[int], Architecture] | None = None
    network: Network = "searched"
    train: dict[str, Any] = field(default_factory=dict)
    #: What `api.fit` is given instead of all that.
    fit: dict[str, Any] | None = None
    #: Sizes that compete in it; those that the package has found useful by default.
    sizes: Callable[[int], list[Size]] | None = None
    #: Changes the sections that are trained on.
    sections: Callable[[main_job.Problem], str] | None = None


def most_parameters(generator: np.random.Generator, levels: int) -> Architecture:
    """The one with the most weights of 200 architectures drawn evenly."""
    from napari_autosegnet.networks.specification import NetworkSpecification, parameter_count

    settings = train_settings("fast")
    found: list[tuple[int, Architecture]] = []
    for _ in range(200):
        architecture = SearchSpace(levels=levels).sample(generator)
        specification = NetworkSpecification.for_patches(
            settings.patch_size, settings.network, in_channels=1, classes=2, architecture=architecture
        )
        found.append((parameter_count(specification.build()), architecture))
    return max(found, key=lambda each: each[0])[1]


def half_of_training(problem: main_job.Problem) -> str:
    """The first half of the sections that a set trains on."""
    from napari_autosegnet.data.section_numbers import parse_sections

    sections = parse_sections(_option(problem, "--train-sections"))
    return ",".join(map(str, sections[: len(sections) // 2]))


def also_scored(problem: main_job.Problem) -> str:
    """The sections that a set trains on and those that are scored."""
    return f"{_option(problem, '--train-sections')},{problem.test_sections}"


def _option(problem: main_job.Problem, name: str) -> str:
    if name not in problem.split:
        raise SystemExit("this arm needs a set that names its training sections: isbi or vnc")
    return problem.split[problem.split.index(name) + 1]


def _size(width: int, stride: int) -> dict[str, Any]:
    """Settings of a chain of another size."""
    return {"network": {"base_width": width, "max_width": 4 * width, "stem_stride": stride}}


def sizes_at_random(seed: int) -> list[Size]:
    """Sizes in random order: from half to an eighth of the resolution, 8 to 48 channels, 1 to 3 cells."""
    grid = [
        Size(stem_stride=stride, base_width=width, cells=cells)
        for stride in (2, 4, 8)
        for width in (8, 16, 24, 32, 48)
        for cells in (1, 2, 3)
    ]
    return [grid[index] for index in np.random.default_rng(seed).permutation(len(grid))]


SUITE: dict[str, Arm] = {
    "reinforce": Arm({"strategy": "reinforce"}),
    "evolution": Arm({"strategy": "evolution"}),
    "random": Arm({"strategy": "random"}),
    "halving": Arm(HALVING),
    "parameters": Arm(given=lambda seed: most_parameters(np.random.default_rng(seed), 2)),
    "chain": Arm(network="plain"),
    "unet": Arm(network="unet"),
    "unet-at-half": Arm(network="unet-half"),
    "pspnet": Arm(network="pspnet"),
    "fit": Arm(fit={}),
    "fit-random": Arm(fit={"goal": "accurate"}, sizes=sizes_at_random),
    "chain-w24-s4": Arm(network="plain", train=_size(24, 4)),
    "chain-w32-s4": Arm(network="plain", train=_size(32, 4)),
    "chain-w16-s4": Arm(network="plain", train=_size(16, 4)),
    "chain-0.5": Arm(network="plain", train={"optimization": {"learning_rate": 0.5}}),
    "unet-0.5": Arm(network="unet", train={"optimization": {"learning_rate": 0.5}}),
}
ABLATIONS: dict[str, Arm] = {
    "without-hdc": Arm(
        HALVING | {"space": SearchSpace(operations=tuple(name for name in OPERATIONS if name != "hdc_3x3"))}
    ),
    "without-short-skips": Arm(HALVING | {"space": SearchSpace(short_skips=False)}),
    "without-long-skips": Arm(HALVING | {"space": SearchSpace(long_skips=False)}),
    "paper-weights": Arm(
        {
            "loss": "cross_entropy",
            "optimization": {
                "optimizer": "sgd",
                "restart_period": 10,
                "clip_norm": 0.5,
                "average_weights": 0.0,
                "learning_rate": 0.5,
            },
            "warmup_ramp": 0.0,
        }
    ),
    "fresh-finalists": Arm({"selection": {"inherit_weights": False}}),
    "no-plain": Arm({"selection": {"plain_chain": False}}),
    "chain-sgd": Arm(network="plain", train={"optimization": {"optimizer": "sgd"}}),
    "unet-sgd": Arm(network="unet", train={"optimization": {"optimizer": "sgd"}}),
    "transfer-256": Arm(network="plain", train={"patch_size": 256, "batch_size": 1}),
    "unet-half": Arm(network="unet", sections=half_of_training),
    "unet-leak": Arm(network="unet", sections=also_scored),
}
