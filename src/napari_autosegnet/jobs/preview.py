"""What a network in training predicts for the section in view, exchanged through the files in ``RUN/preview``."""

from __future__ import annotations

import dataclasses
import io
import json
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zipfile import BadZipFile

from pydantic import TypeAdapter

from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Note, PreviewDrawn
from napari_autosegnet.files import write_atomically
from napari_autosegnet.interruption import ShouldStop
from napari_autosegnet.run import Run

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from napari_autosegnet.data.gray_values import SectionGray
    from napari_autosegnet.model import Model

#: Pixels of surroundings of a preview's tiles, and the largest fraction of the training's time that previews take.
PREVIEW_HALO = 32
PREVIEW_FRACTION = 0.2


def preview_file(run: Run, name: Literal["input", "labels", "uncertainty"]) -> Path:
    return run.file("preview", f"{name}.npz" if name == "input" else f"{name}.npy")


def write_slice(run: Run, pixels: npt.NDArray[Any], gray: SectionGray) -> int:
    """Give a run's training something to look at: a section, or a part of one.

    Parameters
    ----------
    run : Run
    pixels : (c, y, x)
        As they are in the image.
    gray : SectionGray
        Gray values of the whole section.

    Returns
    -------
    int
        When it was written, in nanoseconds: the ``input`` of the event that tells of the result.
    """
    import numpy as np

    content = io.BytesIO()
    about = np.array(json.dumps(dataclasses.asdict(gray)))
    np.savez(content, pixels=np.ascontiguousarray(pixels), gray=about)
    file = preview_file(run, "input")
    write_atomically(file, content.getvalue())
    return file.stat().st_mtime_ns


def _read_slice(run: Run) -> tuple[npt.NDArray[Any], SectionGray]:
    import numpy as np

    from napari_autosegnet.data.gray_values import SectionGray

    with np.load(preview_file(run, "input"), allow_pickle=False) as content:
        gray = TypeAdapter(SectionGray).validate_json(str(content["gray"]))
        return content["pixels"], gray


class Preview:
    """What the network predicts, at the end of an epoch, for the slice that somebody looks at.

    Parameters
    ----------
    run : Run
        Holds the slice and gets the result; see `preview_file`.
    device : str
        That of the training.
    should_stop : ShouldStop
        Ends a preview in its middle.
    """

    def __init__(self, run: Run, device: str, should_stop: ShouldStop) -> None:
        self.run = run
        self.device = device
        self.should_stop = should_stop
        self._spent = 0.0
        self._began = time.monotonic()
        self._last_problem = ""
        self._drawn: tuple[Hashable, int] | None = None

    def __call__(self, current: Callable[[], Model], state: Hashable) -> None:
        """Draw the current model unless it was drawn in this state, if there is a slice.

        Not while previews have taken too much time already.
        """
        started = time.monotonic()
        source = preview_file(self.run, "input")
        if self._spent > PREVIEW_FRACTION * (started - self._began) or not source.is_file():
            return
        try:
            drawn = (state, source.stat().st_mtime_ns)
            if drawn == self._drawn:
                return
            self._draw(current())
            self._drawn = drawn
        except (UserError, RuntimeError, ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
            # A training is worth more than its preview: reported once.
            problem = str(error).partition("\n")[0]
            if problem != self._last_problem:
                self.run.report(Note(text=f"no preview: {problem}"))
            self._last_problem = problem
        self._spent += time.monotonic() - started

    def _draw(self, model: Model) -> None:
        source = preview_file(self.run, "input")
        modified = source.stat().st_mtime_ns
        pixels, gray = _read_slice(self.run)
        predicted = predicted_slice(model, pixels, gray, self.device, self.should_stop)
        if predicted is None:
            return
        labels, uncertainty = predicted
        save_array(preview_file(self.run, "labels"), labels)
        save_array(preview_file(self.run, "uncertainty"), uncertainty)
        classes = tuple(each.model_dump(mode="json") for each in model.classes)
        self.run.report(PreviewDrawn(shape=labels.shape, input=modified, classes=classes))


def predicted_slice(
    model: Model, pixels: npt.NDArray[Any], gray: SectionGray, device: str, should_stop: ShouldStop
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]] | None:
    """Labels and uncertainty of a slice (c, y, x), which stands for its neighbors too; None when stopped.

    Raises
    ------
    UserError
        When the slice has other channels than the model takes.
    """
    import numpy as np
    import torch

    from napari_autosegnet.data.array_stack import stack_of_array
    from napari_autosegnet.device import choose_device
    from napari_autosegnet.figures import normalized_entropy
    from napari_autosegnet.inference.compute.gray_check import scale_of
    from napari_autosegnet.inference.compute.predictor import Predictor
    from napari_autosegnet.inference.compute.sections import predict_section
    from napari_autosegnet.inference.compute.survey import ImageSurvey

    if pixels.ndim != 3 or len(pixels) != model.image_channels:
        raise UserError(f"the slice is {pixels.shape}, the network takes {model.image_channels} channels")
    # Building a network draws its first weights, which must not change what the training draws.
    with torch.random.fork_rng(devices=[]):
        predictor = Predictor(model, choose_device(device), halo=PREVIEW_HALO)
    sections = 2 * model.context + 1
    around = np.repeat(pixels[:, np.newaxis], sections, axis=1)
    image = stack_of_array(around, "czyx", name="the slice", time=None)
    scale = scale_of(model.normalization, [gray], pixels.dtype, image.name)
    survey = ImageSurvey(image, model.normalization, scale, known=dict.fromkeys(range(sections), gray))
    predicted = predict_section(predictor, image, model.context, survey=survey, should_stop=should_stop)
    if predicted is None:
        return None
    labels, probabilities = predicted
    return labels, normalized_entropy(probabilities).astype(np.float32)


def save_array(path: Path, array: npt.NDArray[Any]) -> None:
    import numpy as np

    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    write_atomically(path, content.getvalue())
