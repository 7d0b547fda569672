"""tifffile's log, kept from the terminal."""

from __future__ import annotations

import logging
import threading

import pytest

from napari_autosegnet.data.readers.tiff_log import tifffile_errors

LOG = logging.getLogger("tifffile")


def test_errors_are_kept_and_nothing_is_printed(caplog: pytest.LogCaptureFixture) -> None:
    with tifffile_errors() as errors:
        LOG.warning("<tifffile.TiffPage 0 @8> is strange")
        LOG.error("<tifffile.TiffPage 0 @8> incorrect   count (3 != 5)")
    assert errors == ["incorrect count (3 != 5)"]
    assert caplog.records == []
    LOG.error("later")  # what others do with tifffile is none of our business
    assert [record.getMessage() for record in caplog.records] == ["later"]


def test_each_thread_hears_its_own(caplog: pytest.LogCaptureFixture) -> None:
    with tifffile_errors() as errors:
        thread = threading.Thread(target=LOG.error, args=("of another thread",))
        thread.start()
        thread.join()
    assert errors == []
    assert [record.getMessage() for record in caplog.records] == ["of another thread"]
