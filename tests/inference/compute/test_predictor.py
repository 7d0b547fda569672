from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Event
from napari_autosegnet.inference.blocks import BlockPlan
from napari_autosegnet.inference.compute.block_pixels import BlockInput, pad_to_domain
from napari_autosegnet.inference.compute.folding import fold_batch_norm
from napari_autosegnet.inference.compute.predictor import Predictor, most_likely_class
from napari_autosegnet.model import HaloFigure, Model
from small_models import small_forest

MakeModel = Callable[..., Model]


@pytest.mark.parametrize("network", ["searched", "unet", "pspnet"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_folding_batch_norm_changes_nothing(make_model: MakeModel, network: Any, seed: int) -> None:
    module = make_model(seed=seed, levels=2, network=network).network().double()
    folded = fold_batch_norm(module)
    image = torch.randn(2, 1, 32, 32, dtype=torch.double)
    with torch.inference_mode():
        torch.testing.assert_close(folded(image), module(image), rtol=1e-9, atol=1e-9)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in folded.modules())
    assert any(isinstance(part, torch.nn.BatchNorm2d) for part in module.modules())


class _Double(Predictor):
    """Computes in float64, where no rounding can pass for a halo that is too small, nor the other way round."""

    def _softmax(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._network.double()(images.double())
        return logits.softmax(1)


def tiled_and_whole(
    predictor: Predictor, image: np.ndarray, block: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (K, z, y, x) of an image (c, z, y, x), in tiles and section by section."""
    shape = image.shape[1:]
    plan = predictor.plan(shape, block)
    stacked = [image[:, list(plan.context_sections(section))] for section in range(shape[0])]
    whole = np.stack(
        [predictor.whole_section(one.transpose(1, 0, 2, 3).reshape(-1, *shape[1:])) for one in stacked], axis=1
    )
    found = np.zeros_like(whole)
    padded = pad_to_domain(image, predictor.stride)
    for one in plan:
        z, y, x = plan.surroundings(one)
        read = BlockInput(padded[:, slice(*z), slice(*y), slice(*x)], (z[0], y[0], x[0]))
        for section, tile, probabilities, computed in predictor.tiles(plan, one, read):
            assert computed == 1
            found[:, section, slice(*tile.core[0]), slice(*tile.core[1])] = probabilities.numpy()
    return found, whole


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_tiles_equal_the_whole_section_in_exact_mode(
    make_model: MakeModel,
    noise: Callable[..., np.ndarray],
    labels_agree: Callable[[np.ndarray, np.ndarray], bool],
    data: st.DataObject,
) -> None:
    levels = data.draw(st.integers(1, 2), "levels")
    context = data.draw(st.integers(0, 1), "context")
    channels = data.draw(st.sampled_from([1, 3]), "channels")
    model = make_model(
        width=3,
        seed=data.draw(st.integers(0, 10_000), "architecture"),
        levels=levels,
        image_channels=channels,
        context=context,
        classes=data.draw(st.integers(2, 4), "classes"),
        network=data.draw(st.sampled_from(["searched", "searched", "unet"]), "network"),
    )
    options: dict[str, Any] = {
        "tile": data.draw(st.integers(32, 128), "tile"),
        "halo": "exact",
        "batch_size": data.draw(st.integers(1, 3), "batch"),
        "flips": data.draw(st.booleans(), "flips"),
    }
    shape = (2, data.draw(st.integers(1, 150), "height"), data.draw(st.integers(130, 190), "width"))
    block = (data.draw(st.integers(1, 2)), data.draw(st.integers(30, 120)), data.draw(st.integers(30, 120)))
    image = noise(channels, *shape)
    sure_tiles, sure_whole = tiled_and_whole(_Double(model, **options), image, block)
    np.testing.assert_allclose(sure_tiles, sure_whole, atol=1e-9)
    tiles, whole = tiled_and_whole(Predictor(model, **options), image, block)
    # Random weights may give logits of hundreds, whose rounding shows in whole sections just as well.
    rounding = np.abs(whole - sure_whole).max()
    np.testing.assert_allclose(tiles, whole, atol=max(1e-5, 4 * rounding))
    assert rounding < 1e-3
    assert labels_agree((tiles.argmax(0) + 1).astype(np.uint8), whole)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_tiles_of_a_forest_equal_the_whole_section(noise: Callable[..., np.ndarray], data: st.DataObject) -> None:
    context, channels = data.draw(st.integers(0, 1), "context"), data.draw(st.sampled_from([1, 2]), "channels")
    predictor = Predictor(
        small_forest(context=context, image_channels=channels),
        tile=data.draw(st.integers(24, 90), "tile"),
        batch_size=data.draw(st.integers(1, 3), "batch"),
    )
    assert (predictor.halo, predictor.exact, predictor.stride) == (9, True, 1)
    shape = (2, data.draw(st.integers(1, 110), "height"), data.draw(st.integers(90, 130), "width"))
    block = (data.draw(st.integers(1, 2)), data.draw(st.integers(30, 120)), data.draw(st.integers(30, 120)))
    tiles, whole = tiled_and_whole(predictor, noise(channels, *shape), block)
    np.testing.assert_allclose(tiles, whole, atol=1e-6)
    # No accident: with less around them they differ.
    predictor.halo, predictor.tile = 4, 24
    tiles, whole = tiled_and_whole(predictor, noise(channels, 1, 100, 100), (1, 100, 100))
    assert np.abs(tiles - whole).max() > 1e-3


def test_a_forest_is_computed_by_the_program_itself() -> None:
    model = small_forest()
    assert Predictor(model).engines == ["channels_last"]
    with pytest.raises(UserError, match="leave --engine out"):
        Predictor(model, engine="onnxruntime")


def test_too_small_a_halo_is_seen(make_model: MakeModel, noise: Callable[..., np.ndarray]) -> None:
    """The equality above is no accident: without a halo there are seams."""
    model = make_model(levels=2)
    image = noise(1, 1, 128, 128)
    predictor = Predictor(model, halo=0, tile=64)
    plan = predictor.plan((1, 128, 128), (1, 128, 128))
    found = np.zeros((2, 128, 128), np.float32)
    for _, tile, probabilities, _ in predictor.tiles(plan, plan[0], BlockInput(image, (0, 0, 0))):
        found[:, slice(*tile.core[0]), slice(*tile.core[1])] = probabilities.numpy()
    assert np.abs(found - predictor.whole_section(image[:, 0])).max() > 1e-3


def test_halos_are_chosen_and_rounded(make_model: MakeModel) -> None:
    model = make_model(levels=2, halo=HaloFigure(pixels=10, agreement=0.9997))
    auto, exact, given_halo = (Predictor(model, halo=halo) for halo in ("auto", "exact", 5))
    assert (auto.halo, auto.agreement, auto.exact) == (12, 0.9997, False)
    assert exact.halo >= 20 and exact.agreement == 1.0 and exact.exact and exact.halo % 4 == 0
    assert (given_halo.halo, given_halo.agreement) == (8, None)
    assert Predictor(make_model(levels=2)).halo == exact.halo  # nothing measured: exact
    pspnet = Predictor(make_model(network="pspnet"), halo="exact")
    assert pspnet.whole_sections and pspnet.plan((1, 999, 999), (1, 999, 999)).window == (1000, 1000)


def test_a_window_of_one_value_is_computed_once_and_exactly(
    make_model: MakeModel, noise: Callable[..., np.ndarray]
) -> None:
    model = make_model(levels=1, image_channels=2)
    predictor = Predictor(model, halo="exact", tile=96)
    image = noise(2, 3, 200, 300)
    image[0, :, :, :190] = 7
    image[1, :, :, :190] = 9
    plan = predictor.plan((3, 200, 300), (1, 200, 300))
    found = np.zeros((2, 3, 200, 300), np.float32)
    tiles = computed = 0
    for block in plan:
        z, _, _ = plan.surroundings(block)
        read = BlockInput(pad_to_domain(image[:, slice(*z)], 2), (z[0], 0, 0))
        for section, tile, probabilities, fresh in predictor.tiles(plan, block, read):
            tiles, computed = tiles + 1, computed + fresh
            found[:, section, slice(*tile.core[0]), slice(*tile.core[1])] = probabilities.numpy()
    whole = np.stack([predictor.whole_section(image[:, section]) for section in range(3)], axis=1)
    np.testing.assert_allclose(found, whole, atol=1e-5)
    assert computed < tiles * 0.8


class _Limited(Predictor):
    """A device with room for so many pixels per pass."""

    room = 0
    passes: list[tuple[int, ...]]

    def probabilities_of(self, pixels: torch.Tensor) -> torch.Tensor:
        if pixels.shape[0] * pixels.shape[-1] * pixels.shape[-2] > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        self.passes.append(tuple(pixels.shape))
        return super().probabilities_of(pixels)


def test_out_of_memory_makes_batches_then_tiles_smaller(
    make_model: MakeModel, noise: Callable[..., np.ndarray]
) -> None:
    told: list[str] = []

    def report(event: Event) -> None:
        told.append(event.text)

    image = noise(1, 2, 256, 256)
    predictor = _Limited(
        make_model(levels=1),
        halo=16,
        tile=256,
        batch_size=2,
        report=report,
    )
    predictor.room, predictor.passes = 150 * 150, []
    plan = predictor.plan((2, 256, 256), (2, 256, 256))
    result = predictor.block(plan, plan[0], BlockInput(image, (0, 0, 0)))
    assert result is not None and (result.labels > 0).all()
    assert len(told) == 2 and "1 tiles per pass" in told[0] and "tiles of 128 pixels" in told[1]
    assert {shape[0] for shape in predictor.passes} == {1}


def test_out_of_memory_without_a_way_out_is_one_line(make_model: MakeModel, noise: Callable[..., np.ndarray]) -> None:
    predictor = _Limited(make_model(levels=1), halo=16, tile=128)
    predictor.room, predictor.passes = 10, []
    plan = predictor.plan((1, 128, 128), (1, 128, 128))
    with pytest.raises(UserError, match=r"tile of \d+ x \d+ pixels does not fit in the free memory of cpu; end other"):
        predictor.block(plan, plan[0], BlockInput(noise(1, 1, 128, 128), (0, 0, 0)))


def test_other_errors_are_not_swallowed(make_model: MakeModel, noise: Callable[..., np.ndarray]) -> None:
    predictor = Predictor(make_model(levels=1), halo=0, tile=64)
    plan = BlockPlan((1, 65, 65), (1, 65, 65), stride=1, halo=0, tile=65)
    with pytest.raises(ValueError, match="multiples of 2"):
        predictor.block(plan, plan[0], BlockInput(noise(1, 1, 65, 65), (0, 0, 0)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64, np.uint32])
def test_pixel_types_give_one_result(model: Model, noise: Callable[..., np.ndarray], dtype: Any) -> None:
    image = noise(1, 48, 48)
    predictor = Predictor(model)
    np.testing.assert_allclose(predictor.whole_section(image.astype(dtype)), predictor.whole_section(image), atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_likeliest_class_is_the_first_of_the_largest(classes: int) -> None:
    shares = torch.randint(0, 4, (classes, 40, 50)) / 4
    np.testing.assert_array_equal(most_likely_class(shares).numpy(), shares.numpy().argmax(0) + 1)


def test_a_whole_section_is_what_the_network_gives(model: Model, noise: Callable[..., np.ndarray]) -> None:
    image = noise(1, 32, 48)
    with torch.inference_mode():
        logits = model.network()(torch.from_numpy(model.normalization.apply(image))[None])
    np.testing.assert_allclose(Predictor(model).whole_section(image), logits.softmax(1)[0].numpy(), atol=1e-5)


def test_mirror_images_are_averaged(model: Model, noise: Callable[..., np.ndarray]) -> None:
    image = noise(1, 32, 48)
    predictor = Predictor(model, flips=True)
    np.testing.assert_allclose(
        predictor.whole_section(image[:, :, ::-1]), predictor.whole_section(image)[:, :, ::-1], atol=1e-6
    )


@pytest.mark.gpu
def test_exact_mode_on_cuda_equals_the_cpu(make_model: MakeModel, noise: Callable[..., np.ndarray]) -> None:
    model = make_model(levels=2)
    image = noise(1, 256, 256)
    found = Predictor(model, "cuda", halo="exact").whole_section(image)
    np.testing.assert_allclose(found, Predictor(model, halo="exact").whole_section(image), atol=1e-5)
