"""Small files: reading JSON, atomic writing, digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from retrace.errors import DataError
from retrace.limits import JSON_BYTES
from retrace.reading import parse_json, read_bytes, reading_content, retried
from retrace.redaction import without_known
from retrace.replacement import journal_of, settle, write_durably

T = TypeVar("T")
FileCheck = Callable[[str, bytes | None], None]
"""Called with each file of a store that is read: its path below the opened folder, and its bytes,
None if it is absent. `piece_name` is the name of a range of bytes. Raises DataError if the file
should be there, or has other bytes."""
PIECE = " bytes "
"""Between a file's name and the range of bytes that is one piece of it."""


def piece_name(file: str, begin: int, end: int) -> str:
    """The name of a range of bytes of a file: `c/0/0/1 bytes 0-4095`."""
    return f"{file}{PIECE}{begin}-{end - 1}"


def digest(value: Any) -> str:
    """16 hex digits that name a JSON value or settings, whatever the order of the keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_settings_as_json)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _settings_as_json(value: Any) -> Any:
    """A group of settings as JSON values."""
    # Imported late: it needs pydantic, and a bundle is checked before anything is installed.
    from retrace.settings_model import as_plain

    return as_plain(value)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""

    def read() -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return retried(read, path)


def atomic_write(path: Path, content: bytes | str) -> Path:
    """Writes a file atomically: `path` has either its old or its complete new content.

    An output of the running job is replaced at the job's end, with the others. In text, known
    secrets are hidden.
    """
    data = without_known(content).encode() if isinstance(content, str) else content
    write_durably(path, data)
    return path


def complete_replacement(output: Path) -> None:
    """Completes the replacement that a killed program began with this output, if there is one.

    DataError if its journal is damaged, MachineError if it cannot be read.
    """
    journal = journal_of(output)
    with reading_content(journal, "delete it with the outputs next to it, and run again"):
        retried(lambda: settle(output), journal)


def read_json(path: Path) -> Any:
    """The content of a JSON file; DataError if it is missing or damaged."""
    remedy = "delete it and run again"
    try:
        return parse_json(read_bytes(path, JSON_BYTES, remedy), path, remedy)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; run the rule that writes it") from error


def read_parsed(path: Path, parse: Callable[[Any], T]) -> T:
    """What `parse` makes of a JSON file; DataError if it is missing or damaged."""
    content = read_json(path)
    with reading_content(path, "delete it and run again"):
        return parse(content)


def write_json(path: Path, content: Any) -> Path:
    """Writes `content` atomically, one key or element on each line."""
    return atomic_write(path, json.dumps(content, indent=1) + "\n")


def human_bytes(count: float) -> str:
    """`1536` -> `1.5 kB`; decimal units (powers of 1000), as for the sizes of disks."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"
