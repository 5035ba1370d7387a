"""What a program has read of a remote volume, to notice when the volume changes meanwhile.

A block certainly has the same bytes from its last change to the time of its request. If these time
spans do not overlap, or if a block returns with other bytes, the volume changed while it was
read. ChangedError then stops the program, instead of a result that mixes two versions.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from retrace.errors import DataError
from retrace.reading import existing_bytes, if_intact
from retrace.remote.objects import Block

DOCUMENTS = (".zarray", ".zattrs", ".zgroup", "zarr.json", "info")
"""Names of metadata files. Every program requests them again; they are never cached."""

LATEST_S = 2**40
"""Times of records are seconds since 1970 below this."""
RUN_AGAIN = (
    "The volume changed while it was read, and a result would mix two versions of it. Run the same "
    "command again: it reads everything again"
)


class ChangedError(DataError):
    """A volume changed while it was read."""


class ReadRecord:
    """The digests of all blocks read of one volume, and the time span when all were valid."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.last_change, self.first_request = 0, 2**62
        self._digests: dict[str, str] = {}
        self._documents: dict[str, dict[str, str]] = {}
        self._unwritten: list[str] = []
        self._file: Path | None = None
        self._lock = threading.Lock()

    def keep_in(self, file: Path) -> None:
        """Writes every block to `file` from now on, and adds the blocks of an earlier run.

        ChangedError if the two runs read different versions.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = (existing_bytes(file) or b"").splitlines()
        with self._lock:
            unwritten, self._unwritten, self._file = self._unwritten, [], file
            for line in lines:
                # None: an incomplete last line of an interrupted run
                if entry := if_intact(partial(_entry, line), file):
                    self._add(*entry)
            # The newline ends an incomplete last line.
            self._write("\n" + "".join(unwritten))

    def note(self, name: str, block: Block) -> None:
        """Adds a block; ChangedError if it was not valid together with all others."""
        with self._lock:
            digest = block.sha256
            if self._digests.get(name) == digest and not self._narrows_span(block):
                return
            if name.rpartition("/")[2] in DOCUMENTS:
                self._documents[name] = {"sha256": digest, "etag": block.etag}
            entry = (name, digest, block.modified, block.requested)
            self._add(*entry)
            self._write(json.dumps(entry) + "\n")

    def _narrows_span(self, block: Block) -> bool:
        return (block.modified or 0) > self.last_change or block.requested < self.first_request

    def _write(self, text: str) -> None:
        if self._file is None:
            self._unwritten.append(text)
            return
        with self._file.open("a") as file:
            file.write(text)

    def _add(self, name: str, digest: str, modified: int | None, requested: int) -> None:
        known_digest = self._digests.setdefault(name, digest)
        self.last_change = max(self.last_change, modified or 0)
        self.first_request = min(self.first_request, requested)
        if known_digest != digest:
            self.last_change = max(self.last_change, requested)
            raise ChangedError(f"{self.url}: {name!r} has other bytes than before. {RUN_AGAIN}")
        if self.last_change > self.first_request:
            raise ChangedError(
                f"{self.url}: {name!r} was changed at {_utc(modified or 0)}, after the first of "
                f"the other blocks were read at {_utc(self.first_request)}. {RUN_AGAIN}"
            )

    @property
    def version(self) -> str:
        """A digest of the metadata; it differs for another version of the volume."""
        return _digest(sorted((n, d["sha256"]) for n, d in self._documents.items()))

    def summary(self) -> dict[str, Any]:
        """For a manifest: digests of the metadata and of all blocks, and the span (UTC)."""
        with self._lock:
            digests = sorted(self._digests.items())
        blocks = [(name, digest) for name, digest in digests if name not in self._documents]
        return {
            "sha256": _digest(digests),
            "documents": {n: d for n, d in sorted(self._documents.items()) if d["sha256"]},
            "blocks": len(blocks),
            "absent_blocks": sum(not digest for _, digest in blocks),
            "unchanged_since": _utc(self.last_change) if self.last_change else None,
            "read_from": _utc(self.first_request),
        }


def _entry(line: bytes) -> tuple[str, str, int | None, int]:
    """One line of a record's file."""
    name, digest, modified, requested = json.loads(line)
    times = [int(time_s) for time_s in (requested, modified) if time_s is not None]
    if not all(0 <= time_s < LATEST_S for time_s in times):
        raise ValueError("a time is no time")
    return str(name), str(digest), None if modified is None else int(modified), int(requested)


def merge_records(records: Sequence[ReadRecord]) -> ReadRecord:
    """One record of all blocks that several readers of one volume have read.

    ChangedError if the blocks were never valid together.
    """
    merged = ReadRecord(records[0].url)
    for record in records:
        with record._lock:
            digests = dict(record._digests)
            merged._documents |= record._documents
        for name, digest in digests.items():
            merged._add(name, digest, record.last_change, record.first_request)
    return merged


def _utc(time_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_s))


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
