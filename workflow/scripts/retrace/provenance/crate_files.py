"""Reads an RO-Crate of this workflow: its files, their digests, and the workflow in it."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from retrace.errors import DataError
from retrace.files import file_sha256, read_parsed
from retrace.provenance.folders import CODE, DOCUMENTS, RUN_CONFIG, copy_program
from retrace.reading import check_archive, read_json_object, reading_content

METADATA, TARGET = "ro-crate-metadata.json", "target.json"


@contextmanager
def unpacked(crate: Path) -> Iterator[Path]:
    """The folder of an RO-Crate, of a zip a temporary one; DataError if it is neither."""
    if crate.is_dir():
        yield crate
        return
    with tempfile.TemporaryDirectory(prefix="retrace-crate-") as folder:
        with reading_content(crate, "name a folder or a zip"), zipfile.ZipFile(crate) as archive:
            check_archive(archive)
            archive.extractall(folder)
        yield Path(folder)


def read_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the files in an RO-Crate, by path; DataError if it is not this workflow's."""
    file = folder / METADATA
    with reading_content(file, "name a folder that is an RO-Crate"):
        digests = {
            str(entity["@id"]): str(entity["sha256"])
            for entity in read_json_object(file)["@graph"]
            if "sha256" in entity and "File" in entity["@type"]
        }
    if not {RUN_CONFIG, TARGET, "Snakefile"} <= set(digests):
        raise DataError(
            f"{folder} is no RO-Crate of this workflow: it has no {RUN_CONFIG} or {TARGET}"
        )
    return digests


def read_target(folder: Path) -> str:
    """The target of the run that an RO-Crate describes."""
    return read_parsed(folder / TARGET, lambda content: str(content["target"]))


def place_workflow(crate: Path, directory: Path, digests: Mapping[str, str]) -> None:
    """Copies workflow and configuration of an RO-Crate into a working directory.

    DataError if it contains a file with other content: it belongs to another workflow.
    """
    for name, expected in digests.items():
        if not _is_code(name):
            continue
        target = directory / name
        if not target.exists():
            copy_program(crate / name, target)
        elif file_sha256(target) != expected:
            raise DataError(
                f"{target} differs from the RO-Crate's; choose another --directory, or an empty one"
            )


def _is_code(name: str) -> bool:
    """Whether a file of an RO-Crate belongs to the workflow or its configuration."""
    return name in (*DOCUMENTS, RUN_CONFIG) or name.split("/")[0] in CODE


def compare_results(directory: Path, digests: Mapping[str, str]) -> Iterator[str]:
    """A line per result in the RO-Crate: `same`, `other` or `absent` in the directory."""
    for name, expected in sorted(digests.items()):
        if name.startswith("results/") and not name.endswith(".manifest.json"):
            path = directory / name
            same = path.is_file() and file_sha256(path) == expected
            yield f"{'same' if same else 'other' if path.is_file() else 'absent':8}{name}"
