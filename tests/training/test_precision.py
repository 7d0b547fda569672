"""bfloat16 in trainings, float32 in results."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from napari_autosegnet.networks.operations import SeparableConvolution
from napari_autosegnet.training.precision import inference_precision, training_precision

CPU = torch.device("cpu")
Units = Callable[[bool], None]


@pytest.mark.parametrize(("has", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_trainings_use_bfloat16_where_the_cpu_has_matrix_units(
    matrix_units: Units, has: bool, dtype: torch.dtype
) -> None:
    matrix_units(has)
    with training_precision(CPU):
        assert torch.nn.Conv2d(8, 8, 3)(torch.zeros(1, 8, 4, 4)).dtype is dtype


def test_torch_that_does_not_tell_means_float32(monkeypatch: pytest.MonkeyPatch, matrix_units: Units) -> None:
    matrix_units(True)
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    with training_precision(CPU):
        assert not torch.is_autocast_enabled("cpu")


def test_cards_that_only_emulate_bfloat16_use_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    for precision in (training_precision, inference_precision):
        with precision(torch.device("cuda")):
            assert not torch.is_autocast_enabled("cuda")


def test_results_of_a_cpu_are_float32_everywhere(matrix_units: Units) -> None:
    matrix_units(True)
    with inference_precision(CPU):
        assert torch.nn.Conv2d(8, 8, 3)(torch.zeros(1, 8, 4, 4)).dtype is torch.float32


def test_depthwise_convolutions_stay_in_float32(matrix_units: Units) -> None:
    matrix_units(True)
    operation = SeparableConvolution(8, 5)
    seen: dict[str, torch.dtype] = {}
    for name in ("depthwise", "pointwise"):
        getattr(operation, name).register_forward_hook(lambda *a, name=name: seen.update({name: a[2].dtype}))
    with training_precision(CPU):
        operation(torch.randn(1, 8, 6, 6))
    assert seen == {"depthwise": torch.float32, "pointwise": torch.bfloat16}


def test_gradients_are_those_of_float32_up_to_rounding(matrix_units: Units) -> None:
    torch.manual_seed(0)
    operation, image = SeparableConvolution(16, 3), torch.randn(2, 16, 16, 16)
    gradients = []
    for has in (True, False):
        matrix_units(has)
        operation.zero_grad()
        with training_precision(CPU):
            value = operation(image).float().square().mean()
        value.backward()
        gradients.append(operation.depthwise.weight.grad.clone())
    assert not torch.equal(*gradients)  # or bfloat16 was not used at all
    assert torch.nn.functional.cosine_similarity(*(g.flatten() for g in gradients), dim=0) > 0.999
