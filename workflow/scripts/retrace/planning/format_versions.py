"""Refuses results that another version of this tool wrote, before any job reads or replaces one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from retrace.errors import DataError
from retrace.storage.manifest import FORMAT_VERSION


def check_versions(*folders: str) -> None:
    """DataError for a manifest in a folder, or one level below, of another format version."""
    for folder in map(Path, folders):
        for path in _manifests(folder):
            version = _version(path)
            if version not in (None, FORMAT_VERSION):
                raise DataError(
                    f"{path} was written by another version of retrace (format {version}, this one "
                    f"reads {FORMAT_VERSION}). To keep these results, use that version or another "
                    "working directory; to compute them again, delete this file"
                )


def _manifests(folder: Path) -> Iterator[Path]:
    for depth in ("*", "*/*"):
        yield from sorted(folder.glob(f"{depth}.manifest.json"))


def _version(path: Path) -> object:
    """The format version in a manifest; None if it has none, and is computed again anyway."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content.get("format_version") if isinstance(content, dict) else None
