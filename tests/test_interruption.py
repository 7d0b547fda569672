from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from napari_autosegnet.cli import main
from napari_autosegnet.interruption import clean_shutdown

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals between processes are POSIX here")

#: Makes the terminal on stdin that of the process.
TERMINAL = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
"""

#: A search that lasts until it is asked to stop, or for ever when it does not ask.
PROGRAM = """
import signal, sys, time
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may have been started with nohup
from napari_autosegnet.cli.app import run
from napari_autosegnet.events import Finished, Stopped
from napari_autosegnet.jobs.search import SearchJob

def search(job, run, *, report, should_stop):
    print("ready", file=sys.stderr, flush=True)
    asks, finishes = sys.argv[1] == "asks", sys.argv[1] == "finishes"
    started = time.monotonic()
    while not (asks and should_stop()) and not (finishes and time.monotonic() > started + 1):
        time.sleep(0.01)
    if finishes:
        report(Finished(step="search", seconds=1.0))
    else:
        report(Stopped(step="search", reason="asked"))
    return object()

SearchJob.run = search
sys.exit(run(["search", "--image", "a", "--labels", "b", "--run", "my run", "--device", "cpu", "--json"]))
"""


def _start(how: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    return process


@pytest.mark.parametrize(("what", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_first_signal_shuts_down_cleanly(what: signal.Signals, status: int) -> None:
    process = _start("asks")
    process.send_signal(what)
    out, error = process.communicate(timeout=20)
    assert process.returncode == status
    assert out == ""
    assert "continue with: napari-autosegnet search --run 'my run' --resume --device cpu --json" in error
    assert "Traceback" not in error


def test_a_closed_terminal_shuts_down_cleanly() -> None:
    """What is printed then goes nowhere and is no error."""
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINAL + PROGRAM, "asks"],
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,
    )
    os.close(inside)
    shown = b""
    while b"ready" not in shown:
        shown += os.read(terminal, 1000)
    os.close(terminal)
    assert process.wait(timeout=20) == 129


def test_nohup_is_kept() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with clean_shutdown() as interruption:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interruption()
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGHUP)
            assert interruption.exit_status == 143
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_second_signal_ends_at_once() -> None:
    process = _start("never asks")
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert "Traceback" not in error


def test_a_signal_after_the_last_step_changes_nothing() -> None:
    process = _start("finishes")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "architecture" in out


def test_an_interrupted_start_shows_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Starting(ModuleType):
        @property
        def run(self) -> None:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "napari_autosegnet.cli.app", Starting("app"))
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130


def test_the_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with clean_shutdown() as interruption:
        assert not interruption()
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption()
        assert interruption.exit_status == 143
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
