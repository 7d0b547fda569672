"""What int8 in ONNX Runtime would bring: processor time of one thread, and labels that stay those of float32.

Example::

    taskset -c 1 python benchmarks/precision.py --model RUN/model --calibrate a.png --check b.png
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from napari_autosegnet.data.images import open_image
from napari_autosegnet.inference.compute.engines import make_engine
from napari_autosegnet.inference.compute.folding import fold_batch_norm
from napari_autosegnet.model import Model

SIDE = 512
PASSES = 7

Pixels = npt.NDArray[np.float32]


class Calibration(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Images, one after the other."""

    def __init__(self, images: list[Pixels]) -> None:
        self._left: Iterator[Pixels] = iter(images)

    def get_next(self) -> dict[str, Pixels] | None:
        image = next(self._left, None)
        return None if image is None else {"images": image}


def corner(model: Model, path: Path) -> Pixels:
    """Normalized pixels (1, c, y, x) of an image's corner."""
    pixels = open_image(path).section(0)[:, :SIDE, :SIDE].astype(np.float32)
    mean, std = (
        np.array(each, np.float32)[:, None, None] for each in (model.normalization.mean, model.normalization.std)
    )
    return np.ascontiguousarray((pixels - mean) / std)[np.newaxis]


def session(file: Path) -> Callable[[Pixels], Pixels]:
    """Logits of images, by one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    opened = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda images: opened.run(None, {"images": images})[0]  # type: ignore[no-any-return]


def contenders(model: Model, seen: Pixels, folder: Path) -> dict[str, Callable[[Pixels], Pixels]]:
    """Logits of images, in all the ways that are compared; the first is the reference."""
    network = fold_batch_norm(model.network()).requires_grad_(False)
    engine = make_engine("channels_last", network, torch.device("cpu"))
    with warnings.catch_warnings(), torch.inference_mode(False):
        warnings.simplefilter("ignore")
        names = {"input_names": ["images"], "output_names": ["logits"]}
        torch.onnx.export(network, (torch.from_numpy(seen),), folder / "full", opset_version=17, dynamo=False, **names)
    ways: dict[str, Callable[[Pixels], Pixels]] = {
        "PyTorch": lambda images: engine(torch.from_numpy(images)).numpy(),
        "ONNX Runtime": session(folder / "full"),
    }
    quant_pre_process(folder / "full", folder / "shaped")
    signed, unsigned = quantization.QuantType.QInt8, quantization.QuantType.QUInt8
    for name, values, weights, fewer in (
        ("int8, U8S8 of 7 bits", unsigned, signed, True),  # AVX2 saturates with 8
        ("int8, U8U8", unsigned, unsigned, False),
        ("int8, S8S8", signed, signed, False),
    ):
        quantization.quantize_static(
            folder / "shaped",
            folder / name,
            Calibration([seen, seen[..., ::-1], seen.swapaxes(2, 3)]),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=fewer,
            activation_type=values,
            weight_type=weights,
        )
        ways[name] = session(folder / name)
    return ways


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "calibrate", "check"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = Model.load(given.model)
    image = corner(model, given.check)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        ways = contenders(model, corner(model, given.calibrate), Path(folder))
        labels = {name: way(image).argmax(1) for name, way in ways.items()}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(PASSES):
            for name, way in ways.items():
                began = time.process_time()
                way(image)
                seconds[name].append(time.process_time() - began)
    print("| | ms | labels |\n|---|---|---|")
    for name, found in labels.items():
        same = (found == labels["PyTorch"]).mean()
        print(f"| {name} | {1e3 * statistics.median(seconds[name]):.0f} | {100 * same:.3f} % |")
    for precision, agreement in model.half_precision.items():
        print(f"| {precision} | - | {100 * agreement:.3f} % |")


if __name__ == "__main__":
    main()
