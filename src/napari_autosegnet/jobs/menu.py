"""The networks that a fit offers, some more accurate, some faster, each with a model of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from napari_autosegnet.errors import UserError, first_problem
from napari_autosegnet.files import write_atomically
from napari_autosegnet.json_files import read_json
from napari_autosegnet.run import Run
from napari_autosegnet.settings import Goal

#: Pixels that a latency is measured on.
PIXELS = 512 * 512

Count = Annotated[int, Field(ge=0, lt=2**63)]


class MenuEntry(BaseModel):
    """A network that was trained, and what it is worth.

    Attributes
    ----------
    name : str
        That of its folder in ``RUN/networks``, where its model is kept.
    description : str
        Its size in words.
    mean_iou : float
        On the validation part.
    interval, difference : tuple of float
        Where it lies, and where its difference from the best network lies (90 % of draws of patches).
    milliseconds : float
        For 512 x 512 pixels on the device that it was trained on.
    parameters : int
    seconds, epochs
        That it was trained for.
    goals : tuple of str
        Goals that it is the answer to.
    chosen : bool
        Whether it is the run's model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")]
    description: str
    mean_iou: float
    interval: tuple[float, float]
    difference: tuple[float, float]
    milliseconds: Annotated[float, Field(gt=0)]
    parameters: Count
    seconds: float
    epochs: Count
    goals: tuple[Goal, ...] = ()
    chosen: bool = False

    @property
    def megapixels_per_second(self) -> float:
        return PIXELS / 1e3 / self.milliseconds

    def hours(self, voxels: int) -> float:
        """Time to apply it to as many voxels, without reading and writing."""
        return voxels / (1e6 * self.megapixels_per_second) / 3600


_MENU: TypeAdapter[list[MenuEntry]] = TypeAdapter(list[MenuEntry])


def write_menu(run: Run, entries: list[MenuEntry]) -> None:
    write_atomically(run.menu_file, _MENU.dump_json(entries, indent=1) + b"\n")


def read_menu(run: Run) -> list[MenuEntry]:
    """The networks of a run's fit; none where it has had no fit.

    Raises
    ------
    UserError
        When the file is damaged.
    """
    if not run.menu_file.exists():
        return []
    try:
        return _MENU.validate_python(read_json(run.menu_file, "fit again in a new run"))
    except ValidationError as error:
        raise UserError(f"{run.menu_file} is damaged {first_problem(error)}; fit again in a new run") from error


def choose_network(run: Run, name: str) -> None:
    """Make another network of a run's menu the run's model.

    Raises
    ------
    UserError
        When there is no such network, or the run is in use.
    """
    from napari_autosegnet.model import Model

    with run.locked():
        menu = read_menu(run)
        chosen = next((entry for entry in menu if entry.name == name), None)
        if chosen is None:
            names = ", ".join(entry.name for entry in menu)
            raise UserError(
                f"{run.path} has no network '{name}'; choose one of {names}"
                if menu
                else f"{run.path} has no networks to choose from; run 'napari-autosegnet fit' first"
            )
        Model.load(model_of(run, chosen)).save(run.model_folder)
        write_menu(run, [entry.model_copy(update={"chosen": entry is chosen}) for entry in menu])


def checked_model(run: Run) -> Path:
    """Folder of the fit's chosen model as it was before it learned from the validation part as well."""
    return run.file("networks", "checked")


def model_of(run: Run, entry: MenuEntry) -> Path:
    """Folder of its model."""
    return run.file("networks", entry.name)
