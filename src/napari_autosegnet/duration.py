"""Times as people write and say them: ``10m``, ``1 h 30 min``."""

from __future__ import annotations

import math
import re

from napari_autosegnet.errors import UserError

_UNITS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(value: str | float) -> float:
    """Seconds of ``90``, ``90s``, ``10m``, ``10 min``, ``1.5h``, ``1h30m`` or ``2d``.

    Raises
    ------
    UserError
        When the text is not a time, or zero.
    """
    text = re.sub(r"(?<=\d)\s+(?=[a-z])|(?<=[a-z])\s+(?=\d)", "", str(value).strip().lower())
    parts = re.findall(r"(\d+(?:\.\d+)?)([a-z]*)", text)
    whole = "".join(number + unit for number, unit in parts)
    units_fit = all(unit in _UNITS or (not unit and len(parts) == 1) for _, unit in parts)
    if not parts or whole != text or not units_fit:
        raise UserError(f"'{value}' is not a time; write for example 90s, 10m, 1h or 1h30m")
    seconds = sum(float(number) * _UNITS[unit or "s"] for number, unit in parts)
    if seconds <= 0:
        raise UserError("a time must be more than 0 seconds")
    return seconds


def format_duration(seconds: float) -> str:
    """Seconds as people say them: ``45 s``, ``3 min 20 s``, ``2 h``."""
    if not math.isfinite(seconds):
        return "unknown"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    number, rest = (whole // 60, whole % 60) if whole < 3600 else (whole // 3600, whole % 3600 // 60)
    unit, lesser = ("min", "s") if whole < 3600 else ("h", "min")
    return f"{number} {unit}" + (f" {rest:02d} {lesser}" if rest else "")


def rough_duration(seconds: float) -> str:
    """Seconds with one unit, or hours with tens of minutes: ``45 s``, ``3 min``, ``2 h 10 min``, ``30 h``."""
    if not math.isfinite(seconds) or seconds < 59.5:
        return format_duration(seconds)
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 600:
        tens = round(minutes / 10)
        return f"{tens // 6} h" + (f" {tens % 6 * 10} min" if tens % 6 else "")
    return f"{round(minutes / 60)} h"
