"""Zarr arrays (format 2 and 3) and levels of OME-Zarr images, here or read block by block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype

from retrace.errors import DataError, nearest
from retrace.formats import ome_zarr
from retrace.remote.block_cache import DOCUMENTS, BlockReader
from retrace.remote.objects import Part


class BlockStore(Store):
    """What zarr reads from: objects of a BlockReader, many at a time. Nothing is listed."""

    supports_writes = False
    supports_deletes = False
    supports_listing = False

    def __init__(self, reader: BlockReader) -> None:
        super().__init__(read_only=True)
        self.reader = reader
        # Chunks that zarr asks for at the same time; the pool of the reader has as many threads.
        zarr.config.set({"async.concurrency": reader.threads})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BlockStore) and other.reader is self.reader

    def __str__(self) -> str:
        return self.reader.remote.url

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Metadata as it is now, or a chunk through the cache; None where there is none."""
        assert prototype is not None
        loop = asyncio.get_running_loop()
        pool, reader = self.reader.pool, self.reader
        if key.rpartition("/")[2] in DOCUMENTS:
            content = await loop.run_in_executor(pool, reader.document, key)
        else:
            content = await loop.run_in_executor(pool, reader.block, key, _part(byte_range))
        return None if content is None else prototype.buffer.from_bytes(content)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        parts = (self.get(key, prototype, byte_range) for key, byte_range in key_ranges)
        return list(await asyncio.gather(*parts))

    async def exists(self, key: str) -> bool:
        loop = asyncio.get_running_loop()
        read = self.reader.document if key.rpartition("/")[2] in DOCUMENTS else self.reader.block
        return await loop.run_in_executor(self.reader.pool, read, key) is not None

    async def set(self, key: str, value: Buffer) -> None:
        raise NotImplementedError("volumes elsewhere are only read")

    async def delete(self, key: str) -> None:
        raise NotImplementedError("volumes elsewhere are only read")

    async def list(self) -> AsyncIterator[str]:
        raise NotImplementedError("volumes elsewhere are not listed")
        yield ""

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        raise NotImplementedError("volumes elsewhere are not listed")
        yield ""

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        raise NotImplementedError("volumes elsewhere are not listed")
        yield ""


def _part(request: ByteRequest | None) -> Part | None:
    if isinstance(request, RangeByteRequest):
        return request.start, request.end - request.start
    if isinstance(request, SuffixByteRequest):
        return -request.suffix, None
    return (request.offset, None) if isinstance(request, OffsetByteRequest) else None


class PlacedArray:
    """A zarr array (Z, Y, X) or (C, Z, Y, X) with the place that its image's metadata gives it.

    `lead`: axes of size 1 before those, left out. `reader`: what it is read through, None here.
    """

    def __init__(
        self, array: zarr.Array, attrs: dict[str, Any], lead: int, reader: BlockReader | None
    ) -> None:
        self.array, self.attrs, self.reader, self._lead = array, attrs, reader, lead
        self.shape, self.chunks = array.shape[lead:], array.chunks[lead:]
        self.dtype = array.dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        key = key if isinstance(key, tuple) else (key,)
        return np.asarray(self.array[(*([0] * self._lead), *key)])


def open_zarr(
    store: Path | BlockStore, name: str, array: str, mip: int
) -> zarr.Array | PlacedArray:
    """The array of that name in a store, or level `mip` of the OME-Zarr image of that name.

    DataError where there is none.
    """
    reader = store.reader if isinstance(store, BlockStore) else None
    label = f"{name}/{array}" if array else name
    found = _node(store, name, array)
    if isinstance(found, zarr.Array):
        return found if reader is None else PlacedArray(found, dict(found.attrs), 0, reader)
    image = ome_zarr.multiscale(dict(found.attrs))
    if image is None:
        raise DataError(f"{label} is a group, not an array, and no OME-Zarr image")
    inner = found[ome_zarr.level(label, image, mip)["path"]]
    if not isinstance(inner, zarr.Array):
        raise DataError(f"{label}: level {mip} is no array; write the image anew")
    lead = ome_zarr.leading_axes(label, image, inner.shape)
    return PlacedArray(inner, {**ome_zarr.place(image, mip), **inner.attrs}, lead, reader)


def _node(store: Path | BlockStore, name: str, array: str) -> zarr.Array | zarr.Group:
    try:
        if isinstance(store, BlockStore):
            return zarr.open(store, path=array, mode="r", use_consolidated=False)
        root = zarr.open(store, mode="r")
        return root[array] if array and isinstance(root, zarr.Group) else root
    except (KeyError, FileNotFoundError) as error:
        raise DataError(f"{name} has no array {array!r}{_others(store, array)}") from error


def _others(store: Path | BlockStore, array: str) -> str:
    """The arrays of a store on this machine, for an error; others are not listed."""
    if isinstance(store, BlockStore):
        return " that could be read; correct `path` and `array` in the dataset's config"
    members = zarr.open_group(store, mode="r").members(max_depth=None)
    return f"; {nearest(array, [name for name, item in members if isinstance(item, zarr.Array)])}"
