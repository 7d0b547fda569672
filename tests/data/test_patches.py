"""Training patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from napari_autosegnet.architecture import SearchSpace
from napari_autosegnet.data.annotations import parse_classes
from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.data.labeled_stacks import LabeledStack, open_labeled, pair_stacks
from napari_autosegnet.data.loaded_regions import reflected
from napari_autosegnet.data.normalization import Normalization, measure
from napari_autosegnet.data.patches import IGNORE, PatchSource
from napari_autosegnet.data.regions import Region
from napari_autosegnet.data.split import split_stacks
from napari_autosegnet.data.validation_patches import validation_patches
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import silent
from napari_autosegnet.networks.specification import NetworkSpecification
from napari_autosegnet.presets import train_settings
from napari_autosegnet.settings import AugmentationSettings, NetworkSettings, SplitSettings
from napari_autosegnet.training.trainer import Trainer
from napari_autosegnet.training.training_data import TrainingData
from small_stacks import AS_IT_IS, full, seeded, stack_of, two_classes

pytestmark = pytest.mark.usefixtures("unlimited_pixels")

FLIPS = AugmentationSettings(rotation="quarter", scale=0, elastic=0, contrast=0, brightness=0, noise=0, blur=0)
SHAPES = AugmentationSettings(contrast=0, brightness=0, noise=0, blur=0)


def source_of(
    stack: LabeledStack,
    regions: list[Region],
    augmentation: AugmentationSettings | None = None,
    *,
    size: int = 16,
    context: int = 0,
    normalization: Normalization = AS_IT_IS,
) -> PatchSource:
    return PatchSource(
        [stack],
        regions,
        normalization,
        size=size,
        context=context,
        augmentation=augmentation,
        device="cpu",
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_plain_patches_are_the_normalized_pixels(dtype: type) -> None:
    # Each pixel's value is its position, so a patch says where it was cut.
    image: np.ndarray = np.arange(2 * 10 * 12).reshape(2, 10, 12).astype(dtype)
    labels = two_classes(2, 10, 12)
    stack = stack_of(image, labels)
    source = source_of(
        stack, [full(0, 10, 12), full(1, 10, 12)], size=4, normalization=Normalization(mean=(3.0,), std=(2.0,))
    )
    images, targets = source.sample(40, seeded())
    assert (images.shape, images.dtype) == ((40, 1, 4, 4), torch.float32)
    assert (targets.shape, targets.dtype) == ((40, 4, 4), torch.int64)
    where = (images[:, 0] * 2 + 3).round().long().numpy()
    np.testing.assert_array_equal(where[:, 1:] - where[:, :-1], 12)
    np.testing.assert_array_equal(labels.ravel()[where], targets.numpy() + 1)
    assert len({int(corner) for corner in where[:, 0, 0]}) > 25


@settings(max_examples=40, deadline=None)
@given(
    y=st.tuples(st.integers(0, 30), st.integers(6, 30)),
    x=st.tuples(st.integers(0, 30), st.integers(6, 30)),
    size=st.sampled_from([8, 16, 24]),
    context=st.integers(0, 1),
    which=st.sampled_from([None, FLIPS, SHAPES]),
    sparse=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_a_patch_shows_nothing_beyond_its_region(
    y: tuple[int, int],
    x: tuple[int, int],
    size: int,
    context: int,
    which: AugmentationSettings | None,
    sparse: bool,
    seed: int,
) -> None:
    rows, columns = (y[0], y[0] + y[1]), (x[0], x[0] + x[1])
    image = np.full((3, 60, 60), 200, np.uint8)
    labels = np.full((3, 60, 60), 2, np.uint8)
    image[:, slice(*rows), slice(*columns)] = 50
    inside = np.zeros((y[1], x[1]), np.uint8) if sparse else np.ones((y[1], x[1]), np.uint8)
    inside[y[1] // 2, x[1] // 2] = 1
    labels[1, slice(*rows), slice(*columns)] = inside
    source = source_of(stack_of(image, labels), [Region(0, 1, rows, columns)], which, size=size, context=context)
    images, targets = source.sample(6, seeded(seed))
    assert images.shape[1] == 2 * context + 1 == source.channels
    torch.testing.assert_close(images, torch.full_like(images, 50.0), atol=1e-3, rtol=0)
    assert set(np.unique(targets).tolist()) <= {IGNORE, 0}
    assert (targets == 0).any()


def test_quarter_turns_and_flips_give_all_eight_ways() -> None:
    image = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)
    labels = np.ones((1, 4, 4), np.uint8)
    labels[0, 0, 1] = 2
    images, targets = source_of(stack_of(image, labels), [full(0, 4, 4)], FLIPS, size=4).sample(200, seeded())
    ways = {tuple(patch.ravel().tolist()) for patch in images[:, 0]}
    square = image[0]
    expected = {
        tuple(np.rot90(part, quarter).ravel().astype(float).tolist())
        for part in (square, square[:, ::-1])
        for quarter in range(4)
    }
    assert ways == expected
    assert torch.equal(images[:, 0] == 1, targets == 1)


@pytest.mark.parametrize("augmentation", [None, FLIPS, AugmentationSettings()], ids=["none", "exact", "full"])
def test_the_generator_is_all_the_state(augmentation: AugmentationSettings | None) -> None:
    stack = stack_of(np.random.default_rng(0).integers(0, 255, (4, 50, 60), dtype=np.uint8), two_classes(4, 50, 60))
    regions = [full(section, 50, 60) for section in range(4)]
    source = source_of(stack, regions, augmentation)
    generator, again = seeded(), seeded(99)
    source.sample(3, generator)
    again.set_state(generator.get_state())
    expected = [source.sample(5, generator) for _ in range(2)]
    resumed = source_of(stack, regions, augmentation)
    for images, targets in expected:
        same, labels = resumed.sample(5, again)
        assert torch.equal(images, same) and torch.equal(targets, labels)


def test_context_channels_are_the_sections_around() -> None:
    image = np.stack([np.full((2, 20, 20), 10 * z, np.uint8) for z in range(5)], axis=1)
    image[1] += 1
    stack = stack_of(image, two_classes(5, 20, 20), channel_axis=0)
    normalization = Normalization(mean=(0.0, 0.0), std=(1.0, 1.0))
    for section, expected in {
        0: [0, 1, 0, 1, 0, 1, 10, 11, 20, 21],
        3: [10, 11, 20, 21, 30, 31, 40, 41, 40, 41],
    }.items():
        source = source_of(stack, [full(section, 20, 20)], None, context=2, normalization=normalization)
        images, _ = source.sample(2, seeded())
        assert images[:, :, 0, 0].tolist() == [expected] * 2 and source.channels == 10


def test_sections_of_another_shape_are_no_context() -> None:
    labels = [two_classes(20, 20), two_classes(20, 24)]
    stacks = [
        pair_stacks(
            [image_from_array(np.full(part.shape, 7, np.uint8))], [image_from_array(part)], parse_classes("1:a,2:b")
        )[0]
        for part in labels
    ]
    regions = [Region(0, 0, (0, 20), (0, 20)), Region(1, 0, (0, 20), (0, 24))]
    source = PatchSource(stacks, regions, AS_IT_IS, size=16, context=1, augmentation=None, device="cpu")
    assert np.unique(source.sample(8, seeded())[0]).tolist() == [7.0]


def test_sparse_scribbles_are_always_seen() -> None:
    labels = np.zeros((3, 300, 300), np.uint8)
    labels[0, 40:44, 50:90] = 1
    labels[2, 250:252, 10:14] = 2
    stack = stack_of(np.zeros_like(labels), labels)
    source = source_of(stack, [full(section, 300, 300) for section in range(3)], SHAPES, size=32)
    _, targets = source.sample(200, seeded())
    seen = [(targets == number).flatten(1).any(1).float().mean() for number in (0, 1)]
    assert sum(seen) > 0.99
    assert seen[1] > 0.2  # though it has 5 % of the annotated pixels
    assert source.class_frequencies.tolist() == pytest.approx([160 / 168, 8 / 168])


def test_rare_classes_are_looked_for() -> None:
    labels = np.ones((1, 400, 400), np.uint8)
    labels[0, 200:205, 200:205] = 2
    stack = stack_of(np.zeros_like(labels), labels)
    _, targets = source_of(stack, [full(0, 400, 400)], None, size=32).sample(200, seeded())
    assert 0.15 < (targets == 1).flatten(1).any(1).float().mean() < 0.45


def test_regions_are_drawn_by_annotated_area() -> None:
    labels = np.zeros((2, 64, 64), np.uint8)
    labels[0] = two_classes(64, 64)
    labels[1, :16] = two_classes(16, 64)
    image = np.zeros_like(labels)
    image[1] = 1
    stack = stack_of(image, labels)
    images, _ = source_of(stack, [full(0, 64, 64), full(1, 64, 64)], None).sample(500, seeded())
    assert images.amax((1, 2, 3)).mean() == pytest.approx(0.2, abs=0.06)


def test_bad_data_is_named() -> None:
    image = np.zeros((2, 20, 20), np.float32)
    image[1, 3, 3] = np.nan
    labels = two_classes(2, 20, 20)
    with pytest.raises(UserError, match="section 1 of image is NaN or infinite in 1 pixel; replace"):
        source_of(stack_of(image, labels), [full(1, 20, 20)])
    labels[0] = 0
    with pytest.raises(UserError, match="nothing is annotated in the training part"):
        source_of(stack_of(image, labels), [full(0, 20, 20)])
    with pytest.raises(UserError, match="nothing is annotated in the validation part"):
        validation_patches(
            [stack_of(image, labels)],
            [full(0, 20, 20)],
            AS_IT_IS,
            size=16,
            limit=None,
            generator=seeded(),
            device="cpu",
        )


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 20), start=st.integers(-60, 60))
def test_reflection_is_numpys(length: int, start: int) -> None:
    values = np.arange(length)
    expected = np.pad(values, 120, mode="reflect") if length > 1 else np.zeros(241, int)
    index = np.arange(start, start + 30)
    np.testing.assert_array_equal(reflected(torch.from_numpy(index), length), expected[index + 120])


# ---------------------------------------------------------------- validation


# ---------------------------------------------------------------- real data


@pytest.mark.parametrize("preset", ["fast", "standard"])
def test_isbi_patches(shared_data: Path, preset: str) -> None:
    folder = shared_data / "isbi2012"
    stacks = open_labeled([folder / "train-volume.tif"], [folder / "train-labels.tif"], "0:membrane,255:cell")
    split = split_stacks(stacks, SplitSettings(train_sections="0-15", validation_sections="18-21"))
    normalization = measure(stacks, split.training)
    source = PatchSource(
        stacks,
        split.training,
        normalization,
        size=128,
        augmentation=train_settings("fast" if preset == "fast" else "standard").augmentation,
        device="cpu",
    )
    images, targets = source.sample(32, seeded())
    assert images.isfinite().all() and abs(float(images.mean())) < 0.3 and 0.7 < float(images.std()) < 1.3
    membrane = float((targets == 0).sum() / (targets != IGNORE).sum())
    assert membrane == pytest.approx(float(source.class_frequencies[0]), abs=0.06)
    # Membranes are dark: image and target have been moved alike.
    assert images[:, 0][targets == 0].mean() < images[:, 0][targets == 1].mean() - 0.8
    shown, truth, sections = validation_patches(
        stacks, split.validation, normalization, size=128, limit=16, generator=seeded(), device="cpu"
    )
    assert sections == len({region.section for region in split.validation})
    assert shown.shape == (16, 1, 128, 128) and np.unique(truth).tolist() == [0, 1]


def test_photographs_of_many_sizes(shared_data: Path) -> None:
    folder = shared_data / "industrial"
    stacks = open_labeled([folder / "full" / "images"], [folder / "full" / "masks"], "0:sound,255:defect")
    split = split_stacks(stacks, SplitSettings(group=f"group@{folder / 'index.csv'}"))
    normalization = measure(stacks, split.training)
    source = PatchSource(
        stacks,
        split.training,
        normalization,
        size=128,
        augmentation=AugmentationSettings(),
        device="cpu",
    )
    _, targets = source.sample(32, seeded())
    assert float((targets == 1).sum() / (targets != IGNORE).sum()) > float(source.class_frequencies[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_patches_on_a_gpu_match_those_on_the_cpu() -> None:
    stack = stack_of(np.random.default_rng(0).integers(0, 255, (2, 80, 80), dtype=np.uint8), two_classes(2, 80, 80))
    regions = [full(0, 80, 80), full(1, 80, 80)]
    found = []
    for device in ("cpu", "cuda"):
        source = PatchSource([stack], regions, AS_IT_IS, size=32, augmentation=SHAPES, device=device)
        found.append([part.cpu() for part in source.sample(8, seeded())])
    torch.testing.assert_close(found[0][0], found[1][0], atol=0.1, rtol=0)
    assert (found[0][1] == found[1][1]).float().mean() > 0.999


def test_every_annotated_pixel_can_be_shown() -> None:
    # A side that is a power of two, of which an even step through the pixels would meet a few columns only.
    image = np.zeros((1, 512, 512), np.uint8)
    labels = np.zeros((1, 512, 512), np.uint8)
    labels[0, :256, :256] = two_classes(256, 256)
    source = source_of(stack_of(image, labels), [full(0, 512, 512)], size=16)
    (region,) = source.regions
    places = np.array([region.place(0, where) for where in np.linspace(0, 1, 4000, endpoint=False)])
    assert (labels[0][tuple(places.T)] == 1).all()
    for axis in range(2):
        assert len(np.unique(places[:, axis])) > 250


def test_context_takes_the_memory_of_its_sections_once() -> None:
    image = np.random.default_rng(0).integers(0, 255, (5, 64, 64), dtype=np.uint8)
    source = source_of(stack_of(image, two_classes(5, 64, 64)), [full(z, 64, 64) for z in range(5)], context=2, size=32)
    held = {part.untyped_storage().data_ptr() for region in source.regions for part in region.images}
    assert len(held) == 5
    images, _ = source.sample(3, seeded())
    assert images.shape == (3, 5, 32, 32)


def test_patches_show_what_a_teacher_says_where_nobody_painted() -> None:
    labels = np.zeros((1, 64, 64), np.uint8)
    labels[0, :4, :4], labels[0, :4, 8:12] = 1, 2
    taught = np.zeros((64, 64), np.uint8)
    taught[:, :40] = 2
    image = np.arange(64 * 64, dtype=np.uint16).reshape(1, 64, 64)
    source = PatchSource(
        [stack_of(image, labels)], [full(0, 64, 64)], AS_IT_IS, size=8, augmentation=FLIPS, device="cpu",
        taught=[taught],
    )  # fmt: skip
    images, targets = source.sample(400, seeded())
    expected = np.where(labels[0] > 0, labels[0].astype(int) - 1, np.where(taught > 0, 3, IGNORE))
    places = images[:, 0].long()
    np.testing.assert_array_equal(expected.ravel()[places], targets.numpy())
    assert (places // 64 > 50).any(dim=(1, 2)).sum() > 20, "also where nothing is painted"
    assert ((targets == 0) | (targets == 1)).any(dim=1).any(dim=1).sum() > 150


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for a device: copies to it or from it that are not asynchronous."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(func)
        if "_to_copy" in name:
            target = kwargs.get("device")
            moves = target is not None and torch.device(target) != args[0].device
            if moves and not kwargs.get("non_blocking"):
                self.found.append(name)
        elif "copy_" in name and len(args) > 1 and isinstance(args[1], torch.Tensor):
            if args[0].device != args[1].device and not (kwargs.get("non_blocking") or args[2:]):
                self.found.append(name)
        elif "_local_scalar_dense" in name:
            self.found.append(name)
        return func(*args, **kwargs)


def test_no_step_waits_for_the_device() -> None:
    image = np.random.default_rng(0).integers(0, 255, (3, 128, 128), dtype=np.uint8)
    stack = stack_of(image, two_classes(3, 128, 128))
    patches = PatchSource(
        [stack], [full(z, 128, 128) for z in range(3)], AS_IT_IS, size=64, augmentation=AugmentationSettings(),
        device="meta",
    )  # fmt: skip
    network = NetworkSpecification.for_patches(
        64, NetworkSettings(base_width=4, max_width=8), in_channels=1, classes=2, architecture=SearchSpace().plain
    ).build()
    there = torch.device("meta")
    data = TrainingData(
        patches,
        torch.empty(4, 1, 64, 64, device=there),
        torch.zeros(4, 64, 64, dtype=torch.long, device=there),
        ("a", "b"),
    )
    trainer = Trainer(network, data, train_settings("fast", loss="weighted"))
    trainer.train_step(0.5, silent)  # what is measured once
    with Waits() as waits:
        trainer.train_step(0.5, silent)
    assert waits.found == []
    with Waits() as waits:
        torch.zeros(3).to(there)
        torch.zeros((), device="cpu").item()
    assert len(waits.found) == 2, "the counting itself"
