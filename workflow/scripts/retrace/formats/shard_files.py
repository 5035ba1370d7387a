"""Shard files of zarr format 3: the chunks of a part of an array in one file, with an index.

Format: zarr-specs.readthedocs.io, codec `sharding_indexed` 1.0. A shard is written once, from
chunks that are encoded already; its index is at the end and has a checksum. numpy is imported
late, because planning reads manifests where only the standard library is installed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrace.reading import GET_AGAIN, DamagedError, read_json_object, retried

if TYPE_CHECKING:
    import numpy as np

ARRAY_DOCUMENT = "zarr.json"
"""The metadata file of an array or group of format 3."""
SHARDING = "sharding_indexed"
ABSENT = 2**64 - 1
"""Offset and size in an index of a chunk that is not in the file."""
CRC_BYTES = 4

Index = tuple[int, ...]


@dataclass(frozen=True)
class ShardLayout:
    """Shapes of an array, its chunks, and its shards, which hold whole chunks."""

    shape: Index
    chunks: Index
    shards: Index

    @property
    def chunks_per_shard(self) -> Index:
        """Chunks along each axis of a shard."""
        return tuple(s // c for s, c in zip(self.shards, self.chunks, strict=True))

    @property
    def index_bytes(self) -> int:
        """Bytes of the index at the end of a shard file."""
        return 16 * math.prod(self.chunks_per_shard) + CRC_BYTES

    def shard_of(self, chunk: Sequence[int]) -> Index:
        """The shard that a chunk belongs to."""
        return tuple(i // n for i, n in zip(chunk, self.chunks_per_shard, strict=True))

    def slot_of(self, chunk: Sequence[int]) -> int:
        """The row of a chunk in the index of its shard."""
        row = 0
        for position, count in zip(chunk, self.chunks_per_shard, strict=True):
            row = row * count + position % count
        return row

    def chunks_in(self, shard: Sequence[int]) -> list[Index]:
        """The chunks of a shard that have voxels of the array; the last axis varies fastest."""
        axes = zip(shard, self.chunks_per_shard, self.shape, self.chunks, strict=True)
        ranges = [range(s * n, min((s + 1) * n, -(-size // c))) for s, n, size, c in axes]
        return list(product(*ranges))

    def all_shards(self) -> list[Index]:
        """All shards of the array."""
        return self.shards_within([0] * len(self.shape), self.shape)

    def shards_within(self, begin: Sequence[int], end: Sequence[int]) -> list[Index]:
        """The shards that have voxels between two corners of the array."""
        axes = zip(begin, end, self.shards, strict=True)
        return list(product(*(range(b // edge, -(-e // edge)) for b, e, edge in axes)))


def read_document(folder: Path) -> dict[str, Any]:
    """The metadata of an array or group of format 3; empty for other folders."""
    try:
        return read_json_object(folder / ARRAY_DOCUMENT)
    except (FileNotFoundError, NotADirectoryError):
        return {}


def is_array(document: Mapping[str, Any]) -> bool:
    """Whether metadata of format 3 are those of an array, not of a group."""
    return document.get("node_type") == "array"


def shard_layout(document: Mapping[str, Any]) -> ShardLayout | None:
    """The layout in an array's metadata; None for arrays without shards.

    None, too, where chunks have other names than usual, or the index is written in another way.
    """
    codecs = document.get("codecs") or [{}]
    if not is_array(document) or codecs[0].get("name") != SHARDING:
        return None
    inner = codecs[0]["configuration"]
    index = [codec["name"] for codec in inner["index_codecs"]]
    keys = document.get("chunk_key_encoding", {})
    is_usual = keys.get("name") == "default" and (
        keys.get("configuration", {}).get("separator", "/") == "/"
    )
    at_end = inner.get("index_location", "end") == "end"
    if index != ["bytes", "crc32c"] or not at_end or not is_usual:
        return None
    return ShardLayout(
        tuple(document["shape"]),
        tuple(inner["chunk_shape"]),
        tuple(document["chunk_grid"]["configuration"]["chunk_shape"]),
    )


def shard_file(array_folder: Path, shard: Sequence[int]) -> Path:
    """The file of a shard in an array with the default names of chunks."""
    return array_folder.joinpath("c", *map(str, shard))


def read_index(file: Path, layout: ShardLayout) -> np.ndarray:
    """Offset and size of every chunk of a shard (chunks, 2) uint64; ABSENT twice without a chunk.

    DamagedError for an index that is cut or has another checksum.
    """
    import google_crc32c
    import numpy as np

    tail = retried(lambda: _last_bytes(file, layout.index_bytes), file)
    rows, crc = tail[:-CRC_BYTES], tail[-CRC_BYTES:]
    is_whole = len(tail) == layout.index_bytes
    if not is_whole or google_crc32c.value(rows) != int.from_bytes(crc, "little"):
        raise DamagedError(file, "has no valid index of its chunks", GET_AGAIN)
    return np.frombuffer(rows, "<u8").reshape(-1, 2)


def _last_bytes(file: Path, count: int) -> bytes:
    with file.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, size - count))
        return opened.read()


def read_chunk(file: Path, layout: ShardLayout, chunk: Sequence[int]) -> bytes | None:
    """The encoded bytes of one chunk, None if the shard or the chunk does not exist."""
    if not file.is_file():
        return None
    offset, size = (int(n) for n in read_index(file, layout)[layout.slot_of(chunk)])
    if offset == ABSENT:
        return None
    with file.open("rb") as opened:
        opened.seek(offset)
        return opened.read(size)


def write_shard(
    file: Path,
    layout: ShardLayout,
    chunks: Sequence[Index],
    encoded: Callable[[Index], bytes],
) -> None:
    """Writes a shard atomically from the `encoded` bytes of its chunks, one in memory at a time."""
    import google_crc32c
    import numpy as np

    index = np.full((math.prod(layout.chunks_per_shard), 2), ABSENT, "<u8")
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    with partial.open("wb") as opened:
        for chunk in chunks:
            begin = opened.tell()
            opened.write(encoded(chunk))
            index[layout.slot_of(chunk)] = begin, opened.tell() - begin
        rows = index.tobytes()
        opened.write(rows + google_crc32c.value(rows).to_bytes(CRC_BYTES, "little"))
    partial.replace(file)


def absent_chunks_of(file: Path, layout: ShardLayout, shard: Sequence[int]) -> list[Index]:
    """The chunks of the array that a shard file should have and has not."""
    index = read_index(file, layout)
    expected = layout.chunks_in(shard)
    return [chunk for chunk in expected if int(index[layout.slot_of(chunk), 0]) == ABSENT]


def pieces(file: Path, layout: ShardLayout) -> Iterator[tuple[int, int]]:
    """First byte and end of each piece: the chunks, the index, and what may lie between them.

    Together they are all bytes of the file. A damaged index makes the file one piece.
    """
    size = file.stat().st_size
    try:
        rows = read_index(file, layout)
    except DamagedError:
        yield 0, size
        return
    stored = sorted((int(o), int(o + n)) for o, n in rows if int(o) != ABSENT and n)
    position = 0
    for begin, end in [*stored, (size - layout.index_bytes, size)]:
        if begin > position:
            yield position, begin
        if end > max(position, begin):
            yield max(position, begin), end
        position = max(position, end)
