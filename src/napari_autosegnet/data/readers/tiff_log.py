"""What tifffile writes into its log while it reads: kept from the terminal, and reported as part of one line."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_heard: ContextVar[list[str] | None] = ContextVar("tifffile's log", default=None)


class _Listener(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        heard = _heard.get()
        if heard is None:
            return True
        if record.levelno >= logging.ERROR:
            heard.append(_sentence(record.getMessage()))
        return False


_listener = _Listener()


@contextmanager
def tifffile_errors() -> Iterator[list[str]]:
    """The errors that tifffile logs in this thread meanwhile; nothing of its log goes elsewhere."""
    logging.getLogger("tifffile").addFilter(_listener)  # once; a filter that is there is not added again
    errors: list[str] = []
    token = _heard.set(errors)
    try:
        yield errors
    finally:
        _heard.reset(token)


def _sentence(text: str) -> str:
    """A log line without the names of tifffile's objects."""
    return " ".join(re.sub(r"<tifffile[^>]*>", "", text).split())
