"""Checks, before a transfer, that the names of all objects can be stored as files.

A bucket has no folders: it may have objects `a` and `a/b`, which no disk can hold together, and
names that are too long for a disk, or that differ only in what some disks ignore.
"""

from __future__ import annotations

import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from retrace.errors import FetchError
from retrace.limits import NAME_BYTES, PATH_BYTES

LONGEST_ASIDE = len(f".{'0' * 32}.part")
"""Bytes of the names of files that are being written."""
NEXT_STEP = "rename it in the bucket, or fetch a folder without it"


def safe_name(name: str) -> str:
    """`name`, if it is a relative path that can be stored; FetchError otherwise."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in name:
        raise FetchError(f"object name {name!r} is not a plain relative path; it cannot be stored")
    if not name.isprintable() and {*map(unicodedata.category, name)} & {"Cc", "Cs"}:
        raise FetchError(
            f"object name {name!r} has control characters; it cannot be stored: {NEXT_STEP}"
        )
    return name


def check_names(names: Sequence[str], folder: Path) -> None:
    """FetchError unless all objects can be stored as files of a folder, each with its own bytes."""
    for name in names:
        if len(name) > NAME_BYTES // 4:  # a letter has up to 4 bytes
            _check_length(name, folder)
    alike = next(clashes(names, folded), None)
    if alike is None:  # names that are equal are so in every form
        return
    if pair := next(clashes(names, str), None):
        raise FetchError(f"{_both(*pair)} cannot be stored together: {NEXT_STEP}")
    if not tells_apart(folder):
        raise FetchError(
            f"{_both(*alike)} have the same name on the disk of {folder}, which ignores case or "
            "the form of accents; fetch to another disk"
        )


def _check_length(name: str, folder: Path) -> None:
    """FetchError for names beyond what disks allow."""
    longest = max(len(part.encode()) for part in name.split("/"))
    whole = len(str(folder.absolute()).encode()) + len(name.encode()) + LONGEST_ASIDE
    if longest > NAME_BYTES or whole > PATH_BYTES:
        raise FetchError(
            f"object name {name[:80]!r}… is too long for a file below {folder}: {NAME_BYTES} bytes "
            f"for a name and {PATH_BYTES} for a path are possible; {NEXT_STEP}"
        )


def clashes(names: Sequence[str], form: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """Pairs of names of which the first has the form of the second, or of a folder of it."""
    by_form: dict[str, str] = {}
    inside: dict[str, str] = {}
    """By folder a name in it."""
    for name in names:
        other = by_form.setdefault(form(name), name)
        if other is not name:
            yield other, name
        inside.setdefault(name.rpartition("/")[0], name)
    for parent, name in inside.items():
        for folder in _with_parents(parent):
            if form(folder) in by_form:
                yield by_form[form(folder)], name


def _with_parents(folder: str) -> Iterator[str]:
    """`a/b/c` -> `a/b/c`, `a/b`, `a`; nothing for the top."""
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]


def folded(name: str) -> str:
    """The form of a name that is equal for names that differ in case or accents' encoding only."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", name).casefold()


def _both(one: str, other: str) -> str:
    return f"the objects {one!r} and {other!r}"


def tells_apart(folder: Path) -> bool:
    """Whether the disk of a folder tells upper from lower case, and forms of accents."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    with tempfile.TemporaryDirectory(dir=place) as trial:
        for name in ("a", "\u00e9"):
            Path(trial, name).touch()
        return not any(Path(trial, name).exists() for name in ("A", "e\u0301"))
