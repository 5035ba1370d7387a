"""Reads blocks of a remote volume: from memory, from the cache on disk, or from the server.

Every program asks the server whether a block of the cache is still current; its bytes are
transferred only if it is not.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

from retrace.limits import JSON_BYTES, UNPACKED_BYTES
from retrace.reading import reading_content, refuse_web_page
from retrace.remote.block_cache import BlockCache, CacheOptions
from retrace.remote.objects import Block, ByteRange, RemoteFolder, get_block
from retrace.remote.read_record import ReadRecord

MEMORY_BYTES = 1 << 28
"""Size of the stored blocks that a reader keeps in memory: neighbouring tiles share them."""
SLACK_BYTES = 1 << 20
"""Bytes that a small block may have beyond twice its size."""
ARRAY_METADATA = (".zarray", "zarr.json", "info")
"""Metadata files that say how the blocks of an array are encoded."""


class BlockReader:
    """Reads objects below one address and records every one of them."""

    def __init__(
        self, folder: RemoteFolder, options: CacheOptions, *, on_disk: bool = True
    ) -> None:
        """`on_disk=False`: without the cache, as for files of this machine."""
        self.folder, self.threads = folder, options.threads
        cache_folder = options.folder if on_disk else None
        self.cache = BlockCache(cache_folder, options.limit_bytes) if cache_folder else None
        self.record = ReadRecord(folder.url)
        self.pool = ThreadPoolExecutor(options.threads, thread_name_prefix="blocks")
        self._expected = 0
        self._metadata_sha256 = ""
        self._memory: OrderedDict[str, Block] = OrderedDict()
        self._memory_bytes = 0
        self._compared: set[str] = set()
        """Blocks that this program has requested or compared with the server's."""
        self._lock = threading.Lock()

    def document(self, name: str) -> bytes | None:
        """The current content of a metadata file, None if it does not exist. Never cached."""
        block = get_block(self.folder, name)
        self.record.note(name, block)
        content = self._content(name, block, JSON_BYTES)
        is_group = name.endswith("zarr.json") and b'"group"' in (content or b"")
        if name.rpartition("/")[2] in ARRAY_METADATA and content is not None and not is_group:
            self._metadata_sha256 = block.sha256
        return content

    def block(self, name: str, byte_range: ByteRange | None = None) -> bytes | None:
        """The content of an object or of a byte range of it, None if it does not exist.

        FetchError if it cannot be read, ChangedError if the volume changed while it was read.
        """
        label = name if byte_range is None else f"{name} {byte_range[0]}+{byte_range[1]}"
        block = self._from_memory(label)
        if block is None:
            block = self._current(name, byte_range, label)
        self.record.note(label, block)
        self._remember(label, block)
        return self._content(label, block, self.most_unpacked)

    def expect_blocks(self, size: int) -> None:
        """Refuses blocks that decode to more than a chunk of `size` bytes, from now on."""
        self._expected = max(self._expected, size)

    @property
    def most_unpacked(self) -> int:
        """Bytes that a block may have without its Content-Encoding; a codec may add some."""
        expected = 2 * self._expected + SLACK_BYTES
        return min(expected, UNPACKED_BYTES) if self._expected else UNPACKED_BYTES

    def _content(self, label: str, block: Block, most: int) -> bytes | None:
        """The bytes without their Content-Encoding; DataError for a web page or damaged bytes."""
        name, remedy = f"{self.folder.url}/{label}", "correct the address, or restore the object"
        with reading_content(name, remedy):
            content = block.content(most)
        refuse_web_page(content, name, remedy)
        return content

    def _current(self, name: str, byte_range: ByteRange | None, label: str) -> Block:
        """A block of the cache if the server still has it, else the server's."""
        cached = self._from_cache(label)
        if cached is not None and label in self._compared:
            return cached
        block = get_block(self.folder, name, byte_range, cached)
        self._compared.add(label)
        if self.cache and (cached is None or cached.sha256 != block.sha256):
            self.cache.put(self._key(label), block)
        return block

    def _key(self, label: str) -> str:
        parts = "\0".join((self.folder.url, self._metadata_sha256, label))
        return hashlib.sha256(parts.encode()).hexdigest()

    def _from_cache(self, label: str) -> Block | None:
        return self.cache.get(self._key(label)) if self.cache else None

    def _from_memory(self, label: str) -> Block | None:
        with self._lock:
            if label in self._memory:
                self._memory.move_to_end(label)
            return self._memory.get(label)

    def _remember(self, label: str, block: Block) -> None:
        with self._lock:
            if label not in self._memory:
                self._memory[label] = block
                self._memory_bytes += len(block.stored or b"")
            while self._memory_bytes > MEMORY_BYTES:
                _, oldest = self._memory.popitem(last=False)
                self._memory_bytes -= len(oldest.stored or b"")
