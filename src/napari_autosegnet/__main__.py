"""``python -m napari_autosegnet`` is the command ``napari-autosegnet``."""

from __future__ import annotations

from napari_autosegnet.cli import main

if __name__ == "__main__":
    main()
