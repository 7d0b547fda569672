"""Workers of this machine: processes that are watched, replaced when they die, and end with this one.

They are started as programs and not with `multiprocessing`, which would run the main module of whoever calls once more
in each: a script without ``if __name__ == "__main__":`` would start itself again and again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from napari_autosegnet.errors import UserError

if TYPE_CHECKING:
    from distributed import Client, Security

#: Threads per worker: one reads, one computes, one writes.
THREADS = 3
_POLL = 0.05
#: Seconds between the starts of a worker that dies again and again.
_PAUSE = 1.0
#: Seconds that workers get to end; those that somebody has stopped (SIGSTOP) never do by themselves.
_END_WITHIN = 2.0


class LocalWorkers:
    """A number of worker processes.

    Parameters
    ----------
    count : int
        How many there are at any time.
    scheduler : str
        Its address.
    security : Security
        Temporary keys, which the workers are told.
    cores : int
        For each, where nobody has set a number of threads.
    """

    def __init__(self, count: int, scheduler: str, security: Security, cores: int) -> None:
        keys = ("tls_ca_file", "tls_worker_cert", "tls_worker_key")
        self._settings = {
            "scheduler_ip": scheduler,
            "nthreads": THREADS,
            "security": {key: getattr(security, key) for key in keys},
            # A worker that dies is told of by its blocks, not by dask's log.
            "config": {"logging": {"distributed": "critical"}, "distributed.comm.timeouts.connect": "60s"},
        }
        paths = os.pathsep.join(path for path in sys.path if path)
        self._environment = {"OMP_NUM_THREADS": str(cores)} | os.environ | {"PYTHONPATH": paths}
        self._ending = False
        self._lock = threading.Lock()
        with signals_of_terminals_blocked():  # the watching threads, which start others, inherit it
            self._processes = [self._start(number) for number in range(count)]
            for number in range(count):
                threading.Thread(target=self._watch, args=(number,), name=f"worker {number}", daemon=True).start()

    def _start(self, number: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", "-m", "napari_autosegnet.inference.distributed.local_worker"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, env=self._environment, text=True)
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has died already, which whoever watches it sees
            process.stdin.write(json.dumps({**self._settings, "name": number}) + "\n")
            process.stdin.flush()
        return process

    def _watch(self, number: int) -> None:
        while True:
            started = time.monotonic()
            process = self._processes[number]
            process.wait()
            _close_stdin(process)
            if not self._ending:
                time.sleep(max(0.0, started + _PAUSE - time.monotonic()))
            with self._lock:
                if self._ending:
                    return
                self._processes[number] = self._start(number)

    def wait_until_ready(self, client: Client) -> None:
        """Wait until all have come.

        Raises
        ------
        UserError
            When one dies instead.
        """
        first = list(self._processes)
        while len(client.nthreads()) < len(first):
            for process in first:
                if process.poll() is not None:
                    raise UserError(f"a worker ended as it started (status {process.returncode}); try --workers 1")
            time.sleep(_POLL)

    def end(self) -> None:
        """End all; who does not do so within moments is killed."""
        with self._lock:
            self._ending = True
        for process in self._processes:
            _close_stdin(process)
        deadline = time.monotonic() + _END_WITHIN
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _close_stdin(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        with suppress(OSError):  # what it did not read is lost with it
            process.stdin.close()


@contextmanager
def signals_of_terminals_blocked() -> Iterator[None]:
    """Start threads and processes that Ctrl-C and the end of a terminal do not reach.

    Those go to all processes of a command, and a worker would die of them in the middle of a block, while this process
    asks the workers to end in order. They inherit what the thread that starts them blocks. A signal in the meantime
    arrives here at the end, or at once where other threads run, which do not block it.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
