"""Downloads many objects into one folder: concurrent, verified, resumable, atomic."""

from __future__ import annotations

import errno
import hashlib
import random
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from retrace.errors import FetchError
from retrace.files import human_bytes
from retrace.progress import progress
from retrace.remote.concurrency import Item, Result, ThreadedWork
from retrace.remote.http import READ_BYTES, TransientError
from retrace.remote.mirror import file_md5
from retrace.remote.object_names import check_names
from retrace.remote.store import ObjectStore, S3Object, listing_digest

MEBIBYTE = 1 << 20
BACKOFF_S, LONGEST_WAIT_S = 0.2, 20.0
RESERVE_BYTES = 16 * MEBIBYTE
"""Disk space that stays free for metadata and the manifest."""


@dataclass(frozen=True)
class FetchedObject:
    """An object in the folder, and how its bytes were verified.

    `verified_by`: "md5" (ETag of a single upload), "parts" (ETag of a multipart upload), "twice"
    (the ETag says nothing about the bytes, and two downloads had the same `sha256`), or "" for not
    verified yet. `sha256` is None for an object that an earlier run has downloaded.
    """

    item: S3Object
    verified_by: str
    sha256: str | None = None


@dataclass
class DownloadReport:
    """Counts and checksums of a download.

    `kept`: objects that an earlier run had already verified; `verified`: objects by
    `FetchedObject.verified_by`; `sha256`: of the objects that this run has downloaded, by name;
    `listing`: see `listing_digest`.
    """

    objects: int = 0
    bytes: int = 0
    kept: int = 0
    verified: Counter[str] = field(default_factory=Counter)
    sha256: dict[str, str] = field(default_factory=dict)
    listing: str = ""


def part_sizes(size: int, parts: int) -> list[int]:
    """Part sizes in bytes (whole MiB, common ones first) that split `size` bytes into `parts`.

    Upload tools use whole MiB (the AWS command line 8 MiB); S3 does not record the size.
    """
    common = [8, 16, 5, 64, 32, 128, 10, 100, 256, 512]
    least = -(-size // parts)
    most = size if parts == 1 else (size - 1) // (parts - 1)
    span = range(-(-least // MEBIBYTE), min(most // MEBIBYTE, least // MEBIBYTE + 64) + 1)
    fitting = [m for m in common if least <= m * MEBIBYTE and (parts == 1 or m * MEBIBYTE <= most)]
    return [m * MEBIBYTE for m in dict.fromkeys([*fitting, *span]) if m > 0]


def multipart_etag(path: Path, part_bytes: int) -> str:
    """The ETag that S3 gives to a file uploaded in parts of `part_bytes`.

    It is the md5 of the parts' md5 sums, "-" and the number of parts.
    """
    digests = []
    with path.open("rb") as file:
        left = part_bytes
        part = hashlib.md5(usedforsecurity=False)
        while piece := file.read(min(READ_BYTES, left)):
            part.update(piece)
            left -= len(piece)
            if left == 0:
                digests.append(part.digest())
                part, left = hashlib.md5(usedforsecurity=False), part_bytes
        if left != part_bytes or not digests:
            digests.append(part.digest())
    whole = hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()
    return f"{whole}-{len(digests)}"


def is_md5(etag: str) -> bool:
    """Whether an ETag looks like an md5 sum (32 hex digits), as after a single upload."""
    return len(etag) == 32 and all(c in "0123456789abcdef" for c in etag)


def matches_multipart_etag(path: Path, item: S3Object) -> bool:
    """Whether some common part size gives the object's multipart ETag for the file."""
    count = item.etag.rpartition("-")[2]
    if not count.isdigit() or not int(count):
        return False
    sizes = part_sizes(item.size, int(count))
    return any(multipart_etag(path, size) == item.etag for size in sizes)


def verified_file(path: Path, item: S3Object) -> FetchedObject | None:
    """The object that an earlier run has downloaded to `path`; None if it is missing or differs."""
    if not path.is_file() or path.stat().st_size != item.size:
        return None
    if is_md5(item.etag):
        return FetchedObject(item, "md5") if file_md5(path) == item.etag else None
    return FetchedObject(item, "parts") if matches_multipart_etag(path, item) else None


def attempts(retries: int, wait: Callable[[float], object]) -> Iterator[int]:
    """Attempt numbers from 0, with a call of `wait` (seconds) before each but the first.

    The wait doubles with each attempt up to LONGEST_WAIT_S, with a random part so that many clients
    do not retry at the same time.
    """
    for attempt in range(retries):
        if attempt:
            longest = min(LONGEST_WAIT_S, BACKOFF_S * 2**attempt)
            wait(random.uniform(longest / 2, longest))
        yield attempt


def aside(final: Path) -> Path:
    """A file next to `final` for an attempt to download it, whose name no object can foresee."""
    return final.with_name(f".{uuid4().hex}.part")


class FolderDownload:
    """Downloads objects of a store into one folder."""

    def __init__(self, store: ObjectStore, folder: Path, *, threads: int, retries: int) -> None:
        self.store, self.folder = store, folder
        self.threads, self.retries = threads, retries
        self.stop = threading.Event()

    def run(self, items: list[S3Object]) -> DownloadReport:
        """Downloads the objects that the folder does not have, and removes all other files.

        After a FetchError the verified objects stay, and the next run continues with the rest.
        """
        check_names([item.name for item in items], self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        prune(self.folder, {item.name for item in items})
        for parent in {self.folder / Path(item.name).parent for item in items}:
            parent.mkdir(parents=True, exist_ok=True)
        report, missing = self._verify_present(items)
        report.listing = listing_digest(items)
        self._check_space(sum(item.size for item in missing))
        done = self._in_threads(self._fetch, missing)
        for fetched in progress(done, len(missing), "fetch", "objects"):
            self._count(report, fetched)
        return report

    def _verify_present(self, items: list[S3Object]) -> tuple[DownloadReport, list[S3Object]]:
        """Counts the objects that are in the folder already; returns those that are not."""

        def verify(item: S3Object) -> FetchedObject | None:
            return verified_file(self.folder / item.name, item)

        present = [item for item in items if (self.folder / item.name).is_file()]
        verified = {f.item.name: f for f in self._in_threads(verify, present) if f}
        report, missing = DownloadReport(kept=len(verified)), []
        for item in items:
            if item.name in verified:
                self._count(report, verified[item.name])
            else:
                missing.append(item)
        return report, missing

    @staticmethod
    def _count(report: DownloadReport, fetched: FetchedObject) -> None:
        report.objects += 1
        report.bytes += fetched.item.size
        report.verified[fetched.verified_by] += 1
        if fetched.sha256:
            report.sha256[fetched.item.name] = fetched.sha256

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if needed + RESERVE_BYTES > free and needed:
            raise FetchError(
                f"{human_bytes(needed)} are to be fetched into {self.folder.parent}, but only "
                f"{human_bytes(free)} are free there; free some space and run the same command "
                "again"
            )

    def _in_threads(
        self, work: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[Result]:
        """Yields results in the order of completion; the first error stops all threads."""
        yield from ThreadedWork(work, items, self.threads, self.stop).results()

    def _fetch(self, item: S3Object) -> FetchedObject:
        """Downloads one object, with several attempts; FetchError after the last one."""
        previous: str | None = None
        problem: Exception | None = None
        for _ in attempts(self.retries, self.stop.wait):
            if self.stop.is_set():
                break
            try:
                fetched = self._attempt(item, previous)
            except TransientError as error:
                problem = error
                continue
            except OSError as error:
                raise self._disk_error(error, item) from error
            if fetched.verified_by:
                return fetched
            previous = fetched.sha256
            problem = TransientError("its bytes differ from one download to the next")
        raise FetchError(
            f"object {item.name!r} from {self.store.label} failed {self.retries} times, last: "
            f"{problem or 'stopped'}; verified objects are kept, run the same command again"
        ) from problem

    def _attempt(self, item: S3Object, previous: str | None) -> FetchedObject:
        """Streams an object to a temporary file and renames it once its checksum is right.

        `previous`: sha256 of the last attempt. Without a useful ETag, two attempts must agree.
        """
        final = self.folder / item.name
        partial = aside(final)
        is_put = False
        try:
            fetched = self._streamed(item, partial, previous)
            if fetched.verified_by:
                partial.replace(final)
                is_put = True
            return fetched
        finally:
            if not is_put:
                partial.unlink(missing_ok=True)

    def _streamed(self, item: S3Object, partial: Path, previous: str | None) -> FetchedObject:
        """Streams an object to `partial`; TransientError unless its checksum is right."""
        md5 = hashlib.md5(usedforsecurity=False) if is_md5(item.etag) else None
        sha256, received = hashlib.sha256(), 0
        with self.store.stream(item) as pieces, partial.open("wb") as file:
            for piece in pieces:
                file.write(piece)
                sha256.update(piece)
                if md5:
                    md5.update(piece)
                received += len(piece)
                if self.stop.is_set():
                    raise TransientError("stopped")
        if received != item.size:
            raise TransientError(f"truncated: received {received} of {item.size} bytes")
        if md5 and md5.hexdigest() != item.etag:
            raise TransientError(f"corrupted: md5 {md5.hexdigest()}, the bucket says {item.etag}")
        return self._verified(partial, item, sha256.hexdigest(), previous)

    @staticmethod
    def _verified(
        partial: Path, item: S3Object, sha256: str, previous: str | None
    ) -> FetchedObject:
        """How a downloaded file is verified, whose md5 has been compared if the ETag is one."""
        if is_md5(item.etag):
            return FetchedObject(item, "md5", sha256)
        if matches_multipart_etag(partial, item):
            return FetchedObject(item, "parts", sha256)
        return FetchedObject(item, "twice" if sha256 == previous else "", sha256)

    def _disk_error(self, error: OSError, item: S3Object) -> Exception:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return FetchError(
                f"the disk is full while writing {self.folder / item.name}; free some space and "
                "run the same command again; verified objects are kept"
            )
        return error


def prune(folder: Path, keep: set[str]) -> None:
    """Removes all files except those named in `keep`, such as leftovers of an interrupted run."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(folder).as_posix() not in keep:
            path.unlink()
