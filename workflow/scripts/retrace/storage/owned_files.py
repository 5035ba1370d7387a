"""Files in a user's own folders: a job replaces only those that it wrote itself.

A record next to the job's results holds a digest of each file that was written outside of them. It
belongs to one dataset and network, so that no other training or prediction replaces these files,
and neither does this one once somebody else has changed them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from retrace.errors import DataError
from retrace.files import file_sha256, write_json
from retrace.reading import json_if_intact
from retrace.relative_paths import relative_path
from retrace.replacement import sync_folder, sync_tree
from retrace.storage.foreign_entries import added_entries
from retrace.storage.manifest import difference_from, manifest_path, read_manifest

RECORD = "written_files.json"
"""Name of a record."""
NETWORKS, PREDICTIONS = "train_net_prefix", "output_prefix"
"""The settings that choose the names of such files."""


def recorded(record: Path) -> dict[str, list[str]]:
    """By name the digests that a written file may have; empty without a record.

    Records of earlier versions are lists of names: they do not say what was written.
    """
    return json_if_intact(record)


def put_owned(record: Path, new: Path, final: Path, setting: str) -> None:
    """Puts a complete file in the place of `final`, and records it; DataError as `check_owned`.

    The record is written first, and holds the earlier version too: a kill at any moment leaves a
    file that is in the record.
    """
    check_owned(record, [final], setting)
    digests = [file_sha256(path) for path in (new, final) if path.exists()]
    write_json(record, {**recorded(record), _name(final): list(dict.fromkeys(digests))})
    sync_tree(new)
    new.replace(final)
    sync_folder(final.parent)


def _name(file: Path) -> str:
    """A file as records name it: relative in the working directory, which may be copied."""
    return relative_path(file.resolve())


def own(record: Path, files: Iterable[Path]) -> None:
    """Records existing files as they are, so that the job of `record` may replace them."""
    known = {_name(file): [file_sha256(file)] for file in files if file.is_file()}
    write_json(record, {**recorded(record), **known})


def is_owned(record: Path, file: Path) -> bool:
    """Whether a file is, byte for byte, as the record says."""
    return _is_as_recorded(file, recorded(record))


def _is_as_recorded(file: Path, known: Mapping[str, list[str]]) -> bool:
    digests = known.get(_name(file), [])
    return bool(digests) and file_sha256(file) in digests


def check_owned(record: Path, files: Iterable[Path], setting: str) -> None:
    """DataError if a file exists that is not, byte for byte, as the record says.

    `setting`: what chose the names of the files.
    """
    known = recorded(record)
    for file in files:
        if file.exists() and not _is_as_recorded(file, known):
            raise _foreign(file, record, setting, was_written=_name(file) in known)


def _foreign(file: Path, record: Path, setting: str, *, was_written: bool) -> DataError:
    reason = (
        f"was changed after {record.parent} wrote it"
        if was_written
        else f"was not written for {record.parent} ({record.name} there does not name it)"
    )
    hint = "; to start from it, move it and name it with `init`"
    return DataError(
        f"{file} exists and {reason}, so it is kept; move it to another folder, or choose another "
        f"`{setting}`{hint if setting == NETWORKS else ''}"
    )


def znn_network_files(prefix: str) -> list[Path]:
    """The existing files of a training of ZNN: PREFIX_current.h5, PREFIX_1000.h5 and the others."""
    start = Path(prefix)
    if not start.parent.is_dir():
        return []
    name = re.compile(rf"{re.escape(start.name)}_(statistics_)?(init|current|\d+)\.h5")
    return sorted(path for path in start.parent.iterdir() if name.fullmatch(path.name))


LOG_ENDS = ("log.txt", "config.cfg", "network.znn", "data.spec")
"""Ends of the names of what a training of ZNN records with `logging = yes`."""


def log_files(prefix: str) -> list[Path]:
    """The files that a training of ZNN records with `logging = yes`."""
    return [Path(f"{prefix}_{end}") for end in LOG_ENDS]


def check_replaceable(output: Path, work: Path, *, in_results: bool) -> None:
    """DataError for a folder at `output` that is not, byte for byte, what an earlier run wrote.

    It has its manifest next to it, or an interrupted run left the folder `work`. `in_results`: the
    workflow chose the folder, where it replaces damaged layers.
    """
    if not output.exists() or work.is_dir():
        return
    reason = None
    if not manifest_path(output).is_file():
        reason = f"was not written by this program ({manifest_path(output).name} is missing)"
    elif not in_results and (change := _change(output)):
        reason = f"was changed after it was written ({change})"
    if reason:
        raise DataError(
            f"{output} exists and {reason}, so it is not replaced; choose another `--output`, or "
            "move it to another folder"
        )


def _change(layer: Path) -> str | None:
    """How a layer differs from its manifest, also by files that were added; None if it does not."""
    content = read_manifest(layer)
    added = next(added_entries(layer, [*content["arrays"], *content.get("files", {})]), None)
    if added is not None:
        return f"{added.name} was added"
    return difference_from(layer, content, digests=True)
