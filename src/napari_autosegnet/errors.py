"""The error that a user can do something about."""

from __future__ import annotations


class UserError(Exception):
    """One line that says what is wrong and what to do about it.

    Shown as it is, in the dock as in the shell; anything else that is raised is a bug.
    """
