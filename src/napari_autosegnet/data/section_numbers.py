"""Numbers of sections as they are typed: ``0-15,18``."""

from __future__ import annotations

import re

from napari_autosegnet.errors import UserError


def parse_sections(text: str) -> list[int]:
    """Section numbers of ``0-15,18`` (first and last included), rising, each once.

    Raises
    ------
    UserError
        When the text cannot be read.
    """
    sections: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", part)
        if match is None:
            raise UserError(f"'{part}' names no sections; write for example 0-15,18")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UserError(f"the sections '{part}' run backwards; write {last}-{first}")
        if last >= 10**7:
            raise UserError(f"there is no section {last}; check the sections '{text}'")
        sections.update(range(first, last + 1))
    if not sections:
        raise UserError("no section is named; write for example 0-15,18")
    return sorted(sections)
