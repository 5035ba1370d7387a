"""Blocks of volumes that lie elsewhere, through a bounded cache that processes share.

A block is one object of the remote store (a chunk), or a part of a shard. It is kept on disk as it
came, with a checksum, under a name made of its address and of the metadata of its array.

What a program read is recorded: every block by its digest, and when all of it was there together.
A block is certainly the same from its last change to the moment it was asked for. Where these spans
have no moment in common, or a block comes back with other bytes, the volume was changed meanwhile,
and ChangedError says so rather than mixing both.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from retrace.errors import ConfigError, DataError
from retrace.files import atomic_write
from retrace.remote.objects import Block, Part, Remote, get_block

FOLDER_VARIABLE, GIB_VARIABLE = "RETRACE_BLOCKS", "RETRACE_BLOCKS_GIB"
THREADS_VARIABLE = "RETRACE_BLOCKS_THREADS"
"""How the workflow tells every program where the cache is, how large, and how much is asked for at
once: these change neither settings nor results, and must not make anything again."""

BUCKETS = 64
"""Folders of the cache, each of which keeps to its share of the size without looking at others."""
TOUCH_S = 30
"""A block that is used again so soon after is not noted as used again."""
LEAST_BYTES = 4096
"""What a block counts at least: file systems give no less to a file."""
ABANDONED_S = 3600
"""A half-written file of that age was left by a process that was killed."""
MEMORY_BYTES = 1 << 28
"""Blocks that a reader keeps in memory as they came: neighbouring tiles share them."""
THREADS = 32
DOCUMENTS = (".zarray", ".zattrs", ".zgroup", "zarr.json", "info")
"""Metadata: asked for again by every program, and never kept."""
LAYOUTS = (".zarray", "zarr.json", "info")
"""Metadata without which a block means nothing."""


class ChangedError(DataError):
    """A volume that was changed while it was read."""


@dataclass(frozen=True)
class Options:
    """Where blocks are kept (None: nowhere), how many bytes of them, and requests at a time."""

    folder: Path | None = None
    limit_bytes: int = 0
    threads: int = THREADS

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Options:
        """What the workflow asks for; without it there is no cache. ConfigError for no numbers."""
        folder = environment.get(FOLDER_VARIABLE)
        try:
            limit = int(float(environment.get(GIB_VARIABLE, 0)) * 2**30)
            threads = int(environment.get(THREADS_VARIABLE, THREADS))
        except ValueError as error:
            raise ConfigError(f"{GIB_VARIABLE} and {THREADS_VARIABLE}: {error}") from error
        return cls(Path(folder) if folder and limit else None, limit, threads)


class BlockCache:
    """Blocks in a folder, no more than `limit_bytes` of them; the least recently used go first.

    Any number of processes may share it: a block appears whole by a rename, is compared with its
    checksum whenever it is read, and vanishes by an unlink. Besides the limit only blocks that are
    being written at that moment take space.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder, self.share = folder, limit_bytes // BUCKETS
        self._said = False
        self._marking = threading.Lock()

    def _file(self, key: str) -> Path:
        return self.folder / f"{int(key[:4], 16) % BUCKETS:02d}" / key

    def get(self, key: str, since: int = 0) -> Block | None:
        """The block of that key, None where it is absent, damaged, or was asked for before `since`.

        A damaged or outdated one is removed.
        """
        file = self._file(key)
        try:
            data = file.read_bytes()
            if time.time() - file.stat().st_mtime > TOUCH_S:
                os.utime(file)
        except OSError:
            return None
        block = unpacked(data)
        if block is None or block.asked < since:
            file.unlink(missing_ok=True)
            return None
        return block

    def put(self, key: str, block: Block) -> None:
        """Keeps a block where it fits; a full disk costs the cache, not the run."""
        file, data = self._file(key), packed(block)
        needed = max(len(data), LEAST_BYTES)
        if needed > self.share:
            self._say(f"a block of {needed} bytes is more than a {BUCKETS}th of it; enlarge it")
            return
        partial = file.with_name(f".{uuid4().hex}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(data)
            partial.replace(file)
            # Afterwards: of those that write at the same time, the last to look sees all of it.
            self._keep_to_share(file.parent)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            self._say(f"it cannot be written ({error}); going on without it")

    def _say(self, what: str) -> None:
        """One line a process: what does not stop the work need not fill its log."""
        if not self._said:
            print(f"[blocks] {self.folder}: {what}", flush=True)
        self._said = True

    def _keep_to_share(self, bucket: Path) -> None:
        """Removes the least recently used blocks of a folder until the rest is within its share."""
        blocks, now = [], time.time()
        for entry in os.scandir(bucket):
            with suppress(FileNotFoundError):  # another process removed it
                found = entry.stat()
                if not entry.name.startswith("."):
                    blocks.append((found.st_mtime, max(found.st_size, LEAST_BYTES), entry.path))
                elif now - found.st_mtime > ABANDONED_S:
                    Path(entry.path).unlink(missing_ok=True)
        excess = sum(size for _, size, _ in blocks) - self.share
        for _, size, path in sorted(blocks):
            if excess <= 0:
                break
            Path(path).unlink(missing_ok=True)
            excess -= size

    def _mark(self, url: str) -> Path:
        return self.folder / "changed" / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"

    def changed(self, url: str) -> int:
        """When a volume is known to have been changed last; what was read before is not used."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            return int(json.loads(self._mark(url).read_text())["changed"])
        return 0

    def mark_changed(self, url: str, moment: int) -> None:
        """Notes that a volume was changed at that moment."""
        with self._marking:  # so that no earlier moment is written after a later one
            if moment <= self.changed(url):
                return
            try:
                atomic_write(self._mark(url), json.dumps({"url": url, "changed": moment}))
            except OSError as error:
                self._say(f"it cannot be written ({error}); going on without it")


def packed(block: Block) -> bytes:
    """A block as a file: a checksum of the line of facts, the facts, a newline, the bytes."""
    facts = {
        "asked": block.asked,
        "modified": block.modified,
        "etag": block.etag,
        "encoding": block.encoding,
        "absent": block.stored is None,
        "sha256": block.sha256,
    }
    line = json.dumps(facts).encode()
    return b"%08x %s\n" % (zlib.crc32(line), line) + (block.stored or b"")


def unpacked(data: bytes) -> Block | None:
    """The block that a file holds, None where it is damaged."""
    line, newline, body = data.partition(b"\n")
    try:
        if not newline or int(line[:8], 16) != zlib.crc32(line[9:]):
            return None
        facts = json.loads(line[9:])
    except ValueError:
        return None
    stored = None if facts["absent"] else body
    block = Block(stored, *(facts[name] for name in ("asked", "modified", "etag", "encoding")))
    return block if block.sha256 == facts["sha256"] else None


class Record:
    """What was read of one volume, and when all of it was there together."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.last_change, self.first_asked = 0, 2**62
        self._digests: dict[str, str] = {}
        self._documents: dict[str, dict[str, str]] = {}
        self._lines: list[str] = []
        self._file: Path | None = None
        self._lock = threading.Lock()

    def keep(self, file: Path) -> None:
        """Notes every block in `file` before it is used, and takes up what an earlier run noted.

        ChangedError where the two do not agree.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = file.read_text().splitlines() if file.is_file() else []
        with self._lock:
            waiting, self._lines, self._file = self._lines, [], file
            for line in lines:
                with suppress(ValueError):  # a last line that a kill cut short
                    self._take(*json.loads(line))
            # A line of its own, whatever a kill left of the one before.
            self._write("\n" + "".join(waiting))

    def note(self, name: str, block: Block) -> None:
        """Notes that a block was read; ChangedError where it was not there with all others."""
        with self._lock:
            digest = block.sha256
            if self._digests.get(name) == digest and not self._narrows(block):
                return
            if name.rpartition("/")[2] in DOCUMENTS:
                self._documents[name] = {"sha256": digest, "etag": block.etag}
            fact = (name, digest, block.modified, block.asked)
            self._take(*fact)
            self._write(json.dumps(fact) + "\n")

    def _narrows(self, block: Block) -> bool:
        return (block.modified or 0) > self.last_change or block.asked < self.first_asked

    def _write(self, text: str) -> None:
        if self._file is None:
            self._lines.append(text)
            return
        with self._file.open("a") as file:
            file.write(text)

    def _take(self, name: str, digest: str, modified: int | None, asked: int) -> None:
        before = self._digests.setdefault(name, digest)
        self.last_change = max(self.last_change, modified or 0)
        self.first_asked = min(self.first_asked, asked)
        if before != digest:
            self.last_change = max(self.last_change, asked)
            raise ChangedError(f"{self.url}: {name!r} has other bytes than before. {AGAIN}")
        if self.last_change > self.first_asked:
            raise ChangedError(
                f"{self.url}: {name!r} was changed at {_utc(modified or 0)}, after the first of "
                f"the other blocks were read at {_utc(self.first_asked)}. {AGAIN}"
            )

    @property
    def edition(self) -> str:
        """A digest of the metadata: another one, another volume."""
        return _digest(sorted((n, d["sha256"]) for n, d in self._documents.items()))

    def summary(self) -> dict[str, Any]:
        """For a manifest: digests of the metadata and over all blocks, and when they were there."""
        with self._lock:
            listed = sorted(self._digests.items())
        blocks = [(name, digest) for name, digest in listed if name not in self._documents]
        return {
            "sha256": _digest(listed),
            "documents": {n: d for n, d in sorted(self._documents.items()) if d["sha256"]},
            "blocks": len(blocks),
            "absent_blocks": sum(not digest for _, digest in blocks),
            "unchanged_since": _utc(self.last_change) if self.last_change else None,
            "read_from": _utc(self.first_asked),
        }


def joined(records: Sequence[Record]) -> Record:
    """One record of all that several readers of one volume read.

    ChangedError where what they read was never there together.
    """
    whole = Record(records[0].url)
    for record in records:
        with record._lock:
            listed = dict(record._digests)
            whole._documents |= record._documents
        for name, digest in listed.items():
            whole._take(name, digest, record.last_change, record.first_asked)
    return whole


AGAIN = (
    "The volume was changed while it was read, and a result would mix what it was with what it is. "
    "Run the same command again: all of it is then read anew"
)


def _utc(moment: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


class BlockReader:
    """Objects below one address: through memory, the cache on disk, and then the network."""

    def __init__(self, remote: Remote, options: Options, *, on_disk: bool = True) -> None:
        """`on_disk=False`: not through the cache, as for what lies on this machine already."""
        self.remote, self.threads = remote, options.threads
        folder = options.folder if on_disk else None
        self.cache = BlockCache(folder, options.limit_bytes) if folder else None
        self.since = self.cache.changed(remote.url) if self.cache else 0
        self.record = Record(remote.url)
        self.pool = ThreadPoolExecutor(options.threads, thread_name_prefix="blocks")
        self._layout = ""
        self._memory: OrderedDict[str, Block] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()

    def document(self, name: str) -> bytes | None:
        """Metadata, always as it is now; None where there is none."""
        block = self._asked(name)
        self._note(name, block)
        if name.rpartition("/")[2] in LAYOUTS and block.stored is not None:
            self._layout = block.sha256
        return block.content()

    def block(self, name: str, part: Part | None = None) -> bytes | None:
        """An object or a part of one, None where there is none.

        FetchError where it cannot be had, ChangedError where the volume was changed meanwhile.
        """
        label = name if part is None else f"{name} {part[0]}+{part[1]}"
        block = self._remembered(label) or self._cached(label) or self._fetched(name, part, label)
        self._note(label, block)
        self._remember(label, block)
        return block.content()

    def _key(self, label: str) -> str:
        whole = "\0".join((self.remote.url, self._layout, label))
        return hashlib.sha256(whole.encode()).hexdigest()

    def _cached(self, label: str) -> Block | None:
        return self.cache.get(self._key(label), self.since) if self.cache else None

    def _fetched(self, name: str, part: Part | None, label: str) -> Block:
        block = self._asked(name, part)
        if self.cache:
            self.cache.put(self._key(label), block)
        return block

    def _asked(self, name: str, part: Part | None = None) -> Block:
        """A block as it is now; older ones than its last change may be of before it."""
        block = get_block(self.remote, name, part)
        if self.cache and (block.modified or 0) > self.since:
            self.since = block.modified or 0
            self.cache.mark_changed(self.remote.url, self.since)
        return block

    def keep(self, file: Path) -> None:
        """`Record.keep`; what is cached is then no longer used where ChangedError is raised."""
        with self._marking():
            self.record.keep(file)

    def _note(self, label: str, block: Block) -> None:
        with self._marking():
            self.record.note(label, block)

    @contextmanager
    def _marking(self) -> Iterator[None]:
        try:
            yield
        except ChangedError:
            if self.cache:  # what was asked for in that same second may be either
                self.cache.mark_changed(self.remote.url, self.record.last_change + 1)
            raise

    def _remembered(self, label: str) -> Block | None:
        with self._lock:
            if label in self._memory:
                self._memory.move_to_end(label)
            return self._memory.get(label)

    def _remember(self, label: str, block: Block) -> None:
        with self._lock:
            if label not in self._memory:
                self._memory[label] = block
                self._held += len(block.stored or b"")
            while self._held > MEMORY_BYTES:
                _, oldest = self._memory.popitem(last=False)
                self._held -= len(oldest.stored or b"")
