"""Folders that are carried elsewhere: which files go into them, and that they arrived whole.

Standard library only: a bundle is checked before anything of it is installed.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from retrace.errors import DataError

CODE = ("Snakefile", "rules", "config", "workflow", "profiles", "containers", "envs")
"""What the workflow is made of, from the repository's root."""
WORDS = ("README.md", "CITATION.cff", "LICENSE", "pyproject.toml")
OWN_CONFIG = ("datasets", "networks", "published")
"""Folders of `config` that a user adds files to, in the working directory."""
LEFT_OUT = ("__pycache__", "images", ".snakemake")


def split_options(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command line's own words, and those after `--`, which are for Snakemake."""
    words = [*argv, "--"]
    first = words.index("--")
    return list(argv[:first]), list(argv[first + 1 :])


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_below(folder: Path, left_out: Collection[str] = ()) -> Iterator[Path]:
    """All files of a folder, sorted by name, without Snakemake's mark of a directory's time.

    Folders called as in `left_out` are never entered: an image that is being built holds folders
    of other owners, and files that go while one looks.
    """
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            if entry.name not in left_out:
                yield from files_below(entry, left_out)
        elif entry.is_file() and entry.name != ".snakemake_timestamp":
            yield entry


def code_files(root: Path, place: Path) -> dict[str, Path]:
    """By path in the repository, the workflow's files, and the user's own in `place`/config.

    `root`: the repository's top folder; `place`: the working directory.
    """
    found = {name: root / name for name in WORDS if (root / name).is_file()}
    for name in CODE:
        part = root / name
        for path in files_below(part, LEFT_OUT) if part.is_dir() else [part]:
            found[path.relative_to(root).as_posix()] = path
    for name in OWN_CONFIG:
        folder = place / "config" / name
        for path in files_below(folder) if folder.is_dir() else []:
            found[path.relative_to(place).as_posix()] = path
    return found


def linked_or_copied(source: Path, target: Path) -> None:
    """Puts a file's bytes at `target`: the same file where the disk allows it, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source.resolve())
    except OSError:
        shutil.copyfile(source, target)


def copied(source: Path, target: Path) -> None:
    """A copy that can run where `source` can; its time is that of now."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def check_files(folder: Path, digests: Mapping[str, str], kind: str) -> None:
    """Refuses a folder in which a file is missing or altered (DataError names it).

    `digests`: SHA-256 by path in `folder`; `kind`: what the folder is called, e.g. "crate".
    """
    for name, expected in digests.items():
        path = folder / name
        if not path.is_file():
            raise DataError(f"{kind} {folder}: {name} is missing; bring the {kind} again")
        if sha256_of(path) != expected:
            raise DataError(
                f"{kind} {folder}: {name} is not as it was when the {kind} was made (its SHA-256 "
                f"is not {expected[:16]}…); bring the {kind} again"
            )
