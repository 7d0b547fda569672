"""A model written for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ExportFormat = Literal["onnx", "bioimageio"]


class ExportJob(BaseModel):
    """Write a model for other programs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path = Field(description="Model folder, a zip of one, or a run folder with a trained model")
    out: Path = Field(description="The file: NAME.onnx, or NAME.zip for bioimage.io")
    format: ExportFormat = Field(
        "onnx", description="onnx: one file; bioimageio: a package of the model zoo. By the ending of --out if left out"
    )
    image: Path | None = Field(
        None, description="bioimageio: image that the test image and the cover are cut from; both are shared"
    )
    name: str = Field("", description="bioimageio: name of the model")
    description: str = Field("", description="bioimageio: what it segments in which images")
    authors: tuple[str, ...] = Field((), description="bioimageio: who made it; repeat for several")
    license: str = Field("", description="bioimageio: for example CC-BY-4.0")

    def run(self) -> float:
        """Export; see `api.export`."""
        from napari_autosegnet.model import Model

        model = Model.load(self.model)
        if self.format == "onnx":
            from napari_autosegnet.export.onnx_file import write_onnx

            return write_onnx(model, self.out)
        from napari_autosegnet.data.images import open_image
        from napari_autosegnet.export.bioimageio_package import About, write_bioimageio

        about = About(name=self.name, description=self.description, authors=self.authors, license=self.license)
        image = None if self.image is None else open_image(self.image)
        return write_bioimageio(model, self.out, about=about, image=image)
