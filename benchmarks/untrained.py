"""Networks of random weights, for benchmarks of speed."""

from __future__ import annotations

from typing import Any

import numpy as np


def untrained_model(seed: int, mean: float, std: float, *, patch_size: int, **size: int) -> Any:
    """A searched network of random choices and weights, of two classes: fast to have, as slow as a trained one."""
    import torch

    from napari_autosegnet.architecture import SearchSpace
    from napari_autosegnet.data.annotations import default_classes
    from napari_autosegnet.data.normalization import Normalization
    from napari_autosegnet.model import Model
    from napari_autosegnet.networks.specification import NetworkSpecification

    specification = NetworkSpecification(
        network="searched",
        architecture=SearchSpace().sample(np.random.default_rng(seed)),
        in_channels=1,
        classes=2,
        **size,
    )
    torch.manual_seed(0)
    return Model.create(
        specification.build(),
        specification,
        classes=default_classes(["boundary", "cell"]),
        normalization=Normalization(mean=(mean,), std=(std,)),
        image_channels=1,
        patch_size=patch_size,
    )
