"""What a format declares to be read: how its files are recognised and opened."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrace.errors import DataError
from retrace.files import FileCheck
from retrace.formats.contract import FormatPage
from retrace.limits import CHUNK_BYTES, counted


def refuse_level(name: str, mip: int) -> None:
    """DataError for a `mip` of a single array, which has no levels to choose from."""
    if mip:
        raise DataError(
            f"{name} has no levels, so it has no mip {mip}; leave out `mip`, and name the level's "
            "own array if it has one"
        )


def refuse_large_chunk(name: str, chunk: Sequence[int], itemsize: int) -> None:
    """DataError for chunks that metadata state so large that one alone would fill the memory."""
    size = math.prod(chunk) * itemsize
    if size > CHUNK_BYTES:
        edges = ", ".join(counted(edge) for edge in chunk)
        raise DataError(
            f"{name} has chunks of [{edges}] values, {counted(size)} bytes; chunks of up to "
            f"{CHUNK_BYTES} bytes are read. Correct its metadata, or write it in smaller chunks"
        )


def refuse_array(name: str, array: str) -> None:
    """DataError for an `array` below a path that is an array itself."""
    if array:
        raise DataError(f"{name} is a single array and has no array {array!r}; leave out `array`")


@dataclass(frozen=True)
class Reader:
    """A format of files or folders on this machine."""

    name: str
    """Its name in messages."""
    suffixes: tuple[str, ...]
    """Suffixes of its paths in lower case, for messages."""
    pages: tuple[FormatPage, ...]
    """For the documentation."""
    recognises: Callable[[Path], bool]
    """Whether a path has this format."""
    open: Callable[[Path, str, int, FileCheck | None], Any]
    """Function (path, array, mip, check) -> array (Z, Y, X) or (C, Z, Y, X) with `shape`, `dtype`
    and slicing, or with its axes in another order; its `description` (formats/contract.py) says
    what the file states. DataError where there is no such array. `check` is called with each chunk
    file that is read; formats of single files call it with the name of a chunk that is missing, and
    None."""
