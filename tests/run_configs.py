"""Parts of a run's configuration, put into its folder as they are."""

from __future__ import annotations

import json
from typing import Any

from napari_autosegnet.run import Run
from napari_autosegnet.run.folder import CONFIG_VERSION


def update_config(run: Run, **sections: Any) -> None:
    """Put parts into ``config.json``, in place of those of these names."""
    content = run.read_config() if run.config_file.exists() else {"version": CONFIG_VERSION}
    run.config_file.write_text(json.dumps({**content, **sections}))
