"""The error that a user can do something about."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(Exception):
    """One line that says what is wrong and what to do about it.

    Shown as it is, in the dock as in the shell; anything else that is raised is a bug.
    """

    def __init__(self, text: str = "") -> None:
        # What was typed, or stands in a file, may hold line breaks and is quoted in the text.
        super().__init__(" ".join(text.splitlines()))


class StoppedError(UserError):
    """A step was asked to stop before it had a result; what it has done until then is none."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the computer, or its graphics card, had too little memory."""
    text = str(error).lower()
    # The last is oneDNN's, which gets none for the code that it makes.
    words = ("out of memory", "not enough memory", "can't allocate memory", "could not create a primitive")
    return isinstance(error, MemoryError) or any(word in text for word in words)


def first_problem(error: ValidationError) -> str:
    """Where the first thing that a pydantic model does not take stands, and what is wrong with it."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "top"
    return f"at '{where}': {first['msg']}"
