"""Files of images: a module per format, each with its `FORMAT`; see `napari_autosegnet.data.readers.formats`."""
