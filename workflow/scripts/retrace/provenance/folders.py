"""Folders that are copied to other machines: which files they contain, and checks of their copies.

Standard library only: a packed experiment is checked before anything is installed.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from retrace.errors import DataError
from retrace.files import file_sha256
from retrace.redaction import redacted

CODE = ("Snakefile", "rules", "config", "workflow", "profiles", "containers", "envs")
"""Files and folders of the workflow, relative to the repository."""
DOCUMENTS = ("README.md", "CITATION.cff", "LICENSE", "pyproject.toml")
OWN_CONFIG = ("datasets", "networks", "published")
"""Folders of `config` in the working directory to which users add files."""
LEFT_OUT = ("__pycache__", "images", ".snakemake")
SHARED_TEXT = (".yaml", ".yml", ".json", ".log")
"""Files that users and jobs write, and in which an address may have credentials."""
RUN_CONFIG = "run.yaml"
"""The configuration of the run, in RO-Crates and packed experiments."""


def files_below(folder: Path, left_out: Collection[str] = ()) -> Iterator[Path]:
    """All files of a folder, sorted by name, except the timestamps that Snakemake writes.

    Folders named in `left_out` are never entered: an image that is being built contains folders of
    other users, and files that disappear.
    """
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            if entry.name not in left_out:
                yield from files_below(entry, left_out)
        elif entry.is_file() and entry.name != ".snakemake_timestamp":
            yield entry


def code_files(root: Path, directory: Path) -> dict[str, Path]:
    """The workflow's files, and the user's in `directory`/config, by their relative paths.

    `root`: the repository; `directory`: the working directory, whose files override the others.
    """
    files = {name: root / name for name in DOCUMENTS if (root / name).is_file()}
    for name in CODE:
        part = root / name
        for path in files_below(part, LEFT_OUT) if part.is_dir() else [part]:
            files[path.relative_to(root).as_posix()] = path
    for name in OWN_CONFIG:
        folder = directory / "config" / name
        for path in files_below(folder) if folder.is_dir() else []:
            files[path.relative_to(directory).as_posix()] = path
    return files


def code_versions(root: Path, directory: Path) -> dict[str, str]:
    """8 hex digits of the bytes of each file of `code_files`."""
    return {name: file_sha256(path)[:8] for name, path in code_files(root, directory).items()}


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link at `target` where the disk allows it, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source.resolve())
    except OSError:
        shutil.copyfile(source, target)


def copy_program(source: Path, target: Path) -> None:
    """A copy with the permissions of `source` and the current time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def copy_shared(source: Path, target: Path) -> None:
    """`copy_program`, with credentials in configurations, records and logs hidden."""
    if not copy_if_secret(source, target):
        copy_program(source, target)


def copy_if_secret(source: Path, target: Path) -> bool:
    """Copies a configuration, record or log that has credentials, with these hidden.

    False, and no copy, for other files and for those without credentials.
    """
    if source.suffix not in SHARED_TEXT:
        return False
    text = source.read_text(errors="surrogateescape")
    clean = redacted(text)
    if clean == text:
        return False
    print(f"{source}: credentials in it are hidden in the copy", flush=True)
    copy_program(source, target)
    target.write_text(clean, errors="surrogateescape")
    return True


def check_files(folder: Path, digests: Mapping[str, str], kind: str) -> None:
    """DataError if a file of `folder` is missing or differs from its SHA-256.

    `digests`: SHA-256 by path in `folder`; `kind`: what the folder is called, such as "bundle".
    """
    for name, expected in digests.items():
        path = folder / name
        if not path.is_file():
            raise DataError(f"{kind} {folder}: {name} is missing; copy the {kind} again")
        if file_sha256(path) != expected:
            raise DataError(
                f"{kind} {folder}: {name} has changed since the {kind} was written (its SHA-256 is "
                f"no longer {expected[:16]}…); copy the {kind} again"
            )
