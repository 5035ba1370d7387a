"""Many objects into one folder: concurrent, verified, resumable, never half visible."""

from __future__ import annotations

import errno
import hashlib
import queue
import random
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from retrace.errors import FetchError
from retrace.progress import progress
from retrace.remote.s3 import READ_BYTES, S3Object, Source, TransientError, file_md5

Item = TypeVar("Item")
Result = TypeVar("Result")

MEBIBYTE = 1 << 20
BACKOFF_S, LONGEST_WAIT_S = 0.2, 20.0
FIRST_THREADS = 2
NEAR_S = 0.008
"""Seconds for one item below which the other side is near and more threads only cost."""
RESERVE_BYTES = 16 * MEBIBYTE
"""Room left on the disk for metadata and the manifest."""


@dataclass(frozen=True)
class Fetched:
    """One object that lies in the folder, and by what its bytes were verified.

    `how`: "md5" (ETag of a single upload), "parts" (ETag of a multipart upload), or "twice" where
    the ETag tells nothing about the bytes: two transfers agreed in `sha256`.
    """

    item: S3Object
    how: str
    sha256: str | None = None


@dataclass
class Report:
    """What a transfer did."""

    objects: int = 0
    bytes: int = 0
    kept: int = 0
    verified: Counter[str] = field(default_factory=Counter)
    sha256: dict[str, str] = field(default_factory=dict)


def human_bytes(count: float) -> str:
    """`1536` -> `1.5 kB`; powers of 1000 as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"


def part_sizes(size: int, parts: int) -> list[int]:
    """Part sizes (whole MiB, usual ones first) that cut `size` bytes into `parts` parts.

    Uploading tools choose whole MiB (8 MiB in the AWS command line); S3 does not record which.
    """
    usual = [8, 16, 5, 64, 32, 128, 10, 100, 256, 512]
    least = -(-size // parts)
    most = size if parts == 1 else (size - 1) // (parts - 1)
    span = range(-(-least // MEBIBYTE), min(most // MEBIBYTE, least // MEBIBYTE + 64) + 1)
    fitting = [m for m in usual if least <= m * MEBIBYTE and (parts == 1 or m * MEBIBYTE <= most)]
    return [m * MEBIBYTE for m in dict.fromkeys([*fitting, *span]) if m > 0]


def multipart_etag(path: Path, part_bytes: int) -> str:
    """The ETag S3 gives to `path` uploaded in parts: md5 of the parts' md5s, "-", their number."""
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
    return len(etag) == 32 and all(c in "0123456789abcdef" for c in etag)


def matching_parts(path: Path, item: S3Object) -> bool:
    """True where some usual part size gives the object's multipart ETag."""
    count = item.etag.rpartition("-")[2]
    if not count.isdigit() or not int(count):
        return False
    sizes = part_sizes(item.size, int(count))
    return any(multipart_etag(path, size) == item.etag for size in sizes)


def already_there(path: Path, item: S3Object) -> Fetched | None:
    """The object where an earlier run left it whole; None where it must be transferred."""
    if not path.is_file() or path.stat().st_size != item.size:
        return None
    if is_md5(item.etag):
        return Fetched(item, "md5") if file_md5(path) == item.etag else None
    return Fetched(item, "parts") if matching_parts(path, item) else None


def attempts(retries: int, wait: Callable[[float], object]) -> Iterator[int]:
    """0 ... `retries` - 1, with waits (seconds) between them that get longer and longer."""
    for attempt in range(retries):
        if attempt:
            longest = min(LONGEST_WAIT_S, BACKOFF_S * 2**attempt)
            wait(random.uniform(longest / 2, longest))
        yield attempt


class Transfer:
    """Brings the objects of one source into one folder."""

    def __init__(self, source: Source, folder: Path, *, threads: int, retries: int) -> None:
        self.source, self.folder = source, folder
        self.threads, self.retries = threads, retries
        self.stop = threading.Event()

    def run(self, items: list[S3Object]) -> Report:
        """Transfers what the folder lacks; FetchError leaves the verified objects in place."""
        self.folder.mkdir(parents=True, exist_ok=True)
        prune(self.folder, {item.name for item in items})
        for parent in {self.folder / Path(item.name).parent for item in items}:
            parent.mkdir(parents=True, exist_ok=True)
        report, missing = self._look_around(items)
        self._check_space(sum(item.size for item in missing))
        done = self._in_threads(self._fetch, missing)
        for fetched in progress(done, len(missing), "fetch", "objects"):
            self._count(report, fetched)
        return report

    def _look_around(self, items: list[S3Object]) -> tuple[Report, list[S3Object]]:
        report, missing = Report(), []
        present = [item for item in items if (self.folder / item.name).is_file()]
        kept = {}
        for item, found in self._in_threads(self._look, present):
            if found:
                kept[item.name] = found
        for item in items:
            if item.name in kept:
                self._count(report, kept[item.name])
                report.kept += 1
            else:
                missing.append(item)
        return report, missing

    def _look(self, item: S3Object) -> tuple[S3Object, Fetched | None]:
        return item, already_there(self.folder / item.name, item)

    @staticmethod
    def _count(report: Report, fetched: Fetched) -> None:
        report.objects += 1
        report.bytes += fetched.item.size
        report.verified[fetched.how] += 1
        if fetched.sha256:
            report.sha256[fetched.item.name] = fetched.sha256

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if needed + RESERVE_BYTES > free and needed:
            raise FetchError(
                f"{human_bytes(needed)} are to be fetched into {self.folder.parent}, only "
                f"{human_bytes(free)} are free there; free some space and run the same command "
                "again"
            )

    def _in_threads(
        self, work: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[Result]:
        """Results as they come; the first error stops all threads and is raised here.

        Threads take the next item themselves: a future for each would cost as much as its transfer.
        Only a few of them begin; all are started where an item takes long, which is to wait for a
        distant server. With a near one they would take the interpreter from each other.
        """
        limit = min(self.threads, len(items))
        taken: deque[float] = deque(maxlen=4)
        todo, lock = iter(items), threading.Lock()
        done: queue.SimpleQueue[tuple[Result | BaseException, float]] = queue.SimpleQueue()

        def keep_working() -> None:
            while not self.stop.is_set():
                with lock:
                    item = next(todo, None)
                if item is None:
                    return
                begin = time.perf_counter()
                try:
                    done.put((work(item), time.perf_counter() - begin))
                except BaseException as error:
                    done.put((error, 0.0))
                    return

        workers: list[threading.Thread] = []

        def start() -> None:
            workers.append(threading.Thread(target=keep_working))
            workers[-1].start()

        try:
            for _ in range(min(FIRST_THREADS, limit)):
                start()
            for _ in items:
                result, seconds = done.get()
                if isinstance(result, BaseException):
                    raise result
                taken.append(seconds)
                while len(workers) < limit and len(taken) == taken.maxlen and min(taken) > NEAR_S:
                    start()
                yield result
        except BaseException:
            self.stop.set()
            raise
        finally:
            for worker in workers:
                worker.join()

    def _fetch(self, item: S3Object) -> Fetched:
        """One object, with attempts further and further apart."""
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
            if fetched.how:
                return fetched
            previous = fetched.sha256
            problem = TransientError("its bytes differ from one transfer to the next")
        raise FetchError(
            f"object {item.name!r} from {self.source.label} failed {self.retries} times, last: "
            f"{problem or 'stopped'}; what is verified is kept, run the same command again"
        ) from problem

    def _attempt(self, item: S3Object, previous: str | None) -> Fetched:
        """Streams an object aside, verifies it, renames it; `how` is "" where it must go twice."""
        final = self.folder / item.name
        partial = final.with_name(f".{final.name}.part")
        plain = is_md5(item.etag)
        checksum = hashlib.md5(usedforsecurity=False) if plain else hashlib.sha256()
        received = 0
        with self.source.stream(item) as pieces, partial.open("wb") as file:
            for piece in pieces:
                file.write(piece)
                checksum.update(piece)
                received += len(piece)
                if self.stop.is_set():
                    raise TransientError("stopped")
        if received != item.size:
            raise TransientError(f"truncated: {received} of {item.size} bytes came")
        if plain and checksum.hexdigest() != item.etag:
            raise TransientError(
                f"corrupted: md5 {checksum.hexdigest()}, the bucket says {item.etag}"
            )
        how, sha256 = self._verdict(partial, item, checksum.hexdigest(), previous)
        if how:
            partial.replace(final)
        return Fetched(item, how, sha256)

    @staticmethod
    def _verdict(
        partial: Path, item: S3Object, checksum: str, previous: str | None
    ) -> tuple[str, str | None]:
        if is_md5(item.etag):
            return "md5", None
        if matching_parts(partial, item):
            return "parts", checksum
        return ("twice" if checksum == previous else ""), checksum

    def _disk_error(self, error: OSError, item: S3Object) -> Exception:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return FetchError(
                f"the disk is full while writing {self.folder / item.name}; free some space and "
                "run the same command again, what is verified is kept"
            )
        return error


def prune(folder: Path, wanted: set[str]) -> None:
    """Removes files that an earlier, interrupted or different, run left and nobody asks for."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(folder).as_posix() not in wanted:
            path.unlink()
