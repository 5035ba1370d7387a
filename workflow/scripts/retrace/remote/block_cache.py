"""A bounded folder of blocks of remote volumes, shared by any number of processes.

A block is an object of the remote store (a chunk), or a byte range of one (a chunk of a shard). Its
file holds the stored bytes with a checksum. Its name is a digest of its address and of the metadata
of its array.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from retrace.errors import ConfigError, MachineError
from retrace.reading import if_intact, read_bytes
from retrace.remote.objects import Block

FOLDER_VARIABLE, GIB_VARIABLE = "RETRACE_BLOCKS", "RETRACE_BLOCKS_GIB"
THREADS_VARIABLE = "RETRACE_BLOCKS_THREADS"
"""Environment variables with the cache's folder, its size and the number of concurrent requests.

They are no settings of jobs: results do not depend on them, so a change must not rerun anything.
"""

BUCKETS = 64
"""Subfolders of the cache. Each limits its own size, without a look at the others."""
TOUCH_S = 30
"""A block used within this time after its last use is not marked as used again."""
LEAST_BYTES = 4096
"""Smallest size counted for a block: what a file takes on disk."""
ABANDONED_S = 3600
"""Partial files older than this are leftovers of interrupted processes."""
THREADS = 32


@dataclass(frozen=True)
class CacheOptions:
    """The cache's folder (None: no cache), its limit in bytes, and concurrent requests."""

    folder: Path | None = None
    limit_bytes: int = 0
    threads: int = THREADS

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> CacheOptions:
        """The options that the workflow sets; no cache without them.

        ConfigError for values that are not numbers.
        """
        folder = environment.get(FOLDER_VARIABLE)
        try:
            limit = int(float(environment.get(GIB_VARIABLE, 0)) * 2**30)
            threads = int(environment.get(THREADS_VARIABLE, THREADS))
        except ValueError as error:
            raise ConfigError(f"{GIB_VARIABLE} and {THREADS_VARIABLE}: {error}") from error
        return cls(Path(folder) if folder and limit else None, limit, threads)


class BlockCache:
    """Blocks in a folder of at most `limit_bytes`; the least recently used are removed first.

    Processes may share it: a block appears by a rename and disappears by an unlink, and its
    checksum is compared at every read, so that blocks need no locks. Only blocks that are being
    written at the moment take space beyond the limit.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder, self.bucket_limit_bytes = folder, limit_bytes // BUCKETS
        self._has_warned = False

    def _file(self, key: str) -> Path:
        return self.folder / f"{int(key[:4], 16) % BUCKETS:02d}" / key

    def get(self, key: str) -> Block | None:
        """The block of a key; None if it is absent or damaged, and then removed."""
        file = self._file(key)
        try:
            data = read_bytes(file)
            if time.time() - file.stat().st_mtime > TOUCH_S:
                os.utime(file)
        except (OSError, MachineError):
            return None
        block = unpack(data)
        if block is None:
            file.unlink(missing_ok=True)
        return block

    def put(self, key: str, block: Block) -> None:
        """Stores a block if it fits. A full disk disables the cache but does not stop the run."""
        file, data = self._file(key), pack(block)
        needed = max(len(data), LEAST_BYTES)
        if needed > self.bucket_limit_bytes:
            self._warn(
                f"a block of {needed} bytes exceeds 1/{BUCKETS} of the cache and is not kept; "
                "enlarge it"
            )
            return
        partial = file.with_name(f".{uuid4().hex}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(data)
            partial.replace(file)
            # After the rename: of several concurrent writers, the last one sees all blocks.
            self._limit(file.parent)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            self._warn(f"cannot be written ({error}); continuing without it")

    def _warn(self, message: str) -> None:
        """Prints the first warning of a process; further ones would only fill its log."""
        if not self._has_warned:
            print(f"[blocks] {self.folder}: {message}", flush=True)
        self._has_warned = True

    def _limit(self, bucket: Path) -> None:
        """Removes the least recently used blocks of a subfolder until the rest fits."""
        blocks, now = [], time.time()
        for entry in os.scandir(bucket):
            with suppress(FileNotFoundError):  # another process removed it
                stat = entry.stat()
                if not entry.name.startswith("."):
                    blocks.append((stat.st_mtime, max(stat.st_size, LEAST_BYTES), entry.path))
                elif now - stat.st_mtime > ABANDONED_S:
                    Path(entry.path).unlink(missing_ok=True)
        excess = sum(size for _, size, _ in blocks) - self.bucket_limit_bytes
        for _, size, path in sorted(blocks):
            if excess <= 0:
                break
            Path(path).unlink(missing_ok=True)
            excess -= size


def pack(block: Block) -> bytes:
    """A block as file content: checksum of the header, header (JSON), a newline, stored bytes."""
    header = {
        "asked": block.requested,
        "modified": block.modified,
        "etag": block.etag,
        "encoding": block.encoding,
        "absent": block.stored is None,
        "sha256": block.sha256,
    }
    line = json.dumps(header).encode()
    return b"%08x %s\n" % (zlib.crc32(line), line) + (block.stored or b"")


def unpack(data: bytes) -> Block | None:
    """The block in a file's content, None if the file is damaged."""
    line, _, body = data.partition(b"\n")
    return if_intact(lambda: _unpacked(line, body), "a block")


def _unpacked(line: bytes, body: bytes) -> Block:
    """The block with the header `line`; ValueError if a checksum differs."""
    if int(line[:8], 16) != zlib.crc32(line[9:]):
        raise ValueError("the checksum of the header differs")
    header = json.loads(line[9:])
    stored = None if header["absent"] else body
    block = Block(stored, *(header[name] for name in ("asked", "modified", "etag", "encoding")))
    if block.sha256 != header["sha256"]:
        raise ValueError("the checksum differs")
    return block
