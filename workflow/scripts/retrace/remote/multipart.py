"""Downloads one large object in parts: concurrent, verified, resumable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retrace.errors import FetchError
from retrace.files import file_sha256
from retrace.progress import progress
from retrace.reading import existing_bytes, if_intact, parse_json_object
from retrace.remote.download import (
    DownloadReport,
    FetchedObject,
    FolderDownload,
    is_md5,
    matches_multipart_etag,
)
from retrace.remote.http import READ_BYTES, TransientError
from retrace.remote.mirror import file_md5
from retrace.remote.store import ObjectStore, S3Object
from retrace.replacement import put, remove_afterwards


@dataclass(frozen=True)
class ObjectPart(S3Object):
    """`size` bytes of an object, starting at byte `first`."""

    first: int = 0


def split_into_parts(item: S3Object, part_bytes: int) -> list[ObjectPart]:
    """An object as parts of `part_bytes`; the last one may be shorter."""
    return [
        ObjectPart(
            f"{item.name} (from byte {first})", min(part_bytes, item.size - first), item.etag, first
        )
        for first in range(0, item.size, part_bytes)
    ]


class MultipartDownload(FolderDownload):
    """Downloads one object into OUTPUT.partial; OUTPUT.parts lists the parts that are complete."""

    def __init__(
        self,
        store: ObjectStore,
        output: Path,
        item: S3Object,
        *,
        part_bytes: int,
        threads: int,
        retries: int,
    ) -> None:
        super().__init__(store, output.parent, threads=threads, retries=retries)
        self.output, self.item = output, item
        self.partial = output.with_name(f"{output.name}.partial")
        self.journal = output.with_name(f"{output.name}.parts")
        self.part_bytes = part_bytes

    def run_parts(self) -> DownloadReport:
        """Downloads the missing parts and verifies the whole file (FetchError)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        done = self._resume()
        parts = split_into_parts(self.item, self.part_bytes)
        missing = [part for part in parts if part.first not in done]
        if done:
            print(f"[fetch] {len(done)} of {len(parts)} parts are there already", flush=True)
        self._check_space(sum(part.size for part in missing))
        done |= self._download(missing)
        return self._verify(parts, done)

    def publish(self) -> None:
        """Renames the verified file into place."""
        put(self.partial, self.output)
        remove_afterwards(self.journal)

    def _resume(self) -> dict[int, str]:
        """{first byte: md5} of the parts that an earlier run completed.

        Starts again with an empty file if the object or the part size is a different one.
        """
        begun = {"etag": self.item.etag, "size": self.item.size, "part_bytes": self.part_bytes}
        lines = (existing_bytes(self.journal) or b"").splitlines()
        entries = [entry for line in lines if (entry := _journal_entry(line))]
        if self.partial.is_file() and entries[:1] == [begun]:
            parts = {part.first for part in split_into_parts(self.item, self.part_bytes)}
            noted = {entry.get("first"): entry.get("md5") for entry in entries[1:]}
            done = {int(f): str(md5) for f, md5 in noted.items() if f in parts}
            return {first: md5 for first, md5 in done.items() if self._md5_on_disk(first) == md5}
        with self.partial.open("wb") as file:
            file.truncate(self.item.size)
        self.journal.write_text(json.dumps(begun) + "\n")
        return {}

    def _md5_on_disk(self, first: int) -> str:
        """The md5 of the part that starts at byte `first` of OUTPUT.partial."""
        left, checksum = self.part_bytes, hashlib.md5(usedforsecurity=False)
        with self.partial.open("rb") as file:
            file.seek(first)
            while left and (piece := file.read(min(left, READ_BYTES))):
                checksum.update(piece)
                left -= len(piece)
        return checksum.hexdigest()

    def _download(self, parts: Sequence[ObjectPart]) -> dict[int, str]:
        """Downloads parts; {first byte: md5 of the received bytes}."""
        checksums: dict[int, str] = {}
        fetched_parts = self._in_threads(self._fetch, parts)
        with self.journal.open("a") as journal:
            for fetched in progress(fetched_parts, len(parts), "fetch", "parts"):
                assert isinstance(fetched.item, ObjectPart)
                checksums[fetched.item.first] = str(fetched.sha256)
                entry = {"first": fetched.item.first, "md5": fetched.sha256}
                # The first newline ends a line that an interrupted run left incomplete.
                journal.write("\n" + json.dumps(entry) + "\n")
                journal.flush()
        return checksums

    def _attempt(self, item: S3Object, previous: str | None) -> FetchedObject:
        """Streams one part to its place in the file; its md5 is returned in the field `sha256`."""
        assert isinstance(item, ObjectPart)
        checksum, received = hashlib.md5(usedforsecurity=False), 0
        with (
            self.store.stream(self.item, (item.first, item.size)) as pieces,
            self.partial.open("r+b") as file,
        ):
            file.seek(item.first)
            for piece in pieces:
                received += len(piece)
                if received > item.size:
                    raise FetchError(
                        f"{self.store.label} sends more than the requested {item.size} bytes"
                    )
                file.write(piece)
                checksum.update(piece)
                if self.stop.is_set():
                    raise TransientError("stopped")
        if received != item.size:
            raise TransientError(f"truncated: received {received} of {item.size} bytes")
        return FetchedObject(item, "part", checksum.hexdigest())

    def _verify(self, parts: Sequence[ObjectPart], done: dict[int, str]) -> DownloadReport:
        """The report once the ETag or a second download confirms the bytes (FetchError).

        If the ETag does not match, all parts are downloaded again, because it does not say which
        part is wrong.
        """
        for _ in range(self.retries):
            if verified_by := self._matching_etag():
                return self._report(verified_by)
            print("[fetch] the checksum does not confirm the bytes: downloading again", flush=True)
            again = self._download(parts)
            same, done = again == done, again
            if same and not is_md5(self.item.etag):
                return self._report("twice")
        if verified_by := self._matching_etag():
            return self._report(verified_by)
        raise FetchError(
            f"{self.item.name} from {self.store.label} was downloaded {self.retries + 1} times, "
            f"never with the bytes of its checksum {self.item.etag}; the object in the bucket, or "
            f"the connection, is damaged. {self.partial} is kept"
        )

    def _matching_etag(self) -> str:
        """The kind of the object's ETag, "md5" or "parts", if the file matches it, else ""."""
        if is_md5(self.item.etag):
            return "md5" if file_md5(self.partial) == self.item.etag else ""
        return "parts" if matches_multipart_etag(self.partial, self.item) else ""

    def _report(self, verified_by: str) -> DownloadReport:
        report = DownloadReport(objects=1, bytes=self.item.size)
        report.verified[verified_by] += 1
        report.sha256[self.item.name] = file_sha256(self.partial)
        return report


def _journal_entry(line: bytes) -> dict[str, str | int] | None:
    """One line of the journal; None for an incomplete one."""
    entry = if_intact(lambda: parse_json_object(line, "a journal"), "a journal")
    values = (entry or {}).values()
    return entry if all(isinstance(value, str | int) for value in values) else None
