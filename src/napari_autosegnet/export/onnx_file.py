"""A model as one ONNX file that takes gray values as they are, in images of any size.

Normalization, softmax and the padding to the network's stride lie in the file, so whoever runs it has
nothing to prepare::

    image          float32 (batch, channels, y, x)   raw gray values
    probabilities  float32 (batch, classes, y, x)    0..1, in the order of the model's classes

A model that normalizes each section by its own mean and deviation takes those of the image that it is given: give it
whole sections, or normalize them before and give tiles to a file that was written without normalization.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from napari_autosegnet.data.gray_values import section_gray
from napari_autosegnet.data.normalization import LIMIT
from napari_autosegnet.errors import UserError
from napari_autosegnet.files import refuse_foreign, refuse_unwritable, replacing
from napari_autosegnet.inference.compute.engines import onnx_session
from napari_autosegnet.inference.compute.folding import fold_batch_norm
from napari_autosegnet.inference.output.ledger import program_version
from napari_autosegnet.model import Model

if TYPE_CHECKING:
    import onnx

INPUT, OUTPUT = "image", "probabilities"
#: A file that differs more from the model, in probability, is wrong; rounding alone makes about 1e-6.
TOLERANCE = 1e-3
#: protobuf, which ONNX files are written in, holds no more than 2 GiB.
MAX_WEIGHTS = 2**31 - 2**24
#: Who made a file, in the field that ONNX has for it.
_PRODUCER = "napari-autosegnet"
_EXTRA = ("onnx", "onnxruntime", "onnxscript")


def write_onnx(model: Model, path: Path) -> float:
    """Write a model as an ONNX file and run it once against the model itself.

    Parameters
    ----------
    model : Model
        A trained model.
    path : Path
        ``NAME.onnx``; an earlier export is replaced.

    Returns
    -------
    float
        Largest difference in probability between the file, run by onnxruntime, and the model.

    Raises
    ------
    UserError
        When the ``export`` extra is not installed, the file cannot be written, or the file does not
        give what the model gives.
    """
    if path.suffix.lower() != ".onnx":
        raise UserError(f"'{path.name}' is not a name for an ONNX file; call it NAME.onnx")
    need_extra(*_EXTRA)
    refuse_foreign(path, _was_written_here)
    refuse_unwritable(path)
    content = onnx_model(model).SerializeToString()
    difference = largest_difference(model, content)
    if difference > TOLERANCE:
        raise UserError(
            f"the ONNX file differs from the model by {difference:.1e} in probability; "
            "install other versions of torch and onnxruntime and export again"
        )
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return difference


def _was_written_here(content: bytes) -> bool:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return bool(onnx.load_model_from_string(content).producer_name == _PRODUCER)
    except DecodeError:
        return False


def need_extra(*packages: str) -> None:
    """Refuse to continue without the packages that an export needs.

    Raises
    ------
    UserError
        Names what is missing and the extra that brings it.
    """
    missing = [package for package in packages if importlib.util.find_spec(package.split(".")[0]) is None]
    if missing:
        raise UserError(
            f"the export needs {', '.join(missing)}; install the extra: pip install 'napari-autosegnet[export]'"
        )


def onnx_model(model: Model, *, normalizes: bool = True) -> onnx.ModelProto:
    """The model as an ONNX graph with dynamic batch and image size.

    Without ``normalizes`` it takes images that are normalized already.
    """
    need_extra(*_EXTRA)
    import onnx

    if model.specification.network == "forest":
        raise UserError("a forest cannot be written as ONNX; apply it with predict, or train a network to export")
    size = sum(weight.numel() * weight.element_size() for weight in model.weights.values())
    if size > MAX_WEIGHTS:
        raise UserError(f"the network's {size / 2**30:.1f} GiB of weights do not fit into an ONNX file (2 GiB)")
    per_section = model.normalization.kind == "section"
    network = _Deployed(model, normalizes=normalizes and not per_section).eval()
    stride = network.stride
    example = torch.zeros(2, model.in_channels, 4 * stride, 6 * stride)
    sizes = {
        0: torch.export.Dim("batch"),
        2: stride * torch.export.Dim("rows"),
        3: stride * torch.export.Dim("columns"),
    }
    with _quietly():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            dynamic_shapes=(sizes,),
            input_names=[f"padded_{INPUT}"],
            output_names=[f"padded_{OUTPUT}"],
            verbose=False,
        )
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    _pad_and_crop(proto, stride)
    if normalizes and per_section:
        _normalize_by_own_constants(
            proto, _tiled(model, model.normalization.least_std or (0.0,) * model.image_channels)
        )
    description = model.description
    for key, value in {
        "program": f"napari-autosegnet {description.packages.get('napari-autosegnet', '')}".strip(),
        "classes": json.dumps([{"name": each.name, "color": each.color} for each in model.classes]),
        "normalization": ("included: " if normalizes else "not included: ")
        + description.normalization.model_dump_json(exclude={"seen"}),
        "context": str(model.context),
        "stride": str(stride),
        "halo": "" if model.halo is None else str(model.halo.pixels),
        "fingerprint": model.fingerprint,
    }.items():
        proto.metadata_props.add(key=key, value=value)
    proto.producer_name, proto.producer_version = _PRODUCER, program_version()
    proto.graph.doc_string = __doc__ or ""
    onnx.checker.check_model(proto, full_check=True)
    return proto


def largest_difference(model: Model, content: bytes, *, normalizes: bool = True) -> float:
    """Largest difference in probability between an ONNX file and the model, over several sizes."""
    from napari_autosegnet.inference.compute.predictor import Predictor

    run = onnx_runner(content)
    predictor = Predictor(model, "cpu", halo="exact")
    generator = np.random.default_rng(0)
    largest = 0.0
    for height, width in ((predictor.stride, 3 * predictor.stride), (2 * predictor.stride + 1, 64), (96, 37)):
        pixels = noise(model, generator, height, width)
        expected = predictor.whole_section(pixels)
        given = pixels if normalizes else normalized_section(model, pixels)
        largest = max(largest, float(np.abs(run(given[np.newaxis])[0] - expected).max()))
    return largest


def normalized_section(model: Model, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A whole section (c, y, x), context sections among its channels, as the network sees it."""
    sections = pixels.reshape(-1, model.image_channels, *pixels.shape[1:])
    return np.concatenate([model.normalization.apply(section, section_gray(section)) for section in sections])


def noise(model: Model, generator: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
    """Gray values (c, y, x) of about the mean and deviation that the model was trained on, smooth and grained."""
    shape = (model.in_channels, -(-height // 8) * 8, -(-width // 8) * 8)
    coarse = generator.standard_normal((shape[0], shape[1] // 8, shape[2] // 8))
    values = 0.8 * coarse.repeat(8, 1).repeat(8, 2) + 0.4 * generator.standard_normal(shape)
    mean, std = (_tiled(model, each).numpy() for each in (model.normalization.mean, model.normalization.std))
    noise: npt.NDArray[np.float32] = (mean[0] + std[0] * values)[:, :height, :width].astype(np.float32)
    return noise


def onnx_runner(content: bytes) -> Any:
    """Function from images (n, c, y, x) to probabilities (n, K, y, x), computed by onnxruntime on the CPU."""
    need_extra("onnxruntime")
    session = onnx_session(content)
    return lambda images: session.run([OUTPUT], {INPUT: np.asarray(images, np.float32)})[0]


class _Deployed(nn.Module):
    """Raw gray values (n, c, y, x) to probabilities (n, K, y, x); y and x are multiples of the stride."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Model, *, normalizes: bool) -> None:
        super().__init__()
        network = model.network()
        self.stride = int(network.stride)  # type: ignore[arg-type]
        self.network = _with_exportable_pooling(fold_batch_norm(network)).requires_grad_(False)
        self.normalizes = normalizes
        self.register_buffer("mean", _tiled(model, model.normalization.mean))
        self.register_buffer("std", _tiled(model, model.normalization.std))

    def forward(self, image: Tensor) -> Tensor:
        seen = (image - self.mean) / self.std if self.normalizes else image
        logits: Tensor = self.network(seen.clamp(-LIMIT, LIMIT))
        return logits.softmax(1)


class _AdaptiveMean(nn.Module):
    """Adaptive average pooling to ``bins`` per side, as two matrix products: ONNX has it for fixed sizes only."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, x: Tensor) -> Tensor:
        return self._fractions(x.shape[-2]) @ x @ self._fractions(x.shape[-1]).T

    def _fractions(self, cells: int) -> Tensor:
        """(bins, cells): the fraction that each cell has in each bin's mean."""
        bins = torch.arange(self.bins)[:, None]
        first, end = bins * cells // self.bins, ((bins + 1) * cells + self.bins - 1) // self.bins
        place = torch.arange(cells)[None]
        inside = ((place >= first) & (place < end)).to(torch.float32)
        return inside / inside.sum(1, keepdim=True)


def _with_exportable_pooling(network: nn.Module) -> nn.Module:
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.AdaptiveAvgPool2d):
                bins = child.output_size
                assert isinstance(bins, int)
                setattr(parent, name, _AdaptiveMean(bins))
    return network


def _tiled(model: Model, values: tuple[float, ...]) -> Tensor:
    """One value per channel of the network's input, (1, c, 1, 1); context sections repeat the image's channels."""
    return torch.tensor(values, dtype=torch.float32).repeat(2 * model.context + 1).view(1, -1, 1, 1)


def _pad_and_crop(proto: onnx.ModelProto, stride: int) -> None:
    """Let the graph take any size: repeat the last row and column up to the stride, and cut the result."""
    from onnx import TensorProto, helper, numpy_helper

    graph = proto.graph
    channels = graph.input[0].type.tensor_type.shape.dim[1].dim_value
    classes = graph.output[0].type.tensor_type.shape.dim[1].dim_value

    def constant(name: str, *values: int) -> str:
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), f"any_size_{name}"))
        return f"any_size_{name}"

    step = constant("stride", stride)
    before = [
        helper.make_node("Shape", [INPUT], ["any_size_shape"], start=2, end=4),
        helper.make_node("Mod", ["any_size_shape", step], ["any_size_rest"]),
        helper.make_node("Sub", [step, "any_size_rest"], ["any_size_step_less_rest"]),
        helper.make_node("Mod", ["any_size_step_less_rest", step], ["any_size_missing"]),
        helper.make_node("Concat", [constant("zeros", *[0] * 6), "any_size_missing"], ["any_size_pads"], axis=0),
        helper.make_node("Pad", [INPUT, "any_size_pads"], [graph.input[0].name], mode="edge"),
    ]
    after = helper.make_node(
        "Slice",
        [graph.output[0].name, constant("starts", 0, 0), "any_size_shape", constant("axes", 2, 3)],
        [OUTPUT],
    )
    nodes = [*before, *graph.node, after]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", channels, "y", "x"]))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", classes, "y", "x"]))


def _normalize_by_own_constants(proto: onnx.ModelProto, least: Tensor) -> None:
    """Let the graph begin with taking away each channel's mean, and dividing by its deviation."""
    from onnx import helper, numpy_helper

    graph = proto.graph
    initial = {
        "axes": np.array([2, 3], np.int64),
        "least": least.numpy(),
        "one": np.array(1.0, np.float32),
        "rounding": np.array(1e-6, np.float32),
    }
    graph.initializer.extend(numpy_helper.from_array(value, f"own_{name}") for name, value in initial.items())

    def node(kind: str, *inputs: str, output: str) -> onnx.NodeProto:
        return helper.make_node(kind, [INPUT if each == INPUT else f"own_{each}" for each in inputs], [f"own_{output}"])

    nodes = [
        node("ReduceMean", INPUT, "axes", output="mean"),
        node("Sub", INPUT, "mean", output="centered"),
        node("Mul", "centered", "centered", output="squares"),
        node("ReduceMean", "squares", "axes", output="variance"),
        node("Sqrt", "variance", output="plain_std"),
        node("Max", "plain_std", "least", output="std"),
        # A channel of one value becomes zero.
        node("Abs", "mean", output="size"),
        node("Mul", "size", "rounding", output="smallest"),
        node("LessOrEqual", "std", "smallest", output="is_flat"),
        node("Where", "is_flat", "one", "std", output="divisor"),
        node("Div", "centered", "divisor", output="normalized"),
    ]
    for each in graph.node:
        # Its shape is the image's either way; its pixels are the normalized ones.
        if each.op_type == "Pad" and each.input[0] == INPUT:
            each.input[0] = "own_normalized"
    given = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *given])


@contextmanager
def _quietly() -> Iterator[None]:
    """Torch's exporter warns of its own parts and of torchvision; neither is the user's business."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
