"""napari's layers as images, labels and files."""
