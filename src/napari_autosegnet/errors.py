"""The error that a user can do something about, and plain words for what libraries say in their own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from napari_autosegnet.plain_text import printable

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


class UserError(Exception):
    """One line that says what is wrong and what to do about it.

    Shown as it is, in the dock as in the shell; anything else that is raised is a bug.
    """

    def __init__(self, text: str = "") -> None:
        # What was typed, or stands in a file, may hold line breaks and worse and is quoted in the text.
        super().__init__(printable(_without_secrets(" ".join(text.splitlines()))))


def _without_secrets(text: str) -> str:
    """A line whose addresses have both slashes (as paths they lose one), and neither passwords nor tokens."""
    text = re.sub(r"(?<![\w.])([a-zA-Z][a-zA-Z0-9+-]+):/+[^/\s@]*@", r"\1://", text)
    text = re.sub(r"\b(https?|s3|gcs|gs|ftp|precomputed|n5):/+", r"\1://", text)
    return re.sub(r"\b(https?://[^\s?'\"]*)\?[^\s'\"]*", r"\1", text)


class StoppedError(UserError):
    """A step was asked to stop before it had a result; what it has done until then is none."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the computer, or its graphics card, had too little memory."""
    text = str(error).lower()
    # The last two are oneDNN's, which gets none for the code that it makes, or to run it.
    words = (
        "out of memory",
        "not enough memory",
        "can't allocate memory",
        "could not create a primitive",
        "could not execute a primitive",
    )
    return isinstance(error, MemoryError) or any(word in text for word in words)


#: What pydantic's kinds of problems mean, in words that fit behind a name: "'epochs' must be at least 1".
_REQUIREMENTS = {
    "missing": "is missing",
    "extra_forbidden": "is unknown",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "finite_number": "must be a finite number",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "literal_error": "must be {expected}",
    "union_tag_invalid": "must have one of {expected_tags} as {discriminator}",
    "union_tag_not_found": "must name its {discriminator}",
    "json_invalid": "is not JSON",
}
#: The same by the beginning of a kind's name: int_type, int_parsing, int_from_float ...
_KINDS = {
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be text",
    "path": "must be a path",
    "tuple": "must be a list",
    "list": "must be a list",
    "dict": "must be an object of names and values",
    "model": "must be an object of names and values",
}
#: Kinds that say all without the value.
_TELL_ALL = frozenset({"missing", "extra_forbidden", "value_error", "json_invalid"})
_SHOWN = 60


def one_line(error: object) -> str:
    """The text of an error of a library, without its line breaks."""
    text = " ".join(str(error).split())
    return text or type(error).__name__


def requirement(problem: ErrorDetails) -> str:
    """What a pydantic model asks of a value that it does not take, in plain words: ``must be at least 1``."""
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    words = _REQUIREMENTS.get(kind) or _KINDS.get(kind.partition("_")[0], "does not fit")
    return words.format(**{name: _short(value) for name, value in context.items()})


def first_problem(error: ValidationError) -> str:
    """Where the first thing that a pydantic model does not take stands, and what is wrong with it."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "top"
    given = first["input"]
    tells = first["type"] not in _TELL_ALL and given != "" and (given is None or isinstance(given, str | int | float))
    return f"at '{where[:_SHOWN]}': {requirement(first)}" + (f", not {_short(given)}" if tells else "")


def _short(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."
