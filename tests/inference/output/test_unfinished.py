"""Results that were stopped, or are being written, as others read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_autosegnet import api
from napari_autosegnet.cli.app import run
from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.output.ledger import ledger_path
from napari_autosegnet.inference.output.unfinished import unfinished
from napari_autosegnet.settings import PredictSettings
from small_models import small_model


@pytest.fixture
def image(tmp_path: Path) -> Path:
    small_model().save(tmp_path / "model")
    np.save(tmp_path / "image.npy", np.random.default_rng(0).integers(0, 255, (4, 64, 64), np.uint8))
    return tmp_path / "image.npy"


def predict(image: Path, out: Path, *, forgotten: int = 0, **settings: object) -> None:
    """Predict; what a run leaves that is killed before its last blocks."""
    wanted = PredictSettings.model_validate({"block": (1, 64, 64), **settings})
    api.predict(image.with_name("model"), image, out, settings=wanted, device="cpu")
    ledger = ledger_path(out)
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[: len(lines) - forgotten]))


@pytest.mark.parametrize("name", ["out.zarr", "out.tif"])
def test_half_a_result_is_not_taken_for_a_whole_one(
    name: str, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / name
    predict(image, tmp_path / "whole.tif")
    predict(image, out, forgotten=2)
    ledger = ledger_path(out)
    with ledger.open("ab") as handle:
        handle.write(b"{")  # as if another process were writing a line
    content = ledger.read_bytes()
    told = unfinished(out)
    assert told == f"{out} is not finished: 2 of 4 blocks are done, and the rest is 0"
    with pytest.raises(UserError, match="2 of 4 blocks are done, and the rest is 0; finish it with the command"):
        api.evaluate(prediction=out, labels=tmp_path / "whole.tif")
    assert api.evaluate(prediction=out, labels=tmp_path / "whole.tif", sections="0").accuracy == 1
    assert run(["convert", "--labels", str(out), "--out", str(tmp_path / "half.h5")]) == 0
    assert f"note: {told}" in capsys.readouterr().err
    with pytest.raises(UserError, match="2 of 4 blocks are done, and the rest is 0; finish it before"):
        api.predict(image.with_name("model"), image, tmp_path / "masked.zarr", mask=out, device="cpu")
    assert not (tmp_path / "masked.zarr").exists()
    assert ledger.read_bytes() == content
    predict(image, out)
    assert unfinished(out) is None
    assert api.evaluate(prediction=out, labels=tmp_path / "whole.tif").accuracy == 1


def test_parts_of_a_result_and_what_is_none(image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    predict(image, out, forgotten=3, probabilities=True)
    for part in ("labels/segmentation", "labels/segmentation/0", "probabilities"):
        assert unfinished(out / part) == unfinished(out) is not None
    assert unfinished(image) is None and unfinished(tmp_path / "absent.zarr") is None
    predict(image, out, probabilities=True, overwrite=True, region="1:3,0:64,0:64")
    assert unfinished(out / "labels" / "segmentation") is None
