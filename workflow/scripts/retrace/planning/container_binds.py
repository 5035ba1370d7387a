"""Folders outside the working directory that containers have to see, and options that bind them.

A container sees the working directory alone. A link in it that points elsewhere, such as `results`
on a scratch disk, leads nowhere unless its target is bound too.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from retrace.errors import ConfigError
from retrace.planning.plain_names import check_path

LINKED = ("", "data", "results", "work", "logs", "config")
"""Folders of the working directory whose entries may be links to other disks."""
LINK_DEPTH = 2
"""Levels below these folders that are searched for links: data/DATASET/VOLUME.zarr."""
PLAIN = re.compile(r"[\w@%+=~./ -]*[\w@%+=~./-]")
"""Names that `--bind` takes as they are: it splits others, or cuts a space off their end."""


def bound_folders(working: Path, files: Iterable[str], folders: Iterable[Path]) -> list[Path]:
    """Existing folders that containers need besides `working`, sorted, as absolute paths.

    `files`: files that jobs read or write, whose folders are bound; `folders`: further ones. Each
    is bound under the name that jobs use, and under its own if that name is or contains a link.
    """
    named = [working / path for path in files]
    needed = [path.parent for path in named] + [working / folder for folder in folders]
    needed += [path.resolve().parent for path in named]
    bound = {form for path in needed for form in (_absolute(path), path.resolve())}
    own = (working, working.resolve())
    return sorted(f for f in bound if f.is_dir() and not any(f.is_relative_to(o) for o in own))


def linked_folders(working: Path) -> list[Path]:
    """Folders that links in the working directory lead to, and those of files that they lead to."""
    return [t if t.is_dir() else t.parent for t in _link_targets(working)]


def bind_options(folders: Sequence[Path]) -> list[list[str]]:
    """For each folder the words of the option that binds it, under its own name.

    ConfigError for names with line ends and other control characters.
    """
    for folder in folders:
        check_path(str(folder), on_cluster=False)
    return [_bind_option(str(folder)) for folder in folders]


def with_options(arguments: str, options: Iterable[list[str]]) -> str:
    """The arguments of Apptainer, as a shell reads them, with those options that they lack."""
    words = shlex.split(arguments)
    pairs = list(zip(words, words[1:], strict=False))
    missing = [option for option in options if tuple(option) not in pairs]
    return " ".join([arguments, *map(shlex.join, missing)]).strip()


def check_system() -> None:
    """Refuses containers where Apptainer does not exist (ConfigError)."""
    if sys.platform != "linux":
        raise ConfigError(
            f"containers run on Linux only, and this is {sys.platform}; leave --use-singularity "
            "out (a profile may set it), or start in a virtual machine with Linux"
        )


def _bind_option(folder: str) -> list[str]:
    if PLAIN.fullmatch(folder):
        return ["--bind", folder]
    # Words of --mount are those of a line of CSV.
    quoted = folder.replace('"', '""')
    return ["--mount", f'type=bind,"source={quoted}","destination={quoted}"']


def _absolute(path: Path) -> Path:
    """The path without `..`, its links unresolved if nothing goes up behind one."""
    return path.resolve() if ".." in path.parts else path.absolute()


def _link_targets(working: Path) -> Iterator[Path]:
    """Where the links in the working directory lead that jobs may follow."""
    for name in LINKED:
        depth = LINK_DEPTH if name else 0
        yield from _links(working / name, depth)


def _links(folder: Path, depth: int) -> Iterator[Path]:
    """Where links in a folder and `depth` levels below it lead; each step of a chain of links."""
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        step = entry
        while step.is_symlink() and entry.exists():
            step = Path(os.path.normpath(step.parent.resolve() / step.readlink()))
            yield step
        if depth and entry.is_dir() and entry.suffix != ".zarr":
            yield from _links(entry, depth - 1)
