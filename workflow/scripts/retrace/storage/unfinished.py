"""Stores that are written block by block: chunks first, each shard once, when it is complete.

While a store is unfinished, its arrays with shards appear as arrays without: each chunk is a file
of its own, in the hidden folder `.chunks`, so that blocks can be written in parallel and checked
after an interruption. As soon as a shard has all of its chunks, they become one file. `finish`
does that for the rest before a store is published. Arrays of format 2, and of format 3 without
shards, are written where they are.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import zarr
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype

from retrace.errors import DataError
from retrace.files import atomic_write
from retrace.formats.shard_files import (
    ARRAY_DOCUMENT,
    Index,
    ShardLayout,
    read_chunk,
    read_document,
    shard_file,
    shard_layout,
    write_shard,
)
from retrace.formats.zarr_arrays import SynchronousStore
from retrace.reading import DamagedError, read_bytes
from retrace.replacement import sync_tree

V2_DOCUMENT = ".zarray"
CHUNKS_FOLDER = ".chunks"
"""Folder in an unfinished array that holds the chunks of incomplete shards."""
_KEY = re.compile(r"(?:(?P<array>.*?)/)?c/(?P<index>[0-9]+(?:/[0-9]+)*)")


@dataclass(frozen=True)
class ShardedArray:
    """An array with shards in the folder of an unfinished store."""

    folder: Path
    layout: ShardLayout

    def loose_folder(self, shard: Sequence[int]) -> Path:
        """Where the chunks of an incomplete shard are."""
        return self.folder / CHUNKS_FOLDER / ".".join(map(str, shard))

    def loose(self, chunk: Sequence[int]) -> Path:
        """The file of one chunk of an incomplete shard."""
        return self.loose_folder(self.layout.shard_of(chunk)) / ".".join(map(str, chunk))

    def loose_chunks(self, shard: Sequence[int]) -> set[Index]:
        """The chunks that have a file of their own."""
        folder = self.loose_folder(shard)
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return {tuple(map(int, n.split("."))) for n in names if not n.endswith(".partial")}

    def begun_shards(self) -> list[Index]:
        """The shards with chunks in files of their own."""
        folder = self.folder / CHUNKS_FOLDER
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted(tuple(map(int, name.split("."))) for name in names)

    def encoded(self, chunk: Sequence[int]) -> bytes | None:
        """The bytes of a chunk, in its own file or in its shard; None if it is not written."""
        try:
            return read_bytes(self.loose(chunk))
        except FileNotFoundError:
            file = shard_file(self.folder, self.layout.shard_of(chunk))
            return read_chunk(file, self.layout, chunk)

    def write(self, shard: Sequence[int]) -> None:
        """Puts all chunks of a shard into its file; DataError if one is not written."""

        def stored(chunk: Index) -> bytes:
            content = self.encoded(chunk)
            if content is None:
                raise DataError(
                    f"{self.folder}: chunk {list(chunk)} of shard {list(shard)} is not written; "
                    "delete this unfinished store and run the same command again"
                )
            return content

        file = shard_file(self.folder, shard)
        write_shard(file, self.layout, self.layout.chunks_in(shard), stored)
        shutil.rmtree(self.loose_folder(shard))

    def write_complete(self, begin: Sequence[int], end: Sequence[int]) -> None:
        """Writes the shards between two corners of the array that have all of their chunks.

        Those that have a file already wait for `finish`, so that none is written many times.
        """
        for shard in self.layout.shards_within(begin, end):
            if shard_file(self.folder, shard).is_file():
                continue
            if len(self.loose_chunks(shard)) == len(self.layout.chunks_in(shard)):
                self.write(shard)

    def drop(self, chunk: Sequence[int]) -> None:
        """Deletes one chunk; the others of its shard become files of their own again."""
        file = shard_file(self.folder, self.layout.shard_of(chunk))
        if self.loose(chunk).is_file() or not file.is_file():
            self.loose(chunk).unlink(missing_ok=True)
            return
        with suppress(DamagedError):  # without its index, no chunk of a shard can be found
            for other in self.layout.chunks_in(self.layout.shard_of(chunk)):
                content = None if other == tuple(chunk) else self.encoded(other)
                if content is not None:
                    self.loose(other).parent.mkdir(parents=True, exist_ok=True)
                    self.loose(other).write_bytes(content)
        file.unlink()


def sharded_array(folder: Path) -> ShardedArray | None:
    """The array in a folder, None if it has no shards."""
    layout = shard_layout(read_document(folder))
    return None if layout is None else ShardedArray(folder, layout)


class UnfinishedStore(SynchronousStore):
    """A zarr folder that is being written: its arrays with shards appear as arrays without."""

    def __init__(self, root: Path | str, *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self._arrays: dict[str, ShardedArray | None] = {}
        self.writing_shards = Lock()

    def array(self, name: str) -> ShardedArray | None:
        """The array `name`, None if it has no shards."""
        if name not in self._arrays:
            self._arrays[name] = sharded_array(self.root / name)
        return self._arrays[name]

    def _chunk(self, key: str) -> tuple[ShardedArray, Index] | None:
        """The array with shards and the chunk that a key names; None for other keys."""
        match = _KEY.fullmatch(key)
        array = self.array(match["array"] or "") if match else None
        return (array, tuple(map(int, match["index"].split("/")))) if match and array else None

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """A file, with the metadata of an array without shards; a chunk from wherever it is."""
        chosen = prototype or default_buffer_prototype()
        if place := self._chunk(key):
            content = place[0].encoded(place[1])
            return None if content is None else chosen.buffer.from_bytes(content)
        stored = super().get_sync(key, prototype=chosen, byte_range=byte_range)
        change = _CHANGES.get(key.rpartition("/")[2])
        if stored is None or change is None:
            return stored
        document = change(json.loads(stored.to_bytes()))
        return chosen.buffer.from_bytes(json.dumps(document).encode())

    def _placed(self, key: str, value: Buffer) -> tuple[str, Buffer]:
        """Where a value is written, and what: of an array's metadata only the attributes change."""
        if place := self._chunk(key):
            return place[0].loose(place[1]).relative_to(self.root).as_posix(), value
        folder, _, name = key.rpartition("/")
        if name == ARRAY_DOCUMENT and (array := self.array(folder)):
            changed = json.loads(value.to_bytes())["attributes"]
            document = read_document(array.folder) | {"attributes": changed}
            content = json.dumps(document, indent=2).encode()
            return key, default_buffer_prototype().buffer.from_bytes(content)
        return key, value

    def set_sync(self, key: str, value: Buffer) -> None:
        """Writes a file; a chunk of an array with shards gets one of its own."""
        super().set_sync(*self._placed(key, value))

    async def _set(self, key: str, value: Buffer, exclusive: bool = False) -> None:
        await super()._set(*self._placed(key, value), exclusive=exclusive)


def _without_shards(document: dict[str, Any]) -> dict[str, Any]:
    """The metadata of an array whose chunks are those inside the shards."""
    layout = shard_layout(document)
    if layout is None:
        return document
    grid = {"name": "regular", "configuration": {"chunk_shape": list(layout.chunks)}}
    inner = document["codecs"][0]["configuration"]["codecs"]
    return {**document, "chunk_grid": grid, "codecs": inner}


def _with_checksum(document: dict[str, Any]) -> dict[str, Any]:
    """The metadata of an array of format 2, whose chunks get a checksum."""
    compressor = document.get("compressor") or {}
    if compressor.get("id") != "zstd":
        return document
    return {**document, "compressor": {**compressor, "checksum": True}}


def hide_checksum(array: zarr.Array) -> None:
    """Removes from the metadata of a new array of format 2 that its chunks have a checksum.

    A chunk says so itself, so every reader verifies it. tensorstore refuses the additional entry.
    """
    root = getattr(array.store_path.store, "root", None)
    file = None if root is None else root / array.path / V2_DOCUMENT
    if file is None or not file.is_file():
        return
    document = json.loads(file.read_text())
    (document["compressor"] or {}).pop("checksum", None)
    file.write_text(json.dumps(document, indent=4))


_CHANGES = {ARRAY_DOCUMENT: _without_shards, V2_DOCUMENT: _with_checksum}
"""By metadata file how an array that is being written is described."""


def remove_partial_files(store: Path) -> None:
    """Removes the half-written files of an interrupted run."""
    for file in store.rglob("*.partial"):
        file.unlink()


def note_begun(store: Path, begun: Path, state: Any) -> None:
    """Writes to `begun` what a job needs to resume the new `store`, once that is on the disk.

    Otherwise a power cut could leave a store that is to be resumed and cannot be opened.
    """
    sync_tree(store)
    atomic_write(begun, json.dumps(state))


def open_unfinished(store: Path) -> zarr.Group:
    """The group of a store that is being written block by block."""
    return zarr.open_group(UnfinishedStore(store), mode="r+")


def _of(array: zarr.Array) -> tuple[UnfinishedStore, ShardedArray] | None:
    """The store and the files of an array of `open_unfinished`, None for other arrays."""
    store = array.store_path.store
    sharded = store.array(array.path) if isinstance(store, UnfinishedStore) else None
    return (store, sharded) if isinstance(store, UnfinishedStore) and sharded else None


def write_complete_shards(array: zarr.Array, region: tuple[slice, ...]) -> None:
    """Writes the shards that have all of their chunks and touch a region that was written.

    Does nothing for arrays without shards.
    """
    if found := _of(array):
        store, sharded = found
        spans = [s.indices(size)[:2] for s, size in zip(region, array.shape, strict=True)]
        with store.writing_shards:
            sharded.write_complete([b for b, _ in spans], [e for _, e in spans])


def drop_chunk(array: zarr.Array, folder: Path, index: Sequence[int]) -> None:
    """Deletes a chunk of an array that is being written; `folder`: the array's."""
    if found := _of(array):
        found[1].drop(index)
        return
    folder.joinpath(array.metadata.encode_chunk_key(tuple(index))).unlink(missing_ok=True)


def _array_folders(store: Path) -> Iterator[Path]:
    """The folders of the arrays of a store of format 3; folders of chunks are not entered."""
    document = read_document(store)
    if document.get("node_type") == "array":
        yield store
    elif document:
        for folder in sorted(path for path in store.iterdir() if path.is_dir()):
            yield from _array_folders(folder)


def finish(store: Path) -> None:
    """Writes the shards that are not written yet, and removes the folders of chunks.

    DataError if a shard misses a chunk. Does nothing for stores without shards.
    """
    for folder in _array_folders(store):
        if array := sharded_array(folder):
            for shard in array.begun_shards():
                if array.loose_chunks(shard) or not shard_file(folder, shard).is_file():
                    array.write(shard)
            shutil.rmtree(folder / CHUNKS_FOLDER, ignore_errors=True)
