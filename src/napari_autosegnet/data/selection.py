"""What of a file is read."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def _choice(description: str, empty: str) -> Any:
    """A field; ``empty`` is shown in a form where nothing is filled in."""
    return Field(None, description=description, json_schema_extra={"empty": empty})


class Selection(BaseModel):
    """Time point, channels and names of axes, where a file leaves a choice."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time_point: int | None = _choice("Time point to read, from 0, where there are several", "if there are several")
    channels: tuple[str, ...] | None = _choice("Channels to read, by name or by number from 0", "all")
    axes: str | None = _choice(
        "Names of the axes, such as tczyx, where the file has none or wrong ones", "as the file says"
    )


ALL = Selection()
