"""Checks of what is read: a store against its manifest, an own volume for missing chunks.

Every program opens volumes through `storage.volumes`, which calls this module. The listing of a
store is compared when it is opened, the bytes of a chunk when it is read first; each once per job.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from retrace.errors import DataError
from retrace.files import PIECE, FileCheck
from retrace.formats.shard_files import (
    ARRAY_DOCUMENT,
    absent_chunks_of,
    read_document,
    shard_file,
    shard_layout,
)
from retrace.limits import ABSENT_CHUNKS
from retrace.reading import existing_bytes, retried
from retrace.storage.chunk_index import (
    ChunkDigests,
    chunk_digests,
    chunk_files,
    digest_of_chunks,
    file_digests,
    files_of,
    write_index,
)
from retrace.storage.manifest import (
    check_manifest,
    damaged,
    difference_from,
    indexed_digests,
    manifest_path,
    store_with_manifest,
)

FILL_MISSING = "fill"
"""The `missing_chunks` of a source whose missing chunks read as the fill value."""


class StoreCheck:
    """Compares the files that are read of a store with its manifest."""

    def __init__(self, store: Path) -> None:
        """Compares arrays and numbers of chunks; DataError if they differ."""
        self.store, self.content = store, check_manifest(store)
        self._arrays: Mapping[str, Mapping[str, Any]] = self.content["arrays"]
        self._files: Mapping[str, str] = self.content.get("files", {})
        self._digests: dict[str, ChunkDigests] = {}
        self._written_files: dict[str, Collection[str]] = {}
        self._checked: set[str] = set()
        self._lock, self._failing = threading.Lock(), threading.Lock()
        self._error: DataError | None = None

    def check(self, name: str, data: bytes | None) -> None:
        """DataError if a file, by its path below the store, should exist or has other bytes."""
        if data is not None and name in self._checked:
            return
        array = next((a for a in self._arrays if name.startswith(f"{a}/")), None)
        if array is not None:
            self._check_chunk(array, name.removeprefix(f"{array}/"), data)
        elif name in self._files:
            self._check_file(name, data)
        if data is not None:
            self._checked.add(name)

    def _check_chunk(self, array: str, chunk: str, data: bytes | None) -> None:
        name = chunk.rpartition("/")[2]
        if name.startswith(".") or name == ARRAY_DOCUMENT:
            return
        written = self._digests_of(array)
        if data is None and chunk in self._files_of(array):
            self._fail(difference_from(self.store, self.content) or f"{array}: {chunk} was missing")
        if data is not None and not self._is_as_written(array, chunk, data):
            self._fail(
                f"{array} is damaged: at least 1 of {len(written)} chunks has other bytes than "
                f"when it was written, such as {chunk}"
            )

    def _is_as_written(self, array: str, chunk: str, data: bytes) -> bool:
        """Whether a file or a piece of a shard has its digest; other ranges: the whole file."""
        written = self._digests_of(array)
        if chunk in written:
            return hashlib.sha256(data).digest() == written[chunk]
        name = chunk.partition(PIECE)[0]
        file, layout = self.store / array / name, shard_layout(read_document(self.store / array))
        expected = {n: d for n, d in written.items() if n.partition(PIECE)[0] == name}
        return file_digests(file, name, layout) == expected

    def _files_of(self, array: str) -> Collection[str]:
        """The files of an array's chunks when it was written."""
        if array not in self._written_files:
            self._written_files[array] = set(files_of(self._digests_of(array)))
        return self._written_files[array]

    def _fail(self, difference: str) -> NoReturn:
        """Raises the first error again in all threads: the manifest is invalidated by then."""
        with self._failing:
            self._error = self._error or damaged(self.store, self.content, difference)
        raise DataError(str(self._error))

    def _check_file(self, name: str, data: bytes | None) -> None:
        if data is None or hashlib.sha256(data).hexdigest()[:16] != self._files[name]:
            how = "is missing" if data is None else "has other bytes than when it was written"
            self._fail(f"{name} {how}")

    def _digests_of(self, array: str) -> ChunkDigests:
        """The digests of an array's chunks; without an index, computed once from all its bytes."""
        with self._lock:
            if array not in self._digests:
                expected = self._arrays[array]["sha256"]
                self._digests[array] = indexed_digests(
                    self.store, array, expected
                ) or self._computed(array, expected)
            return self._digests[array]

    def _computed(self, array: str, expected: str) -> ChunkDigests:
        digests = chunk_digests(self.store / array)
        if digest_of_chunks(digests) != expected:
            changed = f"{array}: its bytes changed since they were written"
            self._fail(difference_from(self.store, self.content) or changed)
        write_index(self.store, {**self._digests, array: digests})
        return digests


_CHECKS: dict[tuple[str, int, int], StoreCheck] = {}
"""The checks of this process, by store and version of its manifest."""


def store_check(store: Path) -> StoreCheck:
    """The check of a store with a manifest; its listing is compared once per process."""
    manifest = retried(manifest_path(store).stat, manifest_path(store))
    key = (str(store.resolve()), manifest.st_mtime_ns, manifest.st_size)
    if key not in _CHECKS:
        _CHECKS[key] = StoreCheck(store)
    return _CHECKS[key]


def check_folder(folder: Path) -> None:
    """Compares all bytes of a folder of files with its manifest, if it has one, once per process.

    For checkpoints and tables, which are read whole. DataError if a file is missing or changed.
    """
    store = store_with_manifest(folder)
    if store is None or not store.is_dir():
        return
    check = store_check(store)
    for name in check.content.get("files", {}):
        check.check(name, existing_bytes(store / name))


def file_check(path: Path | None, name: str, missing_chunks: str | None) -> FileCheck | None:
    """The check for the files of a folder of this machine, or None for a remote one's; see Source.

    `name`: the volume in messages. Folders with a manifest are compared with it.
    """
    store = None if path is None else store_with_manifest(path)
    if path is not None and store is not None:
        check = store_check(store).check
        below = path.relative_to(store).as_posix()
        return check if below == "." else partial(_with_prefix, check, below)
    return missing_check(name, missing_chunks)


def missing_check(name: str, missing_chunks: str | None) -> FileCheck | None:
    """The check that refuses missing chunks of a volume, None where they read as fill value."""
    return None if missing_chunks == FILL_MISSING else partial(_refuse_absent, name)


def _with_prefix(check: FileCheck, prefix: str, name: str, data: bytes | None) -> None:
    check(f"{prefix}/{name}", data)


def _refuse_absent(volume: str, name: str, data: bytes | None) -> None:
    if data is None:
        raise DataError(f"{volume}: chunk {name} is missing; {_NEXT_STEP}")


_NEXT_STEP = (
    "restore it. If the program that wrote the volume leaves out empty chunks, set "
    "`missing_chunks: fill` for this source in the dataset's config"
)


_COMPLETE: set[str] = set()
"""Folders of own arrays that have all chunks, as seen once by this process."""


def check_all_chunks(volume: str, folder: Path, names: Iterable[str]) -> None:
    """DataError if chunks of an own array are missing; `names`: those of a complete array.

    `volume`: its name in messages.
    """
    if str(folder.resolve()) in _COMPLETE:
        return
    files = (path for path in chunk_files(folder) if path.stat().st_size)  # a shard may be cut to 0
    present = {path.relative_to(folder).as_posix() for path in files}
    # A wrong shape can ask for more names than memory holds.
    expected = list(islice(names, len(present) + ABSENT_CHUNKS))
    absent = [name for name in expected if name not in present]
    if absent:
        some = "at least " if len(expected) == len(present) + ABSENT_CHUNKS else ""
        raise DataError(
            f"{volume}: {some}{len(absent)} of {len(expected)} chunks are missing or empty files, "
            f"such as {absent[0]}"
            f"{_misnamed(absent, present)}; {_NEXT_STEP}"
        )
    _COMPLETE.add(str(folder.resolve()))


CHUNK_NAME = re.compile(r"N(\.N)*|c(\.N)*")
"""Names of files and folders that hold chunks in one of zarr's encodings, N for each number."""


def check_chunk_names(volume: str, folder: Path, key: str) -> None:
    """DataError for chunk files of a zarr array that no key reaches, so they would read as empty.

    `key`: the path of a chunk below the array's folder. Such files come from programs that do not
    write the separator of the keys into the metadata.
    """
    expected = _pattern(key.partition("/")[0])
    with os.scandir(folder) as entries:
        others = (e.name for e in entries if CHUNK_NAME.fullmatch(_pattern(e.name)))
        other = next((name for name in others if _pattern(name) != expected), None)
    if other is not None:
        raise DataError(
            f"{volume}: its metadata name chunks as {key}, and there is {other}, which no chunk's "
            f"name begins with; {_SEPARATOR_HINT}"
        )


_SEPARATOR_HINT = (
    'correct the metadata: `"dimension_separator": "/"` in .zarray for nested chunks (0/0/0), "." '
    "for flat ones (0.0.0)"
)


def _pattern(name: str) -> str:
    return re.sub("[0-9]+", "N", name)


def check_first_chunk_names(volume: str, key: str, exists: Callable[[str], bool]) -> None:
    """As `check_chunk_names` for a streamed array of format 2, whose files cannot be listed.

    `key`: of the first chunk; `exists`: whether an object below the array exists.
    """
    separator, other = ("/", ".") if "/" in key else (".", "/")
    twin = key.replace(separator, other)
    if twin != key and exists(twin):
        raise DataError(
            f"{volume}: its metadata name chunks as {key}, and there is {twin}; {_SEPARATOR_HINT}"
        )


_COMPLETE_SHARDS: set[str] = set()
"""Folders of own arrays whose shards have all chunks, as seen once by this process."""


def check_all_in_shards(volume: str, folder: Path) -> None:
    """DataError if chunks are missing inside the shards of an own array.

    `volume`: its name in messages.
    """
    layout = shard_layout(read_document(folder))
    if layout is None or str(folder.resolve()) in _COMPLETE_SHARDS:
        return
    for shard in layout.all_shards():
        if absent := absent_chunks_of(shard_file(folder, shard), layout, shard):
            raise DataError(
                f"{volume}: {len(absent)} of {len(layout.chunks_in(shard))} chunks are missing in "
                f"shard {list(shard)}, such as {list(absent[0])}; {_NEXT_STEP}"
            )
    _COMPLETE_SHARDS.add(str(folder.resolve()))


def _misnamed(absent: Iterable[str], present: Collection[str]) -> str:
    """Why chunk files are not where a zarr's metadata says: the other separator was used."""
    for separator, other in ((".", "/"), ("/", ".")):
        count = sum(name.replace(separator, other) in present for name in absent)
        if count and all(other not in name for name in absent):
            return (
                f"; {count} chunk files are named with {other!r} instead: set "
                f'`"dimension_separator": "{other}"` in its .zarray'
            )
    return ""
