"""What users' files and folders contain, as a digest that is computed once for each version.

A fingerprint of sizes and times tells cheaply that nothing was written; the digest of the bytes
decides when something was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from retrace.errors import DataError
from retrace.files import atomic_write, digest, file_sha256
from retrace.reading import json_if_intact
from retrace.replacement import MANIFEST

MEMORY = Path("work/contents")
"""Where digests are remembered, one file for each path."""
NOT_CONTENT = (".snakemake_timestamp",)
"""Files in folders that are no part of what a folder contains."""


def files_of(path: Path) -> list[Path]:
    """The files of a folder, sorted, or the file itself; DataError if nothing is there."""
    if path.is_dir():
        return sorted(_files_below(path))
    if path.is_file():
        return [path]
    raise DataError(f"{path} does not exist; correct the path, or restore the file")


def _files_below(folder: Path) -> Iterator[Path]:
    """All files of a folder; folders that it links to, as on a scratch disk, are a part of it."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not _leads_back(Path(parent, name))]
        paths = (Path(parent, name) for name in names if name not in NOT_CONTENT)
        yield from (path for path in paths if path.is_file())


def _leads_back(folder: Path) -> bool:
    """Whether a folder is a link to one that contains it, which would never end."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def fingerprint(path: Path) -> str:
    """16 hex digits that change whenever a file is written, replaced, moved or touched."""
    entries: list[Any] = []
    for file in files_of(path):
        stat = file.stat()
        name = file.relative_to(path).as_posix()
        entries.append([name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino])
    return digest(entries)


def content_digest(path: Path) -> str:
    """16 hex digits of the names and bytes of a file or folder; remembered for the same version."""
    now = fingerprint(path)
    known = _remembered(path)
    if known.get("fingerprint") == now:
        return str(known["sha256"])
    content = _digest_of_bytes(path)
    if fingerprint(path) == now:
        with suppress(OSError):  # a read-only folder costs time, not the result
            atomic_write(_memory(path), json.dumps({"fingerprint": now, "sha256": content}))
    return content


def described(manifest: Mapping[str, Any]) -> list[dict[str, str]]:
    """The digests of the arrays and files that a manifest describes, without times and costs."""
    arrays = {name: one["sha256"] for name, one in manifest.get("arrays", {}).items()}
    return [arrays, dict(manifest.get("files", {}))]


def output_digest(path: Path, version: Path | None = None) -> str:
    """16 hex digits of what a job made: of a manifest what it describes, of other files the bytes.

    `version`: where the version of `path` is that counts; else at `path` itself.
    """
    latest = version or path
    is_manifest = path.name.endswith(MANIFEST)
    return digest(described(json_if_intact(latest))) if is_manifest else content_digest(latest)


def has_changed(path: Path, version: Mapping[str, str]) -> bool:
    """Whether a file or folder has other bytes than this version of it (fingerprint, sha256).

    Its times alone do not matter; a new link to a file, for example, changes them.
    """
    if fingerprint(path) == version.get("fingerprint"):
        return False
    return content_digest(path) != version.get("sha256")


def _digest_of_bytes(path: Path) -> str:
    files = files_of(path)
    with ThreadPoolExecutor(4) as pool:
        digests = list(pool.map(file_sha256, files))
    names = [file.relative_to(path).as_posix() for file in files]
    return digest(dict(zip(names, digests, strict=True)))


def _memory(path: Path) -> Path:
    return MEMORY / f"{digest(str(path.absolute()))}.json"


def _remembered(path: Path) -> dict[str, Any]:
    return json_if_intact(_memory(path))
