"""One dask worker of this machine: ``python -m napari_autosegnet.inference.distributed.local_worker``.

Its settings come as a line of JSON on stdin, TLS keys among them: so they stand in no file and in no list of processes.
Whoever started it keeps stdin open; when that closes, the worker ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from contextlib import suppress
from typing import Any

#: Seconds to leave the scheduler and tidy up, once nobody needs the worker any more.
_END_WITHIN = 1.0


async def _work(config: dict[str, Any], security: dict[str, str], **settings: Any) -> None:
    import dask

    dask.config.set(config)  # before distributed, which sets logging up as it is imported
    from distributed import Security

    from napari_autosegnet.inference.distributed.dask_roles import QuietWorker

    keys = Security(require_encryption=True, **security)
    # Blocks bound the memory; dask would stop workers that share it with the page cache.
    async with QuietWorker(**settings, security=keys, protocol="tls", host="127.0.0.1", memory_limit=0) as worker:
        threading.Thread(target=_end_with_stdin, args=(asyncio.get_running_loop(), worker), daemon=True).start()
        await worker.finished()


def _end_with_stdin(loop: asyncio.AbstractEventLoop, worker: Any) -> None:
    sys.stdin.read()
    with suppress(Exception):
        asyncio.run_coroutine_threadsafe(worker.close(executor_wait=False), loop).result(_END_WITHIN)
    os._exit(0)  # whatever it computes is not wanted any more


if __name__ == "__main__":
    asyncio.run(_work(**json.loads(sys.stdin.readline())))
    os._exit(0)  # taking torch down in order can take seconds
