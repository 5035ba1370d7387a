"""The SHA-256 of every chunk of a store, in a file next to its manifest.

The manifest has one digest for all chunks of an array; the index has one for each chunk, so that a
job can check the bytes that it reads, and no others. An index counts only if it agrees with the
manifest: without one, it is computed again.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from retrace.files import atomic_write
from retrace.reading import existing_bytes, files_below, if_intact, read_bytes, unzipped

ChunkDigests = dict[str, bytes]
"""SHA-256 of each chunk file, by its path below the array's folder, sorted."""


def chunk_files(array_folder: Path) -> list[Path]:
    """The chunk files of an array, sorted, without metadata and partially written files."""
    files = files_below(array_folder)
    return [f for f in files if not (f.name.startswith(".") or f.name.endswith(".partial"))]


def _file_digest(path: Path) -> bytes:
    return hashlib.sha256(read_bytes(path)).digest()


def chunk_digests(array_folder: Path) -> ChunkDigests:
    """The digests of all chunks of an array; reads every byte."""
    files = chunk_files(array_folder)
    with ThreadPoolExecutor(4) as pool:
        digests = list(pool.map(_file_digest, files))
    names = (path.relative_to(array_folder).as_posix() for path in files)
    return dict(zip(names, digests, strict=True))


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
