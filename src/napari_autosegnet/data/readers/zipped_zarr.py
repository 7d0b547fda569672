"""OME-Zarr in one zip, as it is shared; chunks are read where a read falls on them."""

from __future__ import annotations

from napari_autosegnet.data.readers.formats import Format
from napari_autosegnet.data.readers.zarr import open_zarr
from napari_autosegnet.ome_zarr.paths import ZIPS

FORMAT = Format("zipped OME-Zarr", open_zarr, suffixes=ZIPS)
