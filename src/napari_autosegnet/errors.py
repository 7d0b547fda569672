"""The error that a user can do something about."""

from __future__ import annotations


class UserError(Exception):
    """One line that says what is wrong and what to do about it.

    Shown as it is, in the dock as in the shell; anything else that is raised is a bug.
    """

    def __init__(self, text: str = "") -> None:
        # What was typed, or stands in a file, may hold line breaks and is quoted in the text.
        super().__init__(" ".join(text.splitlines()))
