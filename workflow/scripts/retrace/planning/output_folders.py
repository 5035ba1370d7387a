"""Refuses output folders that cannot be written, before any job runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from retrace.errors import ConfigError


def check_writable(*folders: str) -> None:
    """ConfigError for a folder that cannot be created or written."""
    for folder in folders:
        for path in _to_root(Path(folder)):
            if path.is_symlink() and not path.exists():
                raise ConfigError(
                    f"{path} is a link to {path.readlink()}, which does not exist; create that "
                    "folder, or correct the link"
                )
            if path.exists():
                _check_existing(Path(folder), path)
                break


def _to_root(folder: Path) -> Iterator[Path]:
    yield folder
    yield from folder.parents


def _check_existing(folder: Path, path: Path) -> None:
    if not path.is_dir():
        raise ConfigError(f"{folder} cannot be created: {path} is no folder; move that file away")
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{folder} cannot be written: {path} is not writable; change its permissions, or "
            "choose another working directory with `--directory`"
        )
