"""Losses."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from napari_autosegnet.training.losses import cross_entropy, dice_loss, make_loss, with_teacher


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 8, 8, generator=generator, requires_grad=True)
    return logits, torch.randint(0, 3, (2, 8, 8), generator=generator)


@pytest.mark.parametrize("kind", ["cross_entropy", "weighted", "dice"])
def test_ignored_pixels_give_no_gradient(kind: str) -> None:
    logits, target = batch()
    target[:, :4] = -1
    loss = make_loss(kind, torch.tensor([0.5, 0.3, 0.2]))(logits, target)  # type: ignore[arg-type]
    loss.backward()
    assert (logits.grad[:, :, :4] == 0).all()
    assert (logits.grad[:, :, 4:] != 0).any()


@pytest.mark.parametrize("kind", ["cross_entropy", "weighted", "dice"])
def test_a_batch_without_annotation_is_finite(kind: str) -> None:
    logits, target = batch()
    loss = make_loss(kind, torch.tensor([0.5, 0.3, 0.2]))(logits, torch.full_like(target, -1))  # type: ignore[arg-type]
    loss.backward()
    assert torch.isfinite(loss)
    assert (logits.grad == 0).all()


def test_cross_entropy_is_torchs_mean() -> None:
    logits, target = batch()
    target[0, 0] = -1
    weight = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(cross_entropy(logits, target), functional.cross_entropy(logits, target, ignore_index=-1))
    torch.testing.assert_close(
        cross_entropy(logits, target, weight), functional.cross_entropy(logits, target, weight, ignore_index=-1)
    )


def test_dice_loss_of_a_perfect_prediction_is_zero() -> None:
    _, target = batch()
    perfect = functional.one_hot(target, 3).permute(0, 3, 1, 2) * 100.0
    assert float(dice_loss(perfect, target)) == pytest.approx(0, abs=1e-5)
    assert float(dice_loss(-perfect, target)) > 0.5


def test_rare_classes_weigh_more() -> None:
    logits = torch.zeros(1, 2, 1, 2, requires_grad=True)
    target = torch.tensor([[[0, 1]]])
    make_loss("weighted", torch.tensor([0.9, 0.1]))(logits, target).backward()
    assert logits.grad[0, 1, 0, 1].abs() > 5 * logits.grad[0, 0, 0, 0].abs()


def test_what_a_teacher_says_weighs_less_than_what_is_painted() -> None:
    logits, target = batch()
    painted, taught = target.clone(), target.clone()
    painted[:, 2:] = -1
    taught[:, :4] = -1
    both = torch.where(taught >= 0, taught + 3, painted)
    loss = make_loss("dice", torch.tensor([0.5, 0.3, 0.2]))
    expected = loss(logits, painted) + 0.25 * loss(logits, taught)
    torch.testing.assert_close(with_teacher(loss, 3, 0.25)(logits, both), expected)
