"""A prepared image, and predictions of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from arithmetics import HALF, bearing_all, fast_in, settings_for, used
from napari_autosegnet.inference.distributed.dispatcher import Dispatcher
from napari_autosegnet.inference.job import VolumeRequest
from napari_autosegnet.model import Model
from volume_requests import SETTINGS, alone

Noise = Callable[..., np.ndarray]
MakeModel = Callable[..., Model]
Tree = Callable[[Path], dict[str, bytes]]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, make_model: MakeModel, noise: Noise) -> Path:
    """A model, a Zarr array of noise in chunks as large as the blocks, and what one process makes of them."""
    folder = tmp_path_factory.mktemp("cluster")
    bearing_all(make_model()).save(folder / "model")
    zarr.create_array(folder / "image.zarr", data=noise(4, 68, 100), chunks=(2, 32, 48))
    alone(VolumeRequest(folder / "model", folder / "image.zarr", folder / "one.zarr", SETTINGS))
    return folder


@pytest.fixture
def one(prepared: Path, tree: Tree) -> dict[str, bytes]:
    """The files that one process writes."""
    return tree(prepared / "one.zarr")


@pytest.fixture
def request_for(prepared: Path, tmp_path: Path) -> Callable[..., VolumeRequest]:
    """A prediction of the prepared image by paths; changes are to its settings."""

    def make(out: str, image: Path = prepared / "image.zarr", **changes: Any) -> VolumeRequest:
        return VolumeRequest(prepared / "model", image, tmp_path / out, SETTINGS.model_copy(update=changes))

    return make


@pytest.fixture
def in_arithmetic(
    request_for: Callable[..., VolumeRequest],
    one: dict[str, bytes],
    tree: Tree,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[str], tuple[dict[str, Any], dict[str, bytes]]]]:
    """Has this process and its workers compute in an arithmetic; gives the settings, and what one process writes."""
    with ExitStack() as stack:

        def begin(arithmetic: str) -> tuple[dict[str, Any], dict[str, bytes]]:
            if arithmetic == "float32":
                return {}, one
            stack.enter_context(fast_in(arithmetic))
            if arithmetic in HALF:
                # Of CPUs elsewhere nobody knows whether they gain by it; GPUs do.
                monkeypatch.setattr(
                    Dispatcher, "describe", lambda *_: [{"device": "cuda", "precisions": (arithmetic,)}] * 2
                )
            changes = {"engine": settings_for(SETTINGS, arithmetic).engine}
            alone(request_for("alone.zarr", **changes))
            assert used(tmp_path / "alone.zarr") == arithmetic
            return changes, tree(tmp_path / "alone.zarr")

        yield begin
