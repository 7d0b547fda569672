"""dask's scheduler and worker without their web servers: nothing here needs them, and everybody could read them."""

from __future__ import annotations

from typing import Any

import distributed


class QuietScheduler(distributed.Scheduler):
    """A scheduler that listens for workers and clients alone."""

    def start_http_server(self, *arguments: Any, **named: Any) -> None:
        """Start none."""


class QuietWorker(distributed.Worker):
    """A worker that listens for its scheduler and other workers alone."""

    def start_http_server(self, *arguments: Any, **named: Any) -> None:
        """Start none."""
