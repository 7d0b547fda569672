"""Weights to begin with: of which networks there are some, and what stays random."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_autosegnet.networks.pretrained import HEAD, start_from_public_images
from napari_autosegnet.presets import fit_settings
from napari_autosegnet.search.candidates import SIZES

USUAL = SIZES[0]


def network(patch_size: int = 128, channels: int = 1, classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    settings = fit_settings("fast").network
    return USUAL.specification(patch_size, settings, in_channels=channels, classes=classes).build()


def changed(before: nn.Module, after: nn.Module) -> set[str]:
    return {
        name
        for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True)
        if not torch.equal(old, new)
    }


def test_all_but_the_head_is_learned() -> None:
    fresh, learned = network(), network()
    assert start_from_public_images(learned, USUAL.name)
    names = {name for name, _ in fresh.named_parameters()}
    assert changed(fresh, learned) == {name for name in names if not name.startswith(HEAD)}
    assert all(value.isfinite().all() for value in learned.state_dict().values())


def test_what_reads_other_channels_has_a_random_first_convolution() -> None:
    fresh, learned = network(channels=3), network(channels=3)
    assert start_from_public_images(learned, USUAL.name)
    assert {"stem.0.weight"} == {name for name, _ in fresh.named_parameters() if not name.startswith(HEAD)} - changed(
        fresh, learned
    )


@pytest.mark.parametrize(("patch_size", "name"), [(256, USUAL.name), (128, "w7-s4-c3")])
def test_where_there_are_none_nothing_changes(patch_size: int, name: str) -> None:
    fresh, other = network(patch_size), network(patch_size)
    assert not start_from_public_images(other, name)
    assert not changed(fresh, other)
