"""Locks on outputs, for runs that share a folder such as `data`.

The kernel holds a lock for a process, so that it ends with the process, however that ends. The lock
file stays: removing it would let two later runs lock two different files of the same name.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from retrace.errors import UNTIL_END

POLL_S, FETCH_POLL_S = 0.02, 0.5
"""How often a waiting process looks whether the lock is free: for short locks, and for fetches."""
REMINDER_S = 600.0
"""How often a waiting run says so again."""
GROUP_MAY_WRITE = 0o664
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
"""What file systems without locks answer, such as Lustre that is mounted without `flock`."""
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


def lock_file(path: Path) -> Path:
    """`x/volume.zarr` -> `x/.volume.zarr.lock`."""
    return path.with_name(f".{path.name}.lock")


@contextmanager
def fetching_alone(output: Path) -> Iterator[None]:
    """Within it no other run fetches `output`; it waits for one that does.

    In a program the lock lasts until its end, because outputs may be put into place only there.
    """
    lock = locked(output, _say_who_waits(output), FETCH_POLL_S)
    if UNTIL_END:
        UNTIL_END[-1].enter_context(lock)
        yield
    else:
        with lock:
            yield


def _say_who_waits(output: Path) -> Callable[[], None]:
    def say() -> None:
        print(
            f"[fetch] waits for another run that fetches {output} (lock file {lock_file(output)})",
            flush=True,
        )

    return say


@contextmanager
def locked(
    path: Path, on_wait: Callable[[], None] = lambda: None, poll_s: float = POLL_S
) -> Iterator[None]:
    """Holds the lock of a path; calls `on_wait` if it has to wait, and again every REMINDER_S.

    In a read-only folder nothing is locked, because no run changes anything there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(
        lock_file(path), mode=GROUP_MAY_WRITE, poll_interval=poll_s, fallback_to_soft=False
    )
    try:
        _acquire(lock, on_wait)
    except OSError as error:
        if error.errno in NO_LOCKS:
            print(
                f"the file system of {path.parent} has no locks ({error.strerror}): let only one "
                f"run at a time write {path}",
                flush=True,
            )
        elif error.errno not in READ_ONLY or os.access(path.parent, os.W_OK):
            raise
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, on_wait: Callable[[], None]) -> None:
    timeout_s = 0.0
    while True:
        try:
            lock.acquire(timeout=timeout_s)
            return
        except Timeout:
            on_wait()
            timeout_s = REMINDER_S
