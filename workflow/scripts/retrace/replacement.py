"""The outputs of a program are replaced together, after all of them are complete.

A kill at any moment leaves all previous versions or all new ones. New versions wait next to the
final names. A journal lists them: once it exists, the new versions count, and the next program or
plan that looks completes what was interrupted (`settle`).
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from retrace.many_files import in_threads
from retrace.relative_paths import relative_path


@dataclass
class Replacement:
    """The outputs of this program, and those whose new versions wait."""

    declared: set[Path] = field(default_factory=set)
    """Absolute paths of the outputs that are replaced together."""
    anchor: Path | None = None
    """The output that the journal is named after; None for the first one that is replaced."""
    waiting: dict[Path, Path] = field(default_factory=dict)
    """By output the path of its new version, both absolute."""
    obsolete: list[Path] = field(default_factory=list)
    """Work that nobody needs once the outputs are replaced."""

    def commit(self) -> None:
        """Replaces all outputs that wait, and removes what is obsolete.

        They are flushed to disk before the journal that makes them count.
        """
        if self.waiting:
            for new in self.waiting.values():
                sync_tree(new)
            anchor = self.anchor or next(iter(self.waiting))
            journal = journal_of(anchor)
            pairs = [
                [relative_path(path, journal.parent) for path in (new, final)]
                for final, new in self.waiting.items()
            ]
            write_durably(journal, json.dumps(pairs).encode())
            settle(anchor)
        for work in self.obsolete:
            _remove(work)


_active: list[Replacement] = []


@contextmanager
def replacing_together(outputs: Iterable[Path] = ()) -> Iterator[Replacement]:
    """Within it `put` waits for the declared outputs; they are replaced if no error is raised."""
    replacement = Replacement()
    _active.append(replacement)
    try:
        declare(outputs)
        yield replacement
        replacement.commit()
    finally:
        _active.remove(replacement)


def declare(outputs: Iterable[Path], anchor: Path | None = None) -> None:
    """Adds outputs to those that this program replaces together; `anchor`: see Replacement.

    First completes what a killed program began with them.
    """
    for output in outputs:
        settle(output)
        if _active:
            _active[-1].declared.add(output.absolute())
    if _active and anchor is not None:
        _active[-1].anchor = anchor.absolute()


def declare_with(output: Path, *others: Path) -> None:
    """Files next to an output are replaced with it, if that is done at the program's end."""
    if is_declared(output):
        _active[-1].declared.update(other.absolute() for other in others)


def put(new: Path, final: Path) -> None:
    """Puts a complete file or folder in the place of `final`: at the program's end if declared.

    It is flushed to disk first: after a power cut, `final` is the earlier or the complete new one.
    """
    if not is_declared(final):
        sync_tree(new)
    _put(new, final)


def _put(new: Path, final: Path) -> None:
    """`put` for what is on disk already, or will be before the outputs are replaced."""
    if is_declared(final):
        _active[-1].waiting[final.absolute()] = new.absolute()
    elif new.is_dir():
        _put_folder(new, final)
        _remove_previous(final)
    else:
        new.replace(final)


def is_declared(output: Path) -> bool:
    """Whether this program replaces the output at its end."""
    return bool(_active) and output.absolute() in _active[-1].declared


def is_waiting(output: Path) -> bool:
    """Whether the new version of an output waits; it is flushed before it is put into its place."""
    return bool(_active) and output.absolute() in _active[-1].waiting


def newest(path: Path) -> Path:
    """Where the newest version of an output of this program is: still waiting, or in its place."""
    return _active[-1].waiting.get(path.absolute(), path) if _active else path


def waiting_outputs() -> list[Path]:
    """The outputs of this program whose new versions wait."""
    return list(_active[-1].waiting) if _active else []


def remove_afterwards(work: Path) -> None:
    """Removes work when the outputs are in place: at once, or at the program's end."""
    if _active and _active[-1].waiting:
        _active[-1].obsolete.append(work)
    else:
        _remove(work)


def _remove(work: Path) -> None:
    if work.is_dir():
        shutil.rmtree(work, ignore_errors=True)
    else:
        work.unlink(missing_ok=True)


JOURNAL = "replacement.json"
"""End of the name of a journal."""
MANIFEST, RECORD = ".manifest.json", ".record.json"
"""Ends of the names of files that describe outputs next to them: of stores, and of other files."""


def journal_of(output: Path) -> Path:
    """The journal of an output, which its manifest or record shares: .NAME.replacement.json."""
    ends = (end for end in (MANIFEST, RECORD) if output.name.endswith(end))
    return _next_to(output.with_name(output.name.removesuffix(next(ends, output.suffix))), JOURNAL)


def settle(output: Path) -> None:
    """Completes the replacement that a killed program began with this output, if there is one."""
    journal = journal_of(output)
    if not journal.is_file():
        return
    with suppress(FileNotFoundError), journal.open() as file:
        with suppress(OSError):  # without locks, on few file systems, only one program may do this
            fcntl.flock(file, fcntl.LOCK_EX)
        if journal.is_file():  # else another program completed it meanwhile
            _complete(journal, json.load(file))


def _complete(journal: Path, replacements: list[list[str]]) -> None:
    """Replaces each output whose new version still waits.

    A file's new version stays until all are in place, because Snakemake restores files when a job
    fails.
    """
    pairs = [(journal.parent / new, journal.parent / final) for new, final in replacements]
    for new, final in pairs:
        if new.is_dir():
            _put_folder(new, final)
        elif new.is_file():
            _put_link(new, final)
    for folder in {final.parent for _, final in pairs}:
        sync_folder(folder)
    journal.unlink()
    for new, final in pairs:
        if not final.is_dir():
            new.unlink(missing_ok=True)
    for _, final in pairs:
        _remove_previous(final)


def _put_folder(new: Path, final: Path) -> None:
    """Renames a folder; an older one is renamed, not removed, so that this takes no time."""
    if final.exists():
        _remove_previous(final)
        final.rename(_next_to(final, "previous"))
    new.rename(final)


def _remove_previous(final: Path) -> None:
    shutil.rmtree(_next_to(final, "previous"), ignore_errors=True)


def _put_link(new: Path, final: Path) -> None:
    """Replaces a file by a second name of `new` or, on disks without such names, by `new`."""
    link = _next_to(final, f"{uuid4().hex}.partial")
    try:
        os.link(new, link)
    except OSError:
        link = new
    link.replace(final)


def write_durably(path: Path, content: bytes) -> None:
    """Writes a file atomically, and flushes it to disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Else a unique name, also among threads and machines that share the disk.
    partial = _next_to(path, "next" if is_declared(path) else f"{uuid4().hex}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    _put(partial, path)
    sync_folder(path.parent)


def sync_folder(folder: Path | str) -> None:
    """Flushes a folder to disk, so that renames in it survive a power cut; or a file."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


THREADS = 8


def sync_tree(folder: Path) -> None:
    """Flushes a folder and all that is in it, or a file, so that they survive a power cut."""
    if not folder.is_dir():
        sync_folder(folder)
        return
    found = [(name, files) for name, _, files in os.walk(folder)]
    in_threads(sync_folder, [f"{name}/{file}" for name, files in found for file in files], THREADS)
    in_threads(sync_folder, [name for name, _ in found], THREADS)


def _next_to(path: Path, end: str) -> Path:
    return path.with_name(f".{path.name}.{end}")
