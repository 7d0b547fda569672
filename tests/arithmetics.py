"""Every arithmetic that a prediction may be computed in, also where nothing here is fast in it: then it is emulated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from napari_autosegnet.inference import job
from napari_autosegnet.inference.output.ledger import Ledger, ledger_path
from napari_autosegnet.model import Model
from napari_autosegnet.settings import PredictSettings

HALF = ("bfloat16", "float16")


def bearing_all(model: Model) -> Model:
    """The model as one whose labels bear every precision."""
    return model.with_(half_precision=dict.fromkeys(HALF, 1.0))


def settings_for(settings: PredictSettings, arithmetic: str) -> PredictSettings:
    """Settings with which `arithmetic` is what a machine as in `fast_in` computes in."""
    if arithmetic != "onnxruntime":
        return settings.changed(engine="auto") if arithmetic in HALF else settings
    pytest.importorskip("onnxruntime", reason="the extra export is not installed")
    return settings.changed(engine="onnxruntime")


@contextmanager
def fast_in(arithmetic: str) -> Iterator[None]:
    """This process as on a machine that is fast in a half precision; nothing is measured."""
    with pytest.MonkeyPatch.context() as patch:
        if arithmetic in HALF:
            units = {"amx_fp16": True, "amx_bf16": True}
            patch.setattr(torch.cpu, "get_capabilities", lambda: units, raising=False)
            patch.setattr(job, "WORTH_MEASURING", 0)
            patch.setattr(job, "fastest_precision", lambda *_, **__: arithmetic)
            patch.setattr(job, "fastest_engine", lambda *_, **__: "channels_last")
        yield


def used(out: Path) -> Any:
    """What a result was computed in."""
    settings = Ledger.settings_of(ledger_path(out))
    return "onnxruntime" if settings["engine"] == "onnxruntime" else settings["precision"]
