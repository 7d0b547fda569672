"""Probabilities that mean what they say: temperature scaling on the validation part (Guo et al. 2017).

Networks that are trained for a long time, or with the Dice loss, are surer than they are right. Dividing their logits
by one number, the temperature, mends most of it and changes no label. The number goes into the weights of the last
convolution, so whatever runs the model has calibrated probabilities without knowing of it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_autosegnet.networks.heads import EnlargingHead
from napari_autosegnet.training.precision import inference_precision
from napari_autosegnet.training.threads import WorkerThreads, single_threaded

#: The temperature is looked for between its inverse and this.
HIGHEST_TEMPERATURE = 8.0
#: Pixels that it is measured on, evenly chosen.
MAX_PIXELS = 2**18


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    """Temperature with the lowest cross-entropy of ``logits`` (pixels, K) divided by it, for ``targets`` (pixels,)."""
    if not len(targets):
        return 1.0
    from scipy.optimize import minimize_scalar

    logits = logits.double()

    def cross_entropy(log_temperature: float) -> float:
        return float(functional.cross_entropy(logits / math.exp(log_temperature), targets))

    bound = math.log(HIGHEST_TEMPERATURE)
    minimum = minimize_scalar(cross_entropy, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-3})
    return math.exp(float(minimum.x)) if minimum.fun < cross_entropy(0.0) else 1.0


@single_threaded()
@torch.no_grad()
def calibrate(network: nn.Module, images: Tensor, targets: Tensor, *, batch_size: int, threads: WorkerThreads) -> float:
    """Scale the logits of a network in place so that its probabilities fit; returns the temperature.

    Parameters
    ----------
    network : nn.Module
        With a ``head`` that ends in a convolution; anything after it is linear.
    images, targets : Tensor
        Validation patches (n, c, y, x) and class indices (n, y, x), -1 where not annotated, on the network's device.
    threads : WorkerThreads
        Who computes the logits, ``batch_size`` patches at a time.
    """
    network.eval()
    annotated = int((targets >= 0).sum())
    stride = max(1, -(-annotated // MAX_PIXELS))

    @torch.no_grad()
    def predict(batch: Tensor) -> Tensor:
        with inference_precision(images.device):
            logits_of_batch: Tensor = network(batch.contiguous(memory_format=torch.channels_last))
        return logits_of_batch

    logits, truths, offset = [], [], 0
    predicted = threads.map(predict, torch.split(images, batch_size))
    for logits_of_batch, target in zip(predicted, torch.split(targets, batch_size), strict=True):
        known = target >= 0
        chosen = slice(-offset % stride, None, stride)
        logits.append(logits_of_batch.float().movedim(1, -1)[known][chosen].cpu())
        truths.append(target[known][chosen].cpu())
        offset += int(known.sum())
    temperature = fit_temperature(torch.cat(logits), torch.cat(truths)) if logits else 1.0
    scale_logits(network, 1 / temperature)
    return temperature


@torch.no_grad()
def scale_logits(network: nn.Module, factor: float) -> None:
    """Multiply the logits of a network with a ``head`` that ends in a convolution, or adds up two, in place."""
    head = network.get_submodule("head")
    convolutions = [module for module in head.modules() if isinstance(module, nn.Conv2d)]
    for last in convolutions if isinstance(head, EnlargingHead) else convolutions[-1:]:
        for value in (last.weight, last.bias):
            if value is not None:
                value *= factor
