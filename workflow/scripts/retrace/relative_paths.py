"""Paths that stay true when the folder that contains them is moved or copied."""

from __future__ import annotations

from pathlib import Path, PurePath


def relative_path(path: PurePath, folder: Path | None = None) -> str:
    """A path relative to the folder (default: the working directory) that it is in; else itself."""
    base = Path.cwd() if folder is None else folder
    return str(path.relative_to(base) if path.is_relative_to(base) else path)
