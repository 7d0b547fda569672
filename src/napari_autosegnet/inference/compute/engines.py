"""What computes a folded network: PyTorch in one of two memory layouts, or ONNX Runtime on the CPU.

Which is fastest depends on the network and the machine (ONNX Runtime took 0.55 to 0.85 times as long as PyTorch
for searched networks on an AVX-512 CPU, and as long for a U-Net), so a long run measures it first
(`napari_autosegnet.inference.compute.fastest`).
"""

from __future__ import annotations

import copy
import importlib.util
import io
import time
import warnings
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from napari_autosegnet.errors import UserError

EngineName = Literal["channels_last", "contiguous", "onnxruntime"]


class Engine(Protocol):
    """Computes logits (n, K, y, x) of images (n, c, y, x)."""

    name: EngineName

    def __call__(self, images: Tensor) -> Tensor: ...


class TorchEngine:
    """PyTorch with weights and images in one memory layout."""

    def __init__(self, network: nn.Module, device: torch.device, name: Literal["channels_last", "contiguous"]) -> None:
        self.name: EngineName = name
        self._format = torch.channels_last if name == "channels_last" else torch.contiguous_format
        self._network = copy.deepcopy(network).to(device)
        self._network.to(memory_format=self._format)  # type: ignore[call-overload]

    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = self._network(images.contiguous(memory_format=self._format))
        return logits


class OnnxEngine:
    """ONNX Runtime on the CPU; one session per window shape, because graphs of fixed shapes run fastest.

    A session keeps its buffers, so there are no more than the windows of three planes need.
    """

    name: EngineName = "onnxruntime"

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._sessions: dict[tuple[int, ...], Any] = {}

    def __call__(self, images: Tensor) -> Tensor:
        shape = tuple(images.shape)
        if shape not in self._sessions:
            if len(self._sessions) == 3:
                self._sessions.clear()
            self._sessions[shape] = self._session(shape)
        session = self._sessions[shape]
        try:
            outputs = session.run(None, {"images": images.contiguous().numpy()})
        except Exception as error:  # ONNX Runtime's errors have no ancestor of their own
            if "alloc" in str(error).lower():
                raise torch.OutOfMemoryError(f"out of memory: {error}") from error
            raise
        return torch.from_numpy(outputs[0])

    def _session(self, shape: tuple[int, ...]) -> Any:
        file = io.BytesIO()
        with warnings.catch_warnings(), torch.inference_mode(False):
            warnings.simplefilter("ignore")  # the older exporter needs no onnxscript, and no time
            torch.onnx.export(
                self._network,
                (torch.zeros(shape),),
                file,  # type: ignore[arg-type] # the older exporter takes open files
                input_names=["images"],
                output_names=["logits"],
                opset_version=17,
                dynamo=False,
            )
        return onnx_session(file.getvalue())


def onnx_session(content: bytes) -> Any:
    """ONNX Runtime's session of a file, on the CPU, with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def make_engine(name: EngineName, network: nn.Module, device: torch.device) -> Engine:
    """Engine for a folded network in evaluation mode.

    Raises
    ------
    UserError
        When ONNX Runtime is asked for where it cannot compute.
    """
    if name == "onnxruntime":
        if name not in available_engines(device):
            raise UserError(
                "ONNX Runtime computes on the CPU, where it is installed: pip install 'napari-autosegnet[export]', "
                "or leave --engine out"
            )
        return OnnxEngine(network)
    return TorchEngine(network, device, name)


def usual_engine(device: torch.device) -> EngineName:
    """The engine of runs too short to measure. channels_last was never slower on the CPU and on CUDA."""
    return "contiguous" if device.type == "mps" else "channels_last"


def available_engines(device: torch.device) -> list[EngineName]:
    """What can compute a network on a device here."""
    if device.type == "mps":
        return ["contiguous"]
    engines: list[EngineName] = ["channels_last", "contiguous"]
    # PyTorch writes the graph with onnx, ONNX Runtime computes it.
    if device.type == "cpu" and all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime")):
        engines.append("onnxruntime")
    return engines


def seconds_taken(engine: Engine, images: Tensor) -> float:
    """How long one pass takes, until its result is there."""
    began = time.perf_counter()
    engine(images)
    if images.device.type == "cuda":
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - began
