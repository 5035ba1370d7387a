"""The SHA-256 of every chunk of a store, in a file next to its manifest.

The manifest has one digest for all chunks of an array; the index has one for each chunk, also for
those inside a shard, so that a job can check the bytes that it reads, and no others. An index
counts only if it agrees with the manifest: without one, it is computed again.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from retrace.files import PIECE, atomic_write, piece_name
from retrace.formats.shard_files import (
    ARRAY_DOCUMENT,
    ShardLayout,
    pieces,
    read_document,
    shard_layout,
)
from retrace.many_files import in_threads
from retrace.reading import (
    existing_bytes,
    files_below,
    if_intact,
    read_bytes,
    retried,
    unzipped,
)

THREADS = 4
ChunkDigests = dict[str, bytes]
"""SHA-256 of each chunk file, by its path below the array's folder, sorted; of a shard those of its
pieces (`retrace.formats.shard_files`), one after the other."""


def chunk_files(array_folder: Path) -> list[Path]:
    """The chunk files of an array, sorted, without metadata and partially written files."""
    return [file for file in files_below(array_folder) if is_chunk_file(file.name)]


def is_chunk_file(name: str) -> bool:
    """Whether a file in an array's folder is a chunk: no metadata, and not partially written."""
    return not (name.startswith(".") or name.endswith(".partial") or name == ARRAY_DOCUMENT)


def file_digests(file: Path, name: str, layout: ShardLayout | None) -> ChunkDigests:
    """The digest of a chunk file, called `name`, or those of the pieces of a shard."""
    if layout is None:
        return {name: hashlib.sha256(read_bytes(file)).digest()}
    return retried(lambda: _piece_digests(file, name, layout), file)


def _piece_digests(file: Path, name: str, layout: ShardLayout) -> ChunkDigests:
    digests = {}
    with file.open("rb") as opened:
        for begin, end in pieces(file, layout):
            opened.seek(begin)
            content = opened.read(end - begin)
            digests[piece_name(name, begin, end)] = hashlib.sha256(content).digest()
    return digests


def chunk_digests(array_folder: Path, known: Mapping[str, bytes] | None = None) -> ChunkDigests:
    """The digests of all chunks of an array; reads every byte, but of `known` chunk files.

    `known`: SHA-256 of files whose bytes the caller has just written, by name as in the result.
    """
    files, layout = chunk_files(array_folder), shard_layout(read_document(array_folder))

    def digests(file: Path) -> ChunkDigests:
        name = file.relative_to(array_folder).as_posix()
        if layout is None and known and name in known:
            return {name: known[name]}
        return file_digests(file, name, layout)

    parts = in_threads(digests, files, THREADS)
    return {name: digest for part in parts for name, digest in part.items()}


def files_of(digests: Iterable[str]) -> list[str]:
    """The names of the files whose digests these are, each once."""
    return list(dict.fromkeys(name.partition(PIECE)[0] for name in digests))


def digest_of_chunks(digests: Mapping[str, bytes]) -> str:
    """One digest for all chunks of an array, as manifests contain it (hex)."""
    total = hashlib.sha256()
    for name, digest in digests.items():
        total.update(name.encode() + b"\0" + digest)
    return total.hexdigest()


def index_path(store: Path) -> Path:
    """`x/prediction.zarr` -> `x/.prediction.chunks.gz`."""
    return store.with_name(f".{store.stem}.chunks.gz")


def write_index(store: Path, arrays: Mapping[str, ChunkDigests]) -> None:
    """Writes the digests of each array of a store; does nothing where that is not allowed."""
    content = {
        name: {chunk: digest.hex() for chunk, digest in digests.items()}
        for name, digests in arrays.items()
    }
    text = json.dumps(content, separators=(",", ":"))
    with suppress(OSError):
        atomic_write(index_path(store), gzip.compress(text.encode(), compresslevel=1, mtime=0))


def read_index(store: Path) -> dict[str, ChunkDigests]:
    """The digests of each array; empty if there is no index, or a damaged one."""
    path = index_path(store)
    content = existing_bytes(path)
    if content is None:
        return {}
    packed = content
    return if_intact(lambda: _unpacked(packed), path) or {}


def _unpacked(packed: bytes) -> dict[str, ChunkDigests]:
    """The inverse of `write_index`."""
    content = json.loads(unzipped(packed))
    return {
        name: {chunk: bytes.fromhex(digest) for chunk, digest in digests.items()}
        for name, digests in content.items()
    }
