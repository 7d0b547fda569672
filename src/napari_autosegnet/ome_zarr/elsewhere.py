"""Zarr stores that are not folders: behind an address (HTTP, S3, Google Cloud), or in a zip.

Credentials are those that s3fs and gcsfs find in the usual places of the environment, such as ``~/.aws`` or
``AWS_ACCESS_KEY_ID``; none is given here, so none can be kept.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar
from zipfile import ZipFile

from zarr.abc.store import RangeByteRequest, SuffixByteRequest
from zarr.storage import FsspecStore, WrapperStore, ZipStore

from napari_autosegnet.addresses import address_of
from napari_autosegnet.errors import UserError
from napari_autosegnet.ome_zarr.paths import METADATA_FILES, zip_around

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

Value = TypeVar("Value")

#: What reads the addresses of a scheme.
_MODULES = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
#: Seconds to wait before another try, each drawn up to half as much longer.
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)
#: So many tries where nothing was ever read: the address may be wrong.
_FIRST_WAITS = 1
#: Chunks that are kept, as they are stored: neighboring blocks share some.
KEPT_BYTES = 2**28


def store_of(path: Path) -> tuple[Any, str]:
    """The store for an address or a place in a zip, and the path within it.

    Raises
    ------
    UserError
        When nothing reads addresses of that kind.
    """
    address = address_of(path)
    if address is not None:
        return _remote_store(address), ""
    archive = zip_around(path)
    assert archive is not None
    within = path.relative_to(archive).parts
    folder = _packed_folder(archive)
    if folder is not None and within[:1] != (folder,):
        within = (folder, *within)
    return ZipStore(archive, mode="r"), "/".join(within)


def _packed_folder(archive: Path) -> str | None:
    """The one folder that a zip holds where a store was packed with its folder, as file managers do; else None."""
    with ZipFile(archive) as content:
        tops = {PurePosixPath(name).parts[0] for name in content.namelist()} - {"__MACOSX"}
        names = {f"{top}/{name}" for top in tops for name in METADATA_FILES}
        return tops.pop() if len(tops) == 1 and not names.isdisjoint(content.namelist()) else None


def _remote_store(address: str) -> RemoteStore:
    scheme = address.partition(":")[0]
    if scheme not in _MODULES:
        raise UserError(f"{address} is an address that cannot be read; give https, s3 or gs, or download it")
    missing = next((module for module in ("fsspec", _MODULES[scheme]) if find_spec(module) is None), None)
    if missing is not None:
        raise UserError(f"{address} needs {missing}; pip install 'napari-autosegnet[remote]'")
    # A proxy, or a password in ~/.netrc: what the environment says.
    options = {"client_kwargs": {"trust_env": True}} if scheme.startswith("http") else {"anon": _is_anonymous()}
    if scheme.startswith("g"):
        options = {}
    return RemoteStore(FsspecStore.from_url(address, storage_options=options, read_only=True))


def _is_anonymous() -> bool:
    """Whether the environment has no credentials for S3: what is public is read without any."""
    from botocore.session import Session

    return Session().get_credentials() is None


class RemoteStore(WrapperStore[FsspecStore]):
    """A store on a network: what fails is tried again, what was read last is kept."""

    def __init__(self, store: FsspecStore) -> None:
        super().__init__(store)
        self._kept: OrderedDict[str, Buffer] = OrderedDict()
        self._kept_bytes = 0
        self._was_reached = False

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        name = f"{key} {byte_range}"
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name]
        value = await self._with_retries(lambda: self._store.get(key, prototype, byte_range))
        if value is not None:
            value = _within(value, byte_range)
        if value is not None and name not in self._kept:
            self._kept[name] = value
            self._kept_bytes += len(value)
            while self._kept_bytes > KEPT_BYTES:
                self._kept_bytes -= len(self._kept.popitem(last=False)[1])
        return value

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        return await self._with_retries(lambda: self._store.exists(key))

    async def _with_retries(self, read: Callable[[], Awaitable[Value]]) -> Value:
        for number in range(len(WAITS) + 1):
            try:
                value = await read()
            except Exception as error:
                waits = WAITS if self._was_reached else WAITS[:_FIRST_WAITS]
                if number >= len(waits) or not _is_temporary(error):
                    raise
                await asyncio.sleep(waits[number] * random.uniform(1, 1.5))
            else:
                self._was_reached = True
                return value
        raise AssertionError


def _within(value: Buffer, wanted: ByteRequest | None) -> Buffer:
    """The bytes that were wanted of a file; simple web servers send all of it."""
    if isinstance(wanted, RangeByteRequest) and len(value) > wanted.end - wanted.start:
        return value[wanted.start : wanted.end]
    if isinstance(wanted, SuffixByteRequest) and len(value) > wanted.suffix:
        return value[len(value) - wanted.suffix : len(value)]
    return value


def _is_temporary(error: Exception) -> bool:
    """Whether another try may succeed: the network was away, or the server is busy."""
    import aiohttp

    if isinstance(error, aiohttp.ClientResponseError):
        return error.status == 429 or error.status >= 500
    return isinstance(error, OSError | TimeoutError | aiohttp.ClientError) and not isinstance(error, PermissionError)
