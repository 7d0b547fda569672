"""What of a file is read."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Selection(BaseModel):
    """Time point, channels and names of axes, where a file leaves a choice."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time_point: int | None = Field(None, description="Time point to read, from 0, where there are several")
    channels: tuple[str, ...] | None = Field(None, description="Channels to read, by name or by number from 0")
    axes: str | None = Field(
        None, description="Names of the axes, such as tczyx, where the file has none or wrong ones"
    )


ALL = Selection()
