"""Errors that a user can act on, and the one way a script ends with them."""

from __future__ import annotations

import difflib
import errno
import signal
import sys
from collections.abc import Callable, Iterable
from types import FrameType


class RetraceError(Exception):
    """Base of all errors whose message tells what is wrong and what to do next."""


class ConfigError(RetraceError):
    """A configuration that cannot work: unknown name, missing or contradicting value."""


class DataError(RetraceError):
    """A volume, checkpoint or table that is missing, damaged or does not fit."""


class FetchError(RetraceError):
    """The bucket, an object in it or the way to it is not as it should be."""


class DeviceError(RetraceError):
    """The asked-for device is absent or too small."""


class StateError(RetraceError):
    """Saved work (training state, finished blocks) that cannot be gone on with."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """One sentence that offers the nearest allowed name, and lists all of them."""
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}allowed: {', '.join(names)}"


def _disk_full(error: OSError) -> str:
    where = f" while writing {error.filename}" if error.filename else ""
    return f"the disk is full{where}; free some space and run the same command again"


def _out_of_memory(error: BaseException) -> str | None:
    text = str(error)
    signs = ("out of memory", "can't allocate memory")
    if isinstance(error, MemoryError) or any(sign in text for sign in signs):
        first = text.splitlines()[0] if text else "no memory left"
        return (
            f"out of memory ({first}); lower the network `input_shape` (training), `tile` "
            "(prediction) or `block_shape` (segmentation) in the config"
        )
    return None


def explain(error: BaseException) -> str | None:
    """The message for a user, or None where only a traceback helps."""
    if isinstance(error, RetraceError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _disk_full(error)
    if isinstance(error, (RuntimeError, MemoryError)):
        return _out_of_memory(error)
    return None


def terminate(number: int, frame: FrameType | None) -> None:
    """A signal handler that ends the program with 128 + the signal."""
    sys.exit(128 + number)


def run(main: Callable[[], None]) -> None:
    """Runs a script's main; known errors end it with one line and status 1, SIGTERM with 143."""
    signal.signal(signal.SIGTERM, terminate)
    try:
        main()
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr, flush=True)
        sys.exit(1)
