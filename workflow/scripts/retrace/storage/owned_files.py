"""Files in a user's own folders: the workflow overwrites only those that it wrote itself.

A record in the folder of a training, or of a prediction, lists what was written outside of it. An
entry is there before its file is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from retrace.errors import DataError
from retrace.files import read_json, write_json

RECORD = "written_files.json"
"""Name of a record."""


def recorded(records: Iterable[Path]) -> set[str]:
    """The files that are in one of the records; DataError if one is damaged."""
    return {file for record in records if record.is_file() for file in read_json(record)}


def claim(record: Path, files: Iterable[Path]) -> None:
    """Records that files are about to be written."""
    known = recorded([record])
    claimed = known | {_name(file) for file in files}
    if claimed != known:
        write_json(record, sorted(claimed))


def _name(file: Path) -> str:
    """A file as records name it: relative in the working directory, which may be copied."""
    path, here = file.resolve(), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def check_unowned(records: Iterable[Path], files: Iterable[Path], setting: str) -> None:
    """DataError if a file exists that is in none of the records.

    `setting`: what chose the names of the files.
    """
    known = recorded(records)
    for file in files:
        if file.exists() and _name(file) not in known:
            raise DataError(
                f"{file} exists and is not one of this run's own files, so it is kept; choose "
                f"another `{setting}`, or move the files of that name to another folder. To start "
                "from an .h5 of ZNN, move it and name it with `init`"
            )


def znn_network_files(prefix: str) -> list[Path]:
    """The existing files of a training of ZNN: PREFIX_current.h5, PREFIX_1000.h5 and the others."""
    start = Path(prefix)
    if not start.parent.is_dir():
        return []
    name = re.compile(rf"{re.escape(start.name)}_(statistics_)?(init|current|\d+)\.h5")
    return sorted(path for path in start.parent.iterdir() if name.fullmatch(path.name))


def check_replaceable(output: Path, manifest: Path, work: Path) -> None:
    """DataError for a folder at `output` that no earlier run wrote.

    It has its manifest next to it, or an interrupted run left the folder `work`.
    """
    if output.exists() and not manifest.is_file() and not work.is_dir():
        raise DataError(
            f"{output} exists and was not written by this program ({manifest.name} is missing), so "
            "it is not replaced; choose another `--output`, or move it to another folder"
        )
