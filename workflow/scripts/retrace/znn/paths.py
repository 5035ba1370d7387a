"""Paths in ZNN's text files.

ZNN resolves all of them, those of the `.spec` too, from the folder it is run in: `python`, where
its `.cfg` lies. Here the folder of the `.cfg` comes first, then that of the file that names the
path, then the working directory.
"""

from __future__ import annotations

import filecmp
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from retrace.errors import ConfigError
from retrace.znn.values import WrittenValue


@dataclass(frozen=True)
class NamedFile:
    """A file that a parameter names, where it is or, if there is none, where it is first sought."""

    field: WrittenValue
    text: str
    path: Path
    sought: tuple[Path, ...]
    """The folders in which a relative path is sought, in order."""
    folder: Path
    """The one of them that `path` is in."""

    def check(self) -> Path:
        """Its path; ConfigError if no such file exists."""
        if self.path.is_file():
            return self.path
        folders = " or to ".join(str(folder.resolve()) for folder in self.sought)
        sought = "" if Path(self.text).is_absolute() else f" relative to {folders}"
        raise ConfigError(
            f"{self.field.where}: {self.field.name} names {self.text}, which does not exist"
            f"{sought}; correct the path"
        )


def named_file(field: WrittenValue, folders: Iterable[Path], text: str | None = None) -> NamedFile:
    """The file that a parameter, or the part `text` of it, names relative to one of `folders`.

    ConfigError if the path leads to different files from two of them.
    """
    text = field.text if text is None else text
    sought = _distinct(folders)
    there = [folder for folder in sought if (folder / text).is_file()]
    for other in there[1:]:
        one, two = there[0] / text, other / text
        if not (two.samefile(one) or filecmp.cmp(one, two, shallow=False)):
            raise ConfigError(
                f"{field.where}: {field.name} names {text}, which is {one.resolve()} and also "
                f"{two.resolve()}, and they differ; write the absolute path of one of them"
            )
    folder = (there or sought)[0]
    return NamedFile(field, text, folder / text, sought, folder)


def _distinct(folders: Iterable[Path]) -> tuple[Path, ...]:
    """The folders without repetitions of one under another name."""
    by_place = {folder.resolve(): folder for folder in reversed(list(folders))}
    return tuple(reversed(by_place.values()))


def output_prefix(text: str, folder: Path, name: str = "") -> str:
    """The start of the paths of written files; `name` follows where `text` is a folder.

    A folder is one that exists, or ends in a slash.
    """
    path = folder / text
    is_folder = text.endswith("/") or path.is_dir()
    return f"{path}/{name}" if is_folder else str(path)
