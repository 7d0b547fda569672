"""Operations against references made by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from napari_autosegnet.architecture import OPERATIONS
from napari_autosegnet.networks.operations import HybridDilatedConvolution, SeparableConvolution, make_operation


@pytest.mark.parametrize(("size", "width"), [(3, 8), (5, 12)])
def test_separable_convolution_has_the_parameters_it_claims(size: int, width: int) -> None:
    operation = SeparableConvolution(width, size)
    count = sum(p.numel() for p in operation.parameters())
    assert count == width * size * size + width * width + 2 * width


def test_separable_convolution_is_depthwise_then_pointwise() -> None:
    torch.manual_seed(0)
    operation = SeparableConvolution(4, 3).eval()
    x = torch.randn(1, 4, 9, 9)
    depthwise = torch.cat(
        [functional.conv2d(x[:, c : c + 1], operation.depthwise.weight[c : c + 1], padding=1) for c in range(4)], dim=1
    )
    mixed = torch.einsum("oc,ncyx->noyx", operation.pointwise.weight[:, :, 0, 0], depthwise)
    expected = (mixed / (1 + operation.norm.eps) ** 0.5).relu()
    torch.testing.assert_close(operation(x), expected)


@pytest.mark.parametrize("width", [1, 2, 7, 12])
def test_hybrid_dilated_convolution_concatenates_its_rates(width: int) -> None:
    torch.manual_seed(0)
    operation = HybridDilatedConvolution(width).eval()
    x = torch.randn(1, width, 16, 16)
    parts = []
    for rate, branch in zip((1, 2, 3), operation.branches, strict=False):
        # A dilated kernel written out with its holes.
        kernel = torch.zeros(branch.out_channels, width, 2 * rate + 1, 2 * rate + 1)
        kernel[:, :, ::rate, ::rate] = branch.weight
        parts.append(functional.conv2d(x, kernel, padding=rate))
    expected = (torch.cat(parts, dim=1) / (1 + operation.norm.eps) ** 0.5).relu()
    torch.testing.assert_close(operation(x), expected, rtol=1e-4, atol=1e-5)
    assert sum(branch.weight.numel() for branch in operation.branches) == 9 * width * width


def test_hybrid_dilated_convolution_sees_seven_pixels_without_holes() -> None:
    operation = HybridDilatedConvolution(3, track_statistics=True).eval()
    for branch in operation.branches:
        torch.nn.init.ones_(branch.weight)
    x = torch.ones(1, 3, 15, 15, requires_grad=True)
    operation(x)[0, :, 7, 7].sum().backward()
    row = x.grad.sum(dim=(0, 1))[7]
    assert (row[4:11] > 0).all()
    assert (row[:4] == 0).all() and (row[11:] == 0).all()


def test_convolution_against_a_loop() -> None:
    operation = make_operation("conv_3x3", 2).eval()
    x = torch.randn(1, 2, 5, 6)
    weight = operation.get_parameter("convolution.weight")
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    expected = torch.zeros(1, 2, 5, 6)
    for out in range(2):
        for row in range(5):
            for column in range(6):
                expected[0, out, row, column] = (weight[out] * padded[0, :, row : row + 3, column : column + 3]).sum()
    # Fresh statistics: mean 0, variance 1.
    assert torch.allclose(operation(x), expected.relu() / (1 + 1e-5) ** 0.5, atol=1e-5)
    assert sum(p.numel() for p in operation.parameters()) == 2 * 2 * 9 + 2 * 2


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_keep_the_shape(name: str) -> None:
    x = torch.randn(2, 6, 8, 10)
    assert make_operation(name, 6)(x).shape == x.shape
