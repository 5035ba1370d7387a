"""Reads what others wrote: each fault, of the content or of the machine, is one clear line.

Two functions do this for every reader. `reading_content` surrounds the parsing and decoding of
bytes: whatever a library raises for them becomes a DamagedError. `retried` surrounds access to a
disk: an error that may pass is tried again, and then reported as the machine's (MachineError),
because the data may be intact. What treats damaged data as absent catches DamagedError only.
"""

from __future__ import annotations

import errno
import json
import lzma
import os
import re
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from retrace.errors import DataError, MachineError, RetraceError, machine_error, machine_fault
from retrace.limits import ARCHIVE_BYTES, ARCHIVE_FILES, DEPTH, JSON_BYTES, UNPACKED_BYTES

T = TypeVar("T")


class DamagedError(DataError):
    """Content that cannot be parsed or decoded, or that is of another kind."""

    def __init__(self, name: Path | str, fault: str, remedy: str) -> None:
        """`fault`: the end of a sentence about `name`."""
        super().__init__(f"{name} {fault}; {remedy}")
        self.fault = fault


GET_AGAIN = "get the file again, or correct its path"
PASSING = frozenset(
    (errno.EIO, errno.ESTALE, errno.EINTR, errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT, errno.ENOMEM)
)
"""Errors that are often gone a moment later, as on network drives."""
WAITS_S = (0.05, 0.2, 0.8)
"""Pauses before the second, third and fourth attempt."""
LONGEST_CAUSE = 200
"""Characters of a library's message that are quoted."""
WEB_PAGE = re.compile(
    rb"\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE
)
PEEKED_BYTES = 512


# ---------------------------------------------------------------- faults of the machine


def retried(read: Callable[[], T], name: Path | str) -> T:
    """The value of `read`, which is called again after system errors that may pass.

    MachineError for those that remain; other errors, such as FileNotFoundError, are left alone.
    """
    for wait_s in (*WAITS_S, None):
        try:
            return read()
        except OSError as error:
            number = machine_fault(error)
            if number is None:
                raise
            if wait_s is None or number not in PASSING:
                raise machine_error(name, number, is_final=True) from error
        except MachineError as error:  # of `reading_content` within `read`
            if wait_s is None or error.is_final or error.number not in PASSING:
                raise
        time.sleep(wait_s)
    raise AssertionError("unreachable")


def read_bytes(path: Path, most: int | None = None, remedy: str = GET_AGAIN) -> bytes:
    """The bytes of a file; FileNotFoundError if it is absent, MachineError if it is unreadable.

    DamagedError, with a remedy, if it has more than `most` bytes, of which no more are read.
    """
    if most is None:
        return retried(path.read_bytes, path)
    content = retried(lambda: _beginning(path, most + 1), path)
    refuse_size(len(content), most, path, remedy)
    return content


def _beginning(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size  # 0 of files that the system makes when read
        return file.read(min(count, size + 1) if size else count)  # which makes room for as many


def refuse_size(size: int, most: int, name: Path | str, remedy: str = GET_AGAIN) -> None:
    """DamagedError for content of more than `most` bytes."""
    if size > most:
        raise DamagedError(
            name, f"has more than the {most} bytes that are read of such content", remedy
        )


def existing_bytes(path: Path) -> bytes | None:
    """The bytes of a file; None if it does not exist."""
    try:
        return read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, sorted; none if it is no folder. Links to folders are not entered.

    MachineError if a folder cannot be listed: its files are unknown, not absent.
    """
    entries = retried(lambda: _entries(folder), folder)
    here = [path for path, is_folder in entries if not is_folder]
    return sorted([*here, *(f for path, inner in entries if inner for f in files_below(path))])


def _entries(folder: Path) -> list[tuple[Path, bool]]:
    """The paths in a folder, and whether each is a folder itself."""
    try:
        with os.scandir(folder) as entries:
            return [(Path(e.path), e.is_dir(follow_symlinks=False)) for e in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []


# ---------------------------------------------------------------- faults of the content


@contextmanager
def reading_content(name: Path | str, remedy: str = GET_AGAIN) -> Iterator[None]:
    """Turns whatever parsing or decoding raises into one DamagedError of one line.

    Errors of this library pass, and so do those of programming (NameError) and of installation.
    A wrong size in a header can ask for more memory than there is, and nested content for more
    recursion than Python allows: these are faults of the content as well.
    """
    try:
        yield
    except (RetraceError, NameError, ImportError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            raise  # nothing was read, and getting it again does not help
        number = machine_fault(error)
        if number is not None:
            raise machine_error(name, number) from error
        raise DamagedError(name, _fault(name, error), remedy) from error


def _fault(name: Path | str, error: Exception) -> str:
    """What is wrong, as the end of a sentence about `name`."""
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if isinstance(name, Path) and is_web_page(_first_bytes(name)):
        return WEB_PAGE_FAULT
    return f"cannot be read ({cause(error)})"


def cause(error: BaseException) -> str:
    """The first line of an error's message, with its type where that says more."""
    lines = str(error).strip().splitlines()
    text = "".join(c if c.isprintable() else "?" for c in lines[0][:LONGEST_CAUSE]) if lines else ""
    if isinstance(error, KeyError):
        return f"it lacks {text}"
    if isinstance(error, MemoryError):
        return f"it asks for more memory than there is{f': {text}' if text else ''}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    says_little = not text or isinstance(error, (TypeError, AttributeError, IndexError))
    return f"{type(error).__name__}{f': {text}' if text else ''}" if says_little else text


def if_intact(read: Callable[[], T], name: Path | str) -> T | None:
    """The value of `read`, None where it cannot be decoded; for work that is then done again.

    MachineError, not None, if the machine is at fault: the work may be intact.
    """
    try:
        with reading_content(name):
            return retried(read, name)
    except DamagedError:
        return None


WEB_PAGE_FAULT = "is a web page instead of data, perhaps a page to log in"


def is_web_page(content: bytes) -> bool:
    """Whether bytes begin like HTML."""
    return WEB_PAGE.match(content[:PEEKED_BYTES]) is not None


def refuse_web_page(content: bytes | None, name: Path | str, remedy: str = GET_AGAIN) -> None:
    """DamagedError for HTML where data are expected."""
    if content is not None and is_web_page(content):
        raise DamagedError(name, WEB_PAGE_FAULT, remedy)


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(PEEKED_BYTES)
    except OSError:
        return b""


def parse_json(content: bytes | str, name: Path | str, remedy: str = GET_AGAIN) -> Any:
    """The value of a JSON text; DamagedError if it is none."""
    if isinstance(content, bytes):
        refuse_web_page(content, name, remedy)
    refuse_size(len(content), JSON_BYTES, name, remedy)
    with reading_content(name, remedy):
        value = json.loads(content)
        if is_deep(value):
            raise RecursionError
        return value


def is_deep(value: Any, most: int = DEPTH) -> bool:
    """Whether lists, tuples and mappings are nested in more than `most` levels."""
    level = {id(value): value} if isinstance(value, _NESTING) else {}
    for _ in range(most):
        parts = (v.values() if isinstance(v, dict) else v for v in level.values())
        level = {id(one): one for part in parts for one in part if isinstance(one, _NESTING)}
        if not level:
            return False
    return True


_NESTING = (dict, list, tuple)


def parse_json_object(
    content: bytes | str, name: Path | str, remedy: str = GET_AGAIN
) -> dict[str, Any]:
    """The fields of a JSON object; DamagedError if the text is none."""
    value = parse_json(content, name, remedy)
    if not isinstance(value, dict):
        fault = f"cannot be read (it is a JSON {type(value).__name__}, not an object)"
        raise DamagedError(name, fault, remedy)
    return value


def read_json_object(path: Path, remedy: str = GET_AGAIN) -> dict[str, Any]:
    """The fields of a JSON file; FileNotFoundError if absent, DamagedError if damaged."""
    return parse_json_object(read_bytes(path, JSON_BYTES, remedy), path, remedy)


def json_if_intact(path: Path) -> dict[str, Any]:
    """The fields of a JSON file; none if it is absent or damaged. MachineError if unreadable."""
    content = existing_bytes(path)
    if content is None:
        return {}
    return if_intact(lambda: parse_json_object(content, path), path) or {}


# ---------------------------------------------------------------- bounded decompression


class Decompressor(Protocol):
    """What zlib, bz2 and lzma offer for one stream."""

    @property
    def eof(self) -> bool:
        """Whether the stream is complete, and its checksum right."""

    @property
    def unused_data(self) -> bytes:
        """What comes after the stream."""

    def decompress(self, data: Any, max_length: int, /) -> bytes:
        """The first `max_length` bytes of the content."""


FED_BYTES = 1 << 14
"""Bytes that a stream after the first one gets at a time: each copies what follows it."""


def unpacked(begin: Callable[[], Decompressor], content: bytes, limit: int) -> bytes:
    """The bytes of one or several compressed streams, with their checksums compared.

    ValueError for damaged content and for more than `limit` bytes, of which no more are unpacked.
    """
    packed, at, left = memoryview(content), 0, limit
    pieces: list[bytes] = []
    while at < len(packed):
        stream, size = begin(), FED_BYTES if at else len(packed)
        while not stream.eof:
            block = packed[at : at + size]
            if not block:
                raise ValueError("its compressed data end too early")
            try:
                pieces.append(stream.decompress(block, left + 1))
            except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
                raise ValueError(str(error)) from error
            at, left = at + len(block), left - len(pieces[-1])
            if left < 0:
                raise ValueError(f"it unpacks to more than {limit} bytes")
        at = _after_padding(packed, at - len(stream.unused_data))
    if not pieces:
        raise ValueError("it is empty")
    return b"".join(pieces)


def _after_padding(packed: memoryview, at: int) -> int:
    """The place of the first byte from `at` on that is not 0; gzip itself allows such padding."""
    while block := bytes(packed[at : at + FED_BYTES]):
        at += len(block)
        if rest := block.lstrip(b"\0"):
            return at - len(rest)
    return at


def unzipped(content: bytes, limit: int = UNPACKED_BYTES) -> bytes:
    """The bytes of gzip or zlib content; ValueError as for `unpacked`."""
    recognising_both = 32 + zlib.MAX_WBITS
    return unpacked(partial(zlib.decompressobj, recognising_both), content, limit)


def check_archive(archive: zipfile.ZipFile, most: int = ARCHIVE_BYTES) -> None:
    """ValueError for a zip of too many files, or of more than `most` bytes when it is unpacked.

    zipfile unpacks no more of a file than the archive states.
    """
    entries = archive.infolist()
    size = sum(entry.file_size for entry in entries)
    if len(entries) > ARCHIVE_FILES or size > most:
        raise ValueError(
            f"it holds {len(entries)} files of {size} bytes together; at most {ARCHIVE_FILES} "
            f"files of {most} bytes together are unpacked"
        )
