"""One large object into one file: in parts at the same time, verified, resumable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retrace.errors import FetchError
from retrace.progress import progress
from retrace.remote.download import Fetched, Report, Transfer, is_md5, matching_parts
from retrace.remote.s3 import READ_BYTES, FetchSettings, S3Object, Source, TransientError, file_md5


@dataclass(frozen=True)
class Part(S3Object):
    """`size` bytes of an object, from `first` on."""

    first: int = 0


def cut(item: S3Object, part_bytes: int) -> list[Part]:
    """The parts of an object."""
    return [
        Part(f"{item.name} (byte {first} on)", min(part_bytes, item.size - first), item.etag, first)
        for first in range(0, item.size, part_bytes)
    ]


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class PartsTransfer(Transfer):
    """Brings one object into OUTPUT.partial; OUTPUT.parts notes which parts of it are there."""

    def __init__(
        self,
        source: Source,
        output: Path,
        item: S3Object,
        settings: FetchSettings,
        part_bytes: int,
    ) -> None:
        super().__init__(source, output.parent, threads=settings.threads, retries=settings.retries)
        self.output, self.item = output, item
        self.partial = output.with_name(f"{output.name}.partial")
        self.journal = output.with_name(f"{output.name}.parts")
        self.part_bytes = part_bytes

    def run_parts(self) -> Report:
        """Transfers the parts that are missing and verifies the whole (FetchError)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        done = self._resume()
        parts = cut(self.item, self.part_bytes)
        missing = [part for part in parts if part.first not in done]
        if done:
            print(f"[fetch] {len(done)} of {len(parts)} parts are there already", flush=True)
        self._check_space(sum(part.size for part in missing))
        done |= self._transfer(missing)
        return self._verified(parts, done)

    def publish(self) -> None:
        """Renames the verified file into place."""
        self.partial.replace(self.output)
        self.journal.unlink(missing_ok=True)

    def _resume(self) -> dict[int, str]:
        """{first byte: md5} of the parts that an earlier run left whole; else a fresh start."""
        begun = {"etag": self.item.etag, "size": self.item.size, "part_bytes": self.part_bytes}
        lines = self.journal.read_text().splitlines() if self.journal.is_file() else []
        noted = [entry for line in lines if (entry := _entry(line))]
        if self.partial.is_file() and noted[:1] == [begun]:
            done = {int(entry["first"]): str(entry["md5"]) for entry in noted[1:]}
            return {first: md5 for first, md5 in done.items() if self._md5_at(first) == md5}
        with self.partial.open("wb") as file:
            file.truncate(self.item.size)
        self.journal.write_text(json.dumps(begun) + "\n")
        return {}

    def _md5_at(self, first: int) -> str:
        """The md5 of one part as it lies on the disk."""
        left, checksum = self.part_bytes, hashlib.md5(usedforsecurity=False)
        with self.partial.open("rb") as file:
            file.seek(first)
            while left and (piece := file.read(min(left, READ_BYTES))):
                checksum.update(piece)
                left -= len(piece)
        return checksum.hexdigest()

    def _transfer(self, parts: Sequence[Part]) -> dict[int, str]:
        """Transfers these parts; {first byte: md5 of what came}."""
        came: dict[int, str] = {}
        fetched = self._in_threads(self._fetch, parts)
        with self.journal.open("a") as journal:
            for part in progress(fetched, len(parts), "fetch", "parts"):
                assert isinstance(part.item, Part)
                came[part.item.first] = str(part.sha256)
                entry = {"first": part.item.first, "md5": part.sha256}
                # A line of its own, whatever a kill left of the one before.
                journal.write("\n" + json.dumps(entry) + "\n")
                journal.flush()
        return came

    def _attempt(self, item: S3Object, previous: str | None) -> Fetched:
        """Streams one part to its place; its md5 goes where a whole object has its sha256."""
        assert isinstance(item, Part)
        checksum, received = hashlib.md5(usedforsecurity=False), 0
        with (
            self.source.stream(self.item, (item.first, item.size)) as pieces,
            self.partial.open("r+b") as file,
        ):
            file.seek(item.first)
            for piece in pieces:
                received += len(piece)
                if received > item.size:
                    raise FetchError(f"{self.source.label} answers a part with more than it")
                file.write(piece)
                checksum.update(piece)
                if self.stop.is_set():
                    raise TransientError("stopped")
        if received != item.size:
            raise TransientError(f"truncated: {received} of {item.size} bytes came")
        return Fetched(item, "part", checksum.hexdigest())

    def _verified(self, parts: Sequence[Part], done: dict[int, str]) -> Report:
        """The report once the ETag, or a second transfer, says that the bytes are right.

        Where they are not, all parts are transferred again: which is wrong is not told.
        """
        for _ in range(self.retries):
            if how := self._matches():
                return self._report(how)
            print("[fetch] the checksum does not tell or does not fit: once more", flush=True)
            again = self._transfer(parts)
            same, done = again == done, again
            if same and not is_md5(self.item.etag):
                return self._report("twice")
        if how := self._matches():
            return self._report(how)
        raise FetchError(
            f"{self.item.name} from {self.source.label} came {self.retries + 1} times with other "
            f"bytes than its checksum {self.item.etag} says; the object in the bucket, or the way "
            f"to it, is damaged. {self.partial} is kept"
        )

    def _matches(self) -> str:
        """ "md5" or "parts" where the object's ETag is that of the file, else ""."""
        if is_md5(self.item.etag):
            return "md5" if file_md5(self.partial) == self.item.etag else ""
        return "parts" if matching_parts(self.partial, self.item) else ""

    def _report(self, how: str) -> Report:
        report = Report(objects=1, bytes=self.item.size)
        report.verified[how] += 1
        report.sha256[self.item.name] = file_sha256(self.partial)
        return report


def _entry(line: str) -> dict[str, str | int] | None:
    """One line of the journal; None for what a kill left of one."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
