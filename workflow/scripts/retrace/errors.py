"""Errors that users can act on, and how a program ends with one."""

from __future__ import annotations

import difflib
import errno
import os
import re
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import NoReturn

from retrace.limits import MESSAGE_CHARACTERS
from retrace.redaction import redacted_ends, redacted_output
from retrace.replacement import replacing_together


class RetraceError(Exception):
    """Base of all errors whose message names the problem and the next step.

    Messages quote servers, addresses and other programs: credentials in them are hidden.
    """

    def __init__(self, *args: object) -> None:
        most = MESSAGE_CHARACTERS
        texts = (redacted_ends(one, most) if isinstance(one, str) else one for one in args)
        super().__init__(*texts)


class ConfigError(RetraceError):
    """A configuration that cannot work: an unknown name, a missing or contradictory value."""


class DataError(RetraceError):
    """A volume, checkpoint or table that is missing, damaged or does not fit."""


class FetchError(RetraceError):
    """A bucket or server cannot be reached, or an object is missing or damaged."""


class DeniedError(FetchError):
    """A server does not let an object be read (status 403).

    S3 answers so for an object that does not exist, where a bucket must not be listed.
    """


class MachineError(RetraceError):
    """A file that the machine cannot read: its disk, network drive, permissions or memory fail.

    It says nothing about the data: no result is invalidated, and nothing is taken as absent.
    """

    def __init__(self, message: str, number: int, *, is_final: bool) -> None:
        """`number` of the system error; `is_final`: whether further attempts were made."""
        super().__init__(message)
        self.number, self.is_final = number, is_final


class DeviceError(RetraceError):
    """The requested device does not exist or is too small."""


class StateError(RetraceError):
    """Saved work (training state, finished blocks) from which a run cannot resume."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The end of a message: the most similar allowed name, and the list of all of them."""
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}allowed: {', '.join(names)}"


def first_names(names: Sequence[str], most: int) -> str:
    """Up to `most` names for a message; two dots stand for the others."""
    return ", ".join(names[:most]) + (" .." if len(names) > most else "")


_OF_CONTENT = frozenset(
    (
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
        *(errno.EINVAL, errno.EFBIG, errno.EOVERFLOW, errno.EBADF, errno.EILSEQ),
    )
)
"""System errors that a wrong path or a damaged file causes; all others are the machine's."""
_HINTS = {
    errno.EACCES: "change the permissions of the file and its folders",
    errno.EPERM: "change the permissions of the file and its folders",
    errno.ENOMEM: "free some memory",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "allow more open files",
}


def machine_fault(error: BaseException) -> int | None:
    """The number of a system error that says nothing about a file's content; None for others."""
    if not isinstance(error, OSError):
        return None
    number = error.errno
    if number is None and (stated := re.search(r"errno = (\d+)", str(error))):
        number = int(stated[1])  # HDF5 writes it into its message
    return None if not number or number in _OF_CONTENT else number


def machine_error(name: Path | str, number: int, *, is_final: bool = False) -> MachineError:
    """The error for a file that the machine could not read."""
    hint = _HINTS.get(number, "check the disk or network drive")
    return MachineError(
        f"{name}: the machine cannot read it ({os.strerror(number)}, "
        f"{errno.errorcode.get(number, number)}). The data may be intact, nothing was changed; "
        f"{hint} and run the same command again",
        number,
        is_final=is_final,
    )


def _failing_machine(error: OSError) -> str | None:
    """The message for a system error that no reader has named; None where the cause is unclear."""
    if error.errno not in (errno.EIO, errno.ESTALE, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
        return None
    return str(machine_error(error.filename or "a file", error.errno))


def _disk_full(error: OSError) -> str:
    where = f" while writing {error.filename}" if error.filename else ""
    return f"the disk is full{where}; free some space and run the same command again"


def _out_of_memory(error: BaseException) -> str | None:
    text = str(error)
    phrases = ("out of memory", "can't allocate memory")
    if isinstance(error, MemoryError) or any(phrase in text for phrase in phrases):
        first_line = text.splitlines()[0] if text else "no memory left"
        return (
            f"out of memory ({first_line}); lower the network `input_shape` (training), `tile` "
            "(prediction) or `block_shape` (segmentation) in the config"
        )
    return None


def _no_permission(error: OSError) -> str | None:
    if error.filename is None:
        return None
    return f"{error.filename}: {error.strerror}; change its permissions, or use another folder"


def explain(error: BaseException) -> str | None:
    """The message for users, None for an error that only a traceback explains."""
    if isinstance(error, RetraceError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _disk_full(error)
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return _no_permission(error)
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return (
            f"the path {str(error.filename)[:80]}… is too long for this machine; use a shorter one"
        )
    if isinstance(error, OSError) and (message := _failing_machine(error)):
        return message
    if isinstance(error, (RuntimeError, MemoryError)):
        return _out_of_memory(error)
    return None


def terminate(number: int, frame: FrameType | None) -> None:
    """A signal handler that ends the program with status 128 + `number`."""
    sys.exit(128 + number)


def _output_is_closed() -> bool:
    """Whether nobody reads the output any more, as after `| head`; then it is thrown away."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    is_closed = any(event & select.POLLERR for _, event in output.poll(0))
    if is_closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return is_closed


AFTER_SUCCESS: list[Callable[[], object]] = []
"""What `run` calls after a program's `main` has succeeded."""
UNTIL_END: list[ExitStack] = []
"""What the program of `run` holds until its end; none where `main` is called without `run`."""


def run(main: Callable[[], None]) -> None:
    """Runs a program's `main`, then replaces its outputs.

    Known errors print one line, all others their traceback, with status 1; SIGTERM gives 143, an
    output that nobody reads 141. Credentials in what the program prints are hidden.
    """
    signal.signal(signal.SIGTERM, terminate)
    with redacted_output():
        try:
            # Outputs are put into place before what protects them, such as a lock, is released.
            with ExitStack() as held, replacing_together():
                UNTIL_END.append(held)
                held.callback(UNTIL_END.remove, held)
                main()
                for finish in AFTER_SUCCESS:
                    finish()
            sys.stdout.flush()
        except Exception as error:
            _end_with(error)


def _end_with(error: Exception) -> NoReturn:
    """Ends the program after an error, with its message or its traceback."""
    if isinstance(error, BrokenPipeError) and _output_is_closed():
        sys.exit(128 + signal.SIGPIPE)
    message = explain(error)
    if message is None:
        traceback.print_exc()
    else:
        print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(1)
