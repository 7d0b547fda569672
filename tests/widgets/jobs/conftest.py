"""A run folder, and clients that follow it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from napari_autosegnet.run import Run

if TYPE_CHECKING:
    from run_followers import Follower


@pytest.fixture
def follow(qtbot: Any) -> Iterator[Callable[..., Follower]]:
    # Needs napari, which may not be there.
    from napari_autosegnet.widgets.jobs.worker_process import find
    from run_followers import Follower

    made: list[Follower] = []

    def make(run: Run, step: Any = "train") -> Follower:
        made.append(Follower(qtbot, run, step))
        return made[-1]

    yield make
    for each in made:
        process = find(each.client.run)
        if process is not None:
            process.kill()
        each.client.close()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run with a blank")
