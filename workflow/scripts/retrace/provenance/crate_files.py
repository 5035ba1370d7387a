"""Reads an RO-Crate of this workflow: its files, their digests, and the workflow in it."""

from __future__ import annotations

import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from retrace.errors import DataError
from retrace.files import file_sha256, read_parsed
from retrace.provenance.folders import CODE, DOCUMENTS, RUN_CONFIG, copy_program
from retrace.provenance.foreign_names import check_names, check_target, inside
from retrace.reading import check_archive, read_json_object, reading_content
from retrace.replacement import MANIFEST

METADATA, TARGET = "ro-crate-metadata.json", "target.json"
KIND = "RO-Crate"


@contextmanager
def unpacked(crate: Path) -> Iterator[Path]:
    """The folder of an RO-Crate, of a zip a temporary one; DataError if it is neither."""
    if crate.is_dir():
        yield crate
        return
    with tempfile.TemporaryDirectory(prefix="retrace-crate-") as folder:
        with reading_content(crate, "name a folder or a zip"), zipfile.ZipFile(crate) as archive:
            check_archive(archive)
            _extract(archive, Path(folder))
        yield Path(folder)


def _extract(archive: zipfile.ZipFile, folder: Path) -> None:
    """Unpacks a zip; DataError for names that lead out of the folder or collide, and for links."""
    entries, crate = archive.infolist(), Path(str(archive.filename))
    names = [entry.filename for entry in entries if not entry.is_dir()]
    check_names(crate, names, KIND)
    has_links = any(stat.S_ISLNK(entry.external_attr >> 16) for entry in entries)
    if has_links or len(set(names)) < len(names):
        what = "links" if has_links else "a file twice"
        raise DataError(f"{crate} contains {what}; get the {KIND} again, from somebody you trust")
    size, free = sum(entry.file_size for entry in entries), shutil.disk_usage(folder).free
    if size > free:
        raise DataError(
            f"{crate} unpacks to {size} bytes, and {folder.parent} has {free}; free some space, or "
            "set TMPDIR to another folder"
        )
    archive.extractall(folder, names)


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
    check_names(folder, digests, KIND)
    for name in digests:
        inside(folder, name, KIND)
    return digests


def read_target(folder: Path) -> str:
    """The target of the run that an RO-Crate describes; DataError for an invalid name."""
    target = read_parsed(folder / TARGET, lambda content: str(content["target"]))
    return check_target(target, f"{KIND} {folder}: {TARGET}")


def place_workflow(crate: Path, directory: Path, digests: Mapping[str, str]) -> None:
    """Copies workflow and configuration of an RO-Crate into a working directory.

    DataError if it contains a file with other content, because it belongs to another workflow, or
    a link that leads elsewhere.
    """
    code = {name: inside(directory, name, "working directory") for name in code_in(digests)}
    for name, target in code.items():
        expected = digests[name]
        if not target.exists():
            copy_program(crate / name, target)
        elif file_sha256(target) != expected:
            raise DataError(
                f"{target} differs from the RO-Crate's; choose another --directory, or an empty one"
            )


def code_in(digests: Iterable[str]) -> list[str]:
    """The files of an RO-Crate that belong to the workflow or its configuration."""
    single = (*DOCUMENTS, RUN_CONFIG)
    return [name for name in digests if name in single or name.split("/")[0] in CODE]


def origin_of_code(folder: Path, digests: Mapping[str, str], own: Mapping[str, Path]) -> list[str]:
    """Lines that say whose code an RO-Crate contains, by its own description and by comparison.

    `own`: the files of this copy of the workflow, by their name there.
    """
    root = _described_root(folder)
    people = [_printable(one) for key in ("author", "creator", "publisher") for one in root[key]]
    code = [name for name in code_in(digests) if name != RUN_CONFIG]
    other = [n for n in code if n not in own or file_sha256(own[n]) != digests[n]]
    named = f", such as {', '.join(other[:3])}" if other else ""
    return [
        f"{_printable(root['name'][0])}, by {', '.join(people) or 'an unnamed author'}",
        f"{len(code)} files of code and configuration; differing from this copy of retrace: "
        f"{len(other)}{named}",
    ]


def _described_root(folder: Path) -> dict[str, list[str]]:
    """What an RO-Crate says about itself and about whose it is."""
    with reading_content(folder / METADATA):
        graph = {str(e["@id"]): e for e in read_json_object(folder / METADATA)["@graph"]}
        root = graph.get("./", {})
        stated = {key: root.get(key, []) for key in ("name", "author", "creator", "publisher")}
        found: dict[str, list[str]] = {}
        for key, value in stated.items():
            items = value if isinstance(value, list) else [value]
            ids = [str(one["@id"]) if isinstance(one, dict) else str(one) for one in items]
            found[key] = [str(graph.get(i, {}).get("name", i)) for i in ids]
    return found | {"name": found["name"] or [folder.name]}


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def compare_results(directory: Path, digests: Mapping[str, str]) -> Iterator[str]:
    """A line per result in the RO-Crate: `same`, `other` or `absent` in the directory."""
    for name, expected in sorted(digests.items()):
        if name.startswith("results/") and not name.endswith(MANIFEST):
            path = directory / name
            same = path.is_file() and file_sha256(path) == expected
            yield f"{'same' if same else 'other' if path.is_file() else 'absent':8}{name}"
