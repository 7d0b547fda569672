"""What of a file is read."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Selection(BaseModel):
    """Time point, channels and names of axes, where a file leaves a choice.

    Attributes
    ----------
    time_point
        From 0, where there are several.
    channels
        By name or by number from 0; all by default.
    axes
        Names such as ``tczyx``, where the file has none or wrong ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    time_point: int | None = None
    channels: tuple[str, ...] | None = None
    axes: str | None = None


ALL = Selection()
