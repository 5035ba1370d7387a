"""A disk that loses what was not flushed when the power fails.

`Flushes` notes what each fsync of this process, and of its forks, has put on the disk.
`after_a_cut` copies a folder as such a disk could hold it: files with other data than at their last
flush are empty, cut or missing.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class Flushes:
    """The files that were flushed, by device and number, with size and time of the last change."""

    def __init__(self, log: Path) -> None:
        self.log = log
        log.touch()
        self.since_ns = log.stat().st_mtime_ns
        """Files that were changed before are on the disk."""

    @contextmanager
    def noted(self, before: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Within it each fsync is noted; `before` is called before each, one at a time."""
        flush, lock = os.fsync, threading.Lock()

        def noted(handle: int) -> None:
            with lock:
                before()
                flush(handle)
                with self.log.open("a") as log:
                    log.write(json.dumps(_version(os.fstat(handle))) + "\n")

        os.fsync = noted
        try:
            yield
        finally:
            os.fsync = flush

    def lost(self, folder: Path) -> list[Path]:
        """The files below a folder that a power cut would take at this moment."""
        flushed = {tuple(json.loads(line)) for line in self.log.read_text().splitlines()}
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        versions = {path: _version(path.lstat()) for path in files}
        return [p for p, v in versions.items() if v[3] > self.since_ns and v not in flushed]


def _version(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def lose(path: Path, rng: random.Random) -> None:
    """What a power cut may leave of a file that was not flushed; links to it lose it as well."""
    kind = rng.choice(("empty", "cut", "zeros", "missing"))
    size = path.stat().st_size
    if kind == "missing":
        path.unlink()
    elif kind == "zeros":
        path.write_bytes(bytes(size))
    else:
        os.truncate(path, 0 if kind == "empty" else size // 2)


def after_a_cut(folder: Path, copy: Path, flushes: Flushes, rng: random.Random) -> Path:
    """A copy of a folder as the disk holds it after a power cut at this moment."""
    lost = [path.relative_to(folder) for path in flushes.lost(folder)]
    shutil.copytree(folder, copy)
    for name in lost:
        lose(copy / name, rng)
    return copy
