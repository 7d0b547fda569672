"""A model as a package of the bioimage.io model zoo, which other programs read (deepImageJ, ilastik, biapy, ...).

The zip holds the network as ONNX, the description that the zoo asks for, an image with its result to test against,
a cover, a page of documentation and, as attachments, the model folder's own two files: so ``predict --model`` takes
it, too.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tempfile
import unicodedata
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.stack import ImageStack
from napari_autosegnet.errors import UserError
from napari_autosegnet.export.onnx_file import INPUT, OUTPUT, largest_difference, need_extra, noise, onnx_model
from napari_autosegnet.export.onnx_file import TOLERANCE as WRONG
from napari_autosegnet.files import refuse_foreign, refuse_unwritable, replacing
from napari_autosegnet.inference.blocks import round_up
from napari_autosegnet.inference.compute.block_pixels import pad_to_domain
from napari_autosegnet.inference.compute.predictor import Predictor
from napari_autosegnet.model import DESCRIPTION_FILE, WEIGHTS_FILE, Model
from napari_autosegnet.plain_text import counted
from napari_autosegnet.quality import Quality

PAPER = "Xu, Zuo, Lam, Lee and Chen: AutoSegNet: An Automated Neural Network for Image Segmentation. IEEE Access, 2020."
PAPER_PLACE = "https://ieeeaccess.ieee.org/"
#: Smallest side of the test image, unless the halo asks for more.
TEST_SIDE = 128
#: Name of the network in a package.
WEIGHTS = "weights.onnx"
#: Letters of a name, as the zoo wants it.
SHORTEST_NAME, LONGEST_NAME = 5, 120
_UNITS = {"nanometer", "micrometer", "millimeter", "centimeter", "angstrom", "picometer", "meter"}


@dataclass(frozen=True)
class About:
    """What the model zoo wants to know and no model can say of itself.

    Attributes
    ----------
    name : str
        Name of the model; made from its classes when empty.
    description : str
        One or two sentences.
    authors : tuple of str
        Who made it; ``NAME`` or ``NAME (AFFILIATION)``.
    license : str
        SPDX identifier, for example ``CC-BY-4.0``.
    """

    name: str = ""
    description: str = ""
    authors: tuple[str, ...] = ()
    license: str = ""


def write_bioimageio(model: Model, path: Path, *, about: About | None = None, image: ImageStack | None = None) -> float:
    """Write a model as a bioimage.io package.

    Parameters
    ----------
    model : Model
        A trained model.
    path : Path
        ``NAME.zip``; an earlier export is replaced.
    about : About, optional
        Name, description, authors and license.
    image : ImageStack, optional
        Where the test image and the cover are cut from, for example an image like those it was trained on. Without
        it they are made of noise. The cut is shared with the package.

    Returns
    -------
    float
        Largest difference in probability between the ONNX file in it and the model.

    Raises
    ------
    UserError
        When the ``export`` extra is not installed, the image does not fit the model, a word of ``about`` is not
        one that the zoo knows, or the file cannot be written.
    """
    if path.suffix.lower() != ".zip":
        raise UserError(f"'{path.name}' is not a name for a bioimage.io package; call it NAME.zip")
    refuse_foreign(path, _was_written_here)
    refuse_unwritable(path)
    need_extra("onnx", "onnxruntime", "onnxscript", "bioimageio.core")
    about = about or About()
    # Before the work that takes long.
    _check_license(about.license)
    for author in about.authors:
        _author(author)
    name = zoo_name(model, about, path)
    # Programs cut images into tiles after they have prepared them, so what needs the whole image is done before.
    inside = model.normalization.kind == "global"
    proto = onnx_model(model, normalizes=inside)
    content = proto.SerializeToString()
    difference = largest_difference(model, content, normalizes=inside)
    if difference > WRONG:
        raise UserError(f"the ONNX file differs from the model by {difference:.1e}; install other versions of torch")
    with tempfile.TemporaryDirectory() as folder, _quiet_validation():
        parts = Path(folder)
        try:
            (parts / WEIGHTS).write_bytes(content)
            model.save(parts)
            description = _description(model, parts, name, about, image, opset=proto.opset_import[0].version)
        except OSError as error:
            raise UserError(
                f"cannot write temporary files in {parts.parent}: {error.strerror or error}; free some space there, or "
                "set TMPDIR to another folder"
            ) from error
        from bioimageio.spec import save_bioimageio_package

        with replacing(path) as temporary:
            save_bioimageio_package(description, output_path=temporary)
    return difference


def _was_written_here(content: bytes) -> bool:
    """Whether a zip holds what only packages of this program hold together: ONNX weights and a model of ours."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return {WEIGHTS, WEIGHTS_FILE, DESCRIPTION_FILE} <= set(archive.namelist())
    except zipfile.BadZipFile:
        return False


def _description(model: Model, parts: Path, name: str, about: About, image: ImageStack | None, *, opset: int) -> Any:
    """The zoo's description of the model, whose files it puts beside the weights in ``parts``."""
    from bioimageio.spec.model import v0_5
    from pydantic import ValidationError

    predictor = Predictor(model, "cpu", halo="auto")
    stride = predictor.stride
    # A network that pools over the whole image has no halo that would do; it is applied to whole images.
    halo = 0 if predictor.exact_halo is None else predictor.halo
    smallest = 2 * halo + stride
    side = smallest + round_up(max(0, TEST_SIDE - smallest), stride)
    tested = sample_of(model, image, side, stride)
    probabilities = _padded_result(predictor, tested)
    np.save(parts / "test-image.npy", tested[np.newaxis])
    np.save(parts / "test-probabilities.npy", probabilities[np.newaxis])
    middle = model.context * model.image_channels
    _write_cover(parts / "cover.png", tested[middle], probabilities.argmax(0), [each.color for each in model.classes])
    title = about.name or "AutoSegNet " + " ".join(each.name for each in model.classes)
    text = (
        about.description or f"Segments {', '.join(each.name for each in model.classes)}; made with napari-autosegnet"
    )
    (parts / "README.md").write_text(_documentation(model, title, text, halo, stride), encoding="utf-8")

    def file(part: str) -> Any:
        return v0_5.FileDescr(source=parts / part, sha256=_sha256(parts / part))

    if image is not None:
        import tifffile

        tifffile.imwrite(parts / "sample-image.tif", tested[np.newaxis])
        tifffile.imwrite(parts / "sample-probabilities.tif", probabilities[np.newaxis])

    scale: dict[str, dict[str, Any]] = {"y": {}, "x": {}}
    if image is not None and image.unit in _UNITS:
        scale = {axis: {"scale": image.scale[1 + place], "unit": image.unit} for place, axis in enumerate("yx")}

    def output_axis(axis: str) -> Any:
        size = v0_5.SizeReference(tensor_id=v0_5.TensorId(INPUT), axis_id=v0_5.AxisId(axis))
        if halo:
            return v0_5.SpaceOutputAxisWithHalo(id=v0_5.AxisId(axis), size=size, halo=halo, **scale[axis])
        return v0_5.SpaceOutputAxis(id=v0_5.AxisId(axis), size=size, **scale[axis])

    try:
        return v0_5.ModelDescr(
            name=name,
            description=text[:1024],
            authors=[_author(each) for each in about.authors or ("not named",)],
            cite=[v0_5.CiteEntry(text=PAPER, url=PAPER_PLACE)],
            license=about.license or None,
            documentation=file("README.md"),
            covers=[file("cover.png")],
            attachments=[file(DESCRIPTION_FILE), file(WEIGHTS_FILE)],
            tags=["segmentation", "semantic-segmentation", "2d", "napari", "neural-architecture-search"],
            inputs=[
                v0_5.InputTensorDescr(
                    id=v0_5.TensorId(INPUT),
                    description="Raw gray values"
                    + ("; they are normalized in the network" if model.normalization.kind == "global" else ""),
                    axes=[
                        v0_5.BatchAxis(),
                        v0_5.ChannelAxis(channel_names=_input_channels(model)),
                        *(
                            v0_5.SpaceInputAxis(
                                id=v0_5.AxisId(axis),
                                size=v0_5.ParameterizedSize(min=smallest, step=stride),
                                **scale[axis],
                            )
                            for axis in "yx"
                        ),
                    ],
                    test_tensor=file("test-image.npy"),
                    sample_tensor=None if image is None else file("sample-image.tif"),
                    data=v0_5.IntervalOrRatioDataDescr(type="float32"),
                    preprocessing=_preprocessing(model),
                )
            ],
            outputs=[
                v0_5.OutputTensorDescr(
                    id=v0_5.TensorId(OUTPUT),
                    description="Probability of each class",
                    axes=[
                        v0_5.BatchAxis(),
                        v0_5.ChannelAxis(channel_names=identifiers([each.name for each in model.classes])),
                        *(output_axis(axis) for axis in "yx"),
                    ],
                    test_tensor=file("test-probabilities.npy"),
                    sample_tensor=None if image is None else file("sample-probabilities.tif"),
                    data=v0_5.IntervalOrRatioDataDescr(type="float32", range=(0.0, 1.0)),
                )
            ],
            weights=v0_5.WeightsDescr(
                onnx=v0_5.OnnxWeightsDescr(
                    source=parts / WEIGHTS, sha256=_sha256(parts / WEIGHTS), opset_version=opset
                ),
            ),
            config=v0_5.Config(napari_autosegnet=_own_config(model, halo)),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"the model zoo does not take this model, because of its '{first['loc'][0]}': "
            f"{' '.join(first['msg'].split())[:160]}"
        ) from error


def _preprocessing(model: Model) -> list[Any]:
    """What other programs do to a whole image first: nothing, unless each section has constants of its own."""
    from bioimageio.spec.model import v0_5

    if model.normalization.kind == "global":
        return []
    axes = (v0_5.AxisId("y"), v0_5.AxisId("x"))
    return [v0_5.ZeroMeanUnitVarianceDescr(kwargs=v0_5.ZeroMeanUnitVarianceKwargs(axes=axes))]


def zoo_name(model: Model, about: About, path: Path) -> str:
    """Name of the model in the letters that the zoo takes."""
    if about.name:
        name = in_plain_letters(about.name, "_+-() ")[:LONGEST_NAME].strip()
        if len(name) < SHORTEST_NAME:
            raise UserError(
                f"the model zoo does not take the --name '{about.name}'; give at least {SHORTEST_NAME} "
                "letters from A to Z, digits, or _ + - ( )"
            )
        return name
    # Names in other scripts leave nothing; the file may have a name that says more.
    words = (in_plain_letters(text, "_+-() ").strip() for text in (" ".join(c.name for c in model.classes), path.stem))
    return f"AutoSegNet {next(filter(None, words), '')}"[:LONGEST_NAME].strip()


def in_plain_letters(text: str, others: str) -> str:
    """Text in the letters of English, digits and ``others``: accents are left out, all else becomes a space."""
    parts = unicodedata.normalize("NFKD", text.replace("ß", "ss"))
    letters = (sign for sign in parts if not unicodedata.combining(sign))
    return "".join(sign if sign.isascii() and (sign.isalnum() or sign in others) else " " for sign in letters)


def _check_license(license: str) -> None:
    from bioimageio.spec.model.v0_5 import LicenseId
    from pydantic import ValidationError

    try:
        LicenseId(license or "MIT")
    except ValidationError as error:
        raise UserError(
            f"'{license}' is not a license that the model zoo knows; give an SPDX identifier, for example CC-BY-4.0"
        ) from error


def _own_config(model: Model, halo: int) -> dict[str, Any]:
    return {
        "classes": [
            {"name": each.name, "color": each.color, "label": number + 1} for number, each in enumerate(model.classes)
        ],
        "context": model.context,
        "halo": halo,
        "fingerprint": model.fingerprint,
        "metrics": json.loads(json.dumps(model.metrics)),
    }


def _sha256(file: Path) -> Any:
    from bioimageio.spec.model.v0_5 import Sha256

    return Sha256(hashlib.sha256(file.read_bytes()).hexdigest())


def _author(text: str) -> Any:
    from bioimageio.spec.model import v0_5
    from pydantic import ValidationError

    match = re.fullmatch(r"\s*(.*?)\s*(?:\((.*)\))?\s*", text)
    name, affiliation = ("", None) if match is None else match.groups()
    try:
        if name:
            return v0_5.Author(name=name, affiliation=affiliation)
    except ValidationError:
        pass
    raise UserError(
        f"the model zoo does not take the --author '{text}'; write NAME or NAME (AFFILIATION), without a slash in NAME"
    )


def identifiers(names: Sequence[str]) -> list[str]:
    """Class names as the zoo takes them: lower-case words that are unique and could name a variable in Python."""
    identifiers: list[str] = []
    for number, name in enumerate(names, 1):
        word = "_".join(in_plain_letters(name.lower(), "").split())
        word = word if word and not word[0].isdigit() else f"class_{word or number}"
        identifiers.append(word if word not in identifiers else f"{word}_{number}")
    return identifiers


def _input_channels(model: Model) -> list[str]:
    names = [f"channel_{number}" for number in range(model.image_channels)]
    if not model.context:
        return names
    sections = range(-model.context, model.context + 1)
    where = [
        "below_" + str(-offset) if offset < 0 else "above_" + str(offset) if offset else "here" for offset in sections
    ]
    return [f"{name}_{place}" for place in where for name in names]


def sample_of(model: Model, image: ImageStack | None, side: int, stride: int) -> npt.NDArray[np.float32]:
    """Square (c, side, side) from the middle of an image, or noise; context sections are among its channels.

    Raises
    ------
    UserError
        When the image has other channels than the model.
    """
    if image is None:
        return noise(model, np.random.default_rng(0), side, side)
    if image.channels != model.image_channels:
        raise UserError(
            f"the image has {counted(image.channels, 'channel')} and the model {model.image_channels}; "
            "give an image like those the model was trained on"
        )
    here, last = image.sections // 2, image.sections - 1
    height, width = image.section_shape(here)
    y, x = max(0, (height - side) // 2), max(0, (width - side) // 2)
    cut = []
    for offset in range(-model.context, model.context + 1):
        section = image.section(min(max(here + offset, 0), last))[:, y : y + side, x : x + side]
        missing = [(0, 0), (0, side - section.shape[1]), (0, side - section.shape[2])]
        cut.append(np.pad(section, missing, mode="edge"))
    sample: npt.NDArray[np.float32] = np.concatenate(cut).astype(np.float32)
    return sample


def _padded_result(predictor: Predictor, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    assert pad_to_domain(image, predictor.stride).shape == image.shape
    return predictor.whole_section(image)


def _write_cover(
    path: Path, gray: npt.NDArray[np.float32], classes: npt.NDArray[np.intp], colors: Sequence[str]
) -> None:
    """Image and result side by side, twice as wide as high, as the zoo asks for."""
    from PIL import Image, ImageColor

    low, high = np.percentile(gray, (0.5, 99.5))
    shown = np.clip((gray - low) / max(high - low, 1e-6), 0, 1)[..., np.newaxis].repeat(3, -1)
    painted = np.array([ImageColor.getrgb(color)[:3] for color in colors], np.float32)[classes] / 255
    both = np.concatenate([shown, 0.5 * shown + 0.5 * painted], axis=1)
    Image.fromarray((both * 255).astype(np.uint8)).resize((800, 400), Image.Resampling.LANCZOS).save(
        path, optimize=True
    )


def _documentation(model: Model, name: str, text: str, halo: int, stride: int) -> str:
    validation = model.metrics.get("validation", {})
    iou = validation.get("iou", {})
    rows = [
        f"| {each.name} | {number} | {each.color} | {_number(iou.get(each.name))} |"
        for number, each in enumerate(model.classes)
    ]
    quality = Quality.of(validation)
    reached = "not measured" if quality is None else quality.sentence().removeprefix("quality ")
    agreement = ""
    if model.halo is not None:
        agreement = f" With it, {model.halo.agreement:.2%} of the labels equal those of a whole section at once."
    lines = [
        f"# {name}",
        "",
        text,
        "",
        "## Input and output",
        "",
        f"Input `{INPUT}`: {model.image_channels} channel(s), raw gray values as float32. "
        + _normalization_in_words(model),
    ]
    if model.context:
        lines += [
            "",
            f"The channels are those of {2 * model.context + 1} neighboring sections, from the one with the lowest "
            "index to the one with the highest; the result is that of the middle one. The ends of a stack repeat.",
        ]
    lines += [
        "",
        f"Output `{OUTPUT}`: one channel per class, in this order. Sides are multiples of {stride} pixels; a tile "
        f"needs {halo} pixels of real surroundings on each side.{agreement}",
        "",
        "| class | channel | color | IoU in validation |",
        "|---|---|---|---|",
        *rows,
        "",
        "## Validation",
        "",
        f"Mean intersection over union on annotation that it was not trained on: {reached}. "
        "Score it on your own labeled images before you trust it:",
        "",
        "```sh",
        "napari-autosegnet evaluate --model THIS.zip --image image.tif --labels labels.tif",
        "```",
        "",
        "## Use",
        "",
        "In napari-autosegnet (the package holds its own model files):",
        "",
        "```sh",
        "napari-autosegnet predict --model THIS.zip --image stack.ome.zarr --out labels.zarr",
        "```",
        "",
        "In Python with `bioimageio.core`, or as `weights.onnx` in any program that runs ONNX. The network was found "
        f"and trained by napari-autosegnet, after {PAPER}",
        "",
    ]
    return "\n".join(lines)


def _normalization_in_words(model: Model) -> str:
    values = model.normalization
    if values.kind == "section":
        return (
            "Each section is normalized by its own mean and deviation, measured on the whole section: this is the "
            "package's pre-processing, and no part of `weights.onnx`."
        )
    mean, std = (", ".join(f"{value:.6g}" for value in each) for each in (values.mean, values.std))
    return f"The normalization (mean {mean}, deviation {std}) is part of the network: do not normalize before."


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else "not measured"


@contextmanager
def _quiet_validation() -> Iterator[None]:
    """The zoo's library logs its advice; what is wrong is raised anyway. Nothing is looked up in the network."""
    from bioimageio.spec import ValidationContext
    from loguru import logger

    logger.disable("bioimageio")
    try:
        with warnings.catch_warnings(), ValidationContext(perform_io_checks=False):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.enable("bioimageio")
