"""Zarr arrays (format 2 and 3) and levels of OME-Zarr images, on disk or streamed."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Self

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
from zarr.storage import LocalStore

from retrace.errors import DataError, DeniedError, RetraceError, nearest
from retrace.files import FileCheck, piece_name
from retrace.formats import ome_zarr
from retrace.formats.attributes import IN_ATTRIBUTES
from retrace.formats.checked_codecs import check_shards, limit_codecs, use_checked_codecs
from retrace.formats.contract import Description, FormatPage, byte_order_of
from retrace.formats.n5 import is_n5_dataset
from retrace.formats.reader import Reader, refuse_array, refuse_large_chunk, refuse_level
from retrace.formats.webknossos import CONVENTION as WEBKNOSSOS
from retrace.formats.webknossos import with_dataset_properties
from retrace.formats.zarr_folder import ZARR_FILES, array_names, attributes, with_outer_groups
from retrace.formats.zarr_nodes import GroupAttributes, ZarrArray, describe, level_path
from retrace.geometry import chunk_indices
from retrace.reading import cause, parse_json_object, retried
from retrace.remote.block_reader import BlockReader
from retrace.remote.objects import ByteRange, LocalFolder
from retrace.remote.read_record import DOCUMENTS


def _is_first_report(record: logging.LogRecord) -> bool:
    """Whether asyncio logs anything but further reads that end after one has failed."""
    text = record.getMessage()
    return "exception was never retrieved" not in text and "Task was destroyed" not in text


use_checked_codecs()
# zarr reads chunks concurrently: when one fails, its error is raised, and all others would be
# logged with a traceback each.
logging.getLogger("asyncio").addFilter(_is_first_report)


class BlockStore(Store):
    """A read-only zarr store over a BlockReader, with concurrent requests and without listings."""

    supports_writes = False
    supports_deletes = False
    supports_listing = False

    def __init__(self, reader: BlockReader, check: FileCheck | None = None) -> None:
        """`check` is called with each chunk that is read."""
        super().__init__(read_only=True)
        self.reader, self.check = reader, check
        self.denied: DeniedError | None = None
        # As many concurrent requests as the reader's pool has threads.
        zarr.config.set({"async.concurrency": reader.threads})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BlockStore) and other.reader is self.reader

    def __str__(self) -> str:
        return self.reader.folder.url

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """The current metadata, or a chunk through the cache; None if it does not exist."""
        assert prototype is not None
        loop = asyncio.get_running_loop()
        pool, reader = self.reader.pool, self.reader
        if key.rpartition("/")[2] in DOCUMENTS:
            content = await loop.run_in_executor(pool, self.document, key)
        else:
            content = await loop.run_in_executor(pool, reader.block, key, _byte_range(byte_range))
            if self.check is not None and not _is_metadata(key):
                self.check(key, content)
        return None if content is None else prototype.buffer.from_bytes(content)

    def document(self, key: str) -> bytes | None:
        """The current content of a metadata file, None if it does not exist.

        Denied metadata count as absent: a format has several, of which only some exist. The error
        is kept for the case that none of them can be read.
        """
        try:
            return self.reader.document(key)
        except DeniedError as error:
            self.denied = error
            return None

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Several objects or byte ranges, requested at the same time."""
        parts = (self.get(key, prototype, byte_range) for key, byte_range in key_ranges)
        return list(await asyncio.gather(*parts))

    async def exists(self, key: str) -> bool:
        """Whether an object exists; it is read, and thereby cached."""
        loop = asyncio.get_running_loop()
        read = self.document if key.rpartition("/")[2] in DOCUMENTS else self.reader.block
        return await loop.run_in_executor(self.reader.pool, read, key) is not None

    async def set(self, key: str, value: Buffer) -> None:
        """Not supported."""
        raise NotImplementedError("remote volumes are read-only")

    async def delete(self, key: str) -> None:
        """Not supported."""
        raise NotImplementedError("remote volumes are read-only")

    async def list(self) -> AsyncIterator[str]:
        """Not supported: many servers cannot list objects."""
        raise NotImplementedError("remote volumes are not listed")
        yield ""

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Not supported: many servers cannot list objects."""
        raise NotImplementedError("remote volumes are not listed")
        yield ""

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Not supported: many servers cannot list objects."""
        raise NotImplementedError("remote volumes are not listed")
        yield ""


def _is_metadata(key: str) -> bool:
    """Whether a file is no chunk."""
    name = key.rpartition("/")[2]
    return name.startswith(".") or name in DOCUMENTS


def _byte_range(request: ByteRequest | None) -> ByteRange | None:
    if isinstance(request, RangeByteRequest):
        return request.start, request.end - request.start
    if isinstance(request, SuffixByteRequest):
        return -request.suffix, None
    return (request.offset, None) if isinstance(request, OffsetByteRequest) else None


class SynchronousStore(LocalStore):
    """A zarr folder of this machine whose files are all read by `get_sync`."""

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """The bytes of a file or a part of them; None if it does not exist."""
        return await asyncio.to_thread(
            self.get_sync, key, prototype=prototype, byte_range=byte_range
        )


class CheckedStore(SynchronousStore):
    """A read-only zarr folder of this machine; `check` is called with each chunk that is read."""

    def __init__(
        self, root: Path | str, check: FileCheck | None = None, *, read_only: bool = True
    ) -> None:
        super().__init__(root, read_only=read_only)
        self.check = check

    def with_read_only(self, read_only: bool = False) -> Self:
        """The same store."""
        return type(self)(self.root, self.check, read_only=read_only)

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """The bytes of a file or a part of them, after the check; None if it does not exist."""
        read = partial(super().get_sync, key, prototype=prototype, byte_range=byte_range)
        content = retried(read, self.root / key)
        if self.check is not None and not _is_metadata(key):
            data = None if content is None else content.to_bytes()
            self.check(key if data is None else self._range_name(key, byte_range, data), data)
        return content

    def _range_name(self, key: str, request: ByteRequest | None, data: bytes) -> str:
        """How checks call a range of bytes of a file: a piece of a shard; `key` for all of them."""
        if request is None:
            return key
        if isinstance(request, RangeByteRequest):
            begin = request.start
        elif isinstance(request, OffsetByteRequest):
            begin = request.offset
        else:
            begin = (self.root / key).stat().st_size - len(data)
        return piece_name(key, begin, begin + len(data))


def chunk_names(array: zarr.Array) -> Iterator[str]:
    """The paths of all chunk files of a complete array, below its folder."""
    metadata: Any = array.metadata
    for index in chunk_indices(array.shape, metadata.chunk_grid.chunk_shape):
        yield metadata.encode_chunk_key(index)


class ZarrVolume:
    """A zarr array with its description; `reader` is None for an array of this machine."""

    def __init__(
        self, array: zarr.Array, description: Description, reader: BlockReader | None
    ) -> None:
        self.array, self.description, self.reader = array, description, reader
        self.shape, self.chunks, self.dtype = array.shape, array.chunks, array.dtype
        self.attrs = description.attributes

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All values, for numpy."""
        return np.asarray(self.array[...], dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        try:
            return np.asarray(self.array[key])
        except (OSError, RetraceError):
            raise
        except Exception as error:  # of any codec, which does not know its chunk
            if (name := damaged_chunk(self.array, key)) is None:
                raise
            raise ValueError(f"chunk {name}: {cause(error)}") from error


def damaged_chunk(array: zarr.Array, region: Any) -> str | None:
    """The file of the first chunk in a region that cannot be decoded; None if all can.

    `region`: slices without steps. Only called after a failure, because it reads chunks again.
    """
    metadata: Any = array.metadata
    edges: tuple[int, ...] = metadata.chunk_grid.chunk_shape
    if not isinstance(region, tuple) or not all(isinstance(part, slice) for part in region):
        return None
    parts = [*region, *[slice(None)] * (array.ndim - len(region))]
    spans = [part.indices(size)[:2] for part, size in zip(parts, array.shape, strict=True)]
    ranges = [range(b // edge, -(-e // edge)) for (b, e), edge in zip(spans, edges, strict=True)]
    for index in product(*ranges):
        chunk = tuple(slice(i * edge, (i + 1) * edge) for i, edge in zip(index, edges, strict=True))
        try:
            array[chunk]
        except Exception:
            return str(metadata.encode_chunk_key(index))
    return None


def open_zarr(store: CheckedStore | BlockStore, name: str, array: str, mip: int) -> ZarrVolume:
    """The array `array` of a store, or level `mip` of the OME-Zarr image `array`.

    `name`: the store's name in messages. DataError if there is no such array or level.
    """
    reader = store.reader if isinstance(store, BlockStore) else None
    label = f"{name}/{array}" if array else name
    node = _node(store, name, array)
    is_image = not isinstance(node, zarr.Array)
    if is_image:
        level = level_path(name, array, dict(node.attrs), mip, _array_names(store))
        node = _node(store, name, level)
    else:
        refuse_level(label, mip)
    if not isinstance(node, zarr.Array):
        raise DataError(f"{label}: level {mip} is not an array; write the image again")
    path, groups = _groups(store, node.path, node.metadata.zarr_format)
    label = f"{name}/{node.path}" if node.path else name
    refuse_large_chunk(label, node.chunks, node.dtype.itemsize)
    check_shards(label, node.shards or node.chunks, node.chunks)
    limit_codecs(label, node)
    if reader is not None:
        reader.expect_blocks(math.prod(node.shards or node.chunks) * node.dtype.itemsize)
    described = describe(label, path, _metadata(node), groups)
    if (folder := _local_folder(store)) is not None:
        described = with_dataset_properties(label, folder / node.path, described)
    # Many servers cannot list a streamed store.
    completeness = described.completeness if reader is None else "each chunk that is read"
    described = replace(described, drops_channel=is_image, completeness=completeness)
    return ZarrVolume(node, described, reader)


def _metadata(array: zarr.Array) -> ZarrArray:
    names = getattr(array.metadata, "dimension_names", None)
    order = byte_order_of(array.dtype)
    return ZarrArray(array.shape, array.dtype.name, order, dict(array.attrs), names)


def _groups(
    store: CheckedStore | BlockStore, path: str, zarr_format: int
) -> tuple[str, GroupAttributes]:
    """The path of an array below the top of its groups, and the attributes of each of them."""
    if (folder := _local_folder(store)) is not None:
        top, inner = with_outer_groups(folder, path)
        return inner, lambda group: attributes(top / group)
    assert isinstance(store, BlockStore)
    return path, partial(_group_attributes, store, zarr_format)


def _local_folder(store: CheckedStore | BlockStore) -> Path | None:
    """The folder of a store of this machine, None for a remote one."""
    if isinstance(store, CheckedStore):
        return store.root
    folder = store.reader.folder
    return folder.folder if isinstance(folder, LocalFolder) else None


def _group_attributes(store: BlockStore, zarr_format: int, path: str) -> Mapping[str, Any]:
    """The attributes of a group of a streamed store; empty where it has none."""
    name = "zarr.json" if zarr_format == 3 else ".zattrs"
    key = f"{path}/{name}" if path else name
    content = store.document(key)
    if content is None:
        return {}
    found = parse_json_object(content, f"{store}/{key}", "fetch the volume again")
    return found.get("attributes") or {} if zarr_format == 3 else found


def _array_names(store: CheckedStore | BlockStore) -> Iterable[str]:
    """The arrays of a store, for messages; none of a remote one, which cannot be listed."""
    folder = _local_folder(store)
    return () if folder is None else array_names(folder)


def _node(store: CheckedStore | BlockStore, name: str, array: str) -> zarr.Array | zarr.Group:
    """An array or group; consolidated metadata are not used, because they may be out of date."""
    if isinstance(store, CheckedStore) and (root := _root_array(store)) is not None:
        refuse_array(name, array)  # zarr ignores the name where the store itself is an array
        return root
    try:
        return zarr.open(store, path=array, mode="r", use_consolidated=False)
    except (KeyError, FileNotFoundError) as error:
        if isinstance(store, BlockStore) and store.denied is not None:
            raise store.denied from error
        raise DataError(f"{name} has no array {array!r}{_others(store, array)}") from error


def _root_array(store: CheckedStore) -> zarr.Array | None:
    """The store itself, if it is an array."""
    try:
        return zarr.open_array(store, mode="r")
    except (KeyError, FileNotFoundError, zarr.errors.NodeTypeValidationError):
        return None


def _others(store: CheckedStore | BlockStore, array: str) -> str:
    """The end of an error message: the arrays of a local store; remote stores cannot be listed."""
    if isinstance(store, BlockStore):
        return " that could be read; correct `path` and `array` in the dataset's config"
    return f"; {nearest(array, array_names(store.root))}"


def _is_zarr(path: Path) -> bool:
    """Whether a path is a zarr; an n5 dataset is none, whatever else is in its folder."""
    if not path.exists() or path.suffix == ".n5" or is_n5_dataset(path):
        return False
    return path.suffix == ".zarr" or any((path / name).exists() for name in ZARR_FILES)


def _open(path: Path, array: str, mip: int, check: FileCheck | None) -> ZarrVolume:
    """An array or a level of an image."""
    return open_zarr(CheckedStore(path, check), str(path), array, mip)


PAGE = FormatPage(
    title="Zarr, format 2 and 3",
    recognised_by="The suffix .zarr, or .zgroup, .zarray or zarr.json in the folder; an address "
    "with a part that ends in .zarr, or that begins with zarr://. `array` names the array.",
    axes=IN_ATTRIBUTES,
    voxel_size=IN_ATTRIBUTES,
    position=IN_ATTRIBUTES,
    byte_order="Stated by the type (2) or the codec `bytes` (3).",
    channels="An axis c; without names, the first of four axes.",
    codecs="Format 2: blosc, zstd, gzip, zlib, lz4, bz2, lzma; filters that keep the number of "
    "values; checksums. Format 3: blosc, zstd, gzip, sharding, transpose, crc32c.",
    completeness="Missing chunks are refused, unless `missing_chunks: fill`. A damaged chunk is "
    "noticed by its codec or by crc32c. Results of this workflow are compared with their manifest. "
    "Consolidated metadata are not used, because they may be out of date.",
    refused="Zip files, links, and groups that are no image, with the arrays to choose from.",
    conventions=(WEBKNOSSOS,),
)
ZARR = Reader("zarr", (".zarr",), (PAGE, ome_zarr.PAGE), _is_zarr, _open)
