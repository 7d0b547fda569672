"""Qt docks inside napari."""
