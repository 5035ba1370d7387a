"""Puts stores that jobs made in shares together, without copying what they hold."""

from __future__ import annotations

import itertools
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from retrace.errors import DataError
from retrace.files import digest
from retrace.progress import progress
from retrace.storage.manifest import check_manifest, chunk_files, read_manifest, withdraw
from retrace.storage.zarr_writer import LIST_CHUNK, create_list

METADATA = (".zarray", ".zattrs", ".zgroup")


@dataclass(frozen=True)
class Part:
    """One array of one share."""

    store: Path
    array: Any

    @property
    def folder(self) -> Path:
        return self.store / str(self.array.name).strip("/")


def differences(stores: Sequence[Path]) -> list[str]:
    """What is wrong with those stores whose bytes are not as their manifests say.

    They lose their manifests, so that the next run makes them again, not the others.
    """
    damaged = []
    for store in progress(stores, len(stores), "verify", "stores"):
        try:
            check_manifest(store, digests=True)
        except DataError as error:
            damaged.append(str(error))
    return damaged


def check_shares(stores: Sequence[Path]) -> None:
    """DataError that names every share whose bytes are not as its manifest says."""
    if damaged := differences(stores):
        raise DataError("; ".join(damaged))


def _parts(stores: Sequence[Path]) -> dict[str, list[Part]]:
    """The arrays of all shares by name, in the order of the shares."""
    found: dict[str, list[Part]] = {}
    for store in stores:
        for name, array in zarr.open_group(store, mode="r").arrays():
            found.setdefault(name, []).append(Part(store, array))
    return found


def _link(source: Path, target: Path) -> None:
    """The same bytes under a second name; a copy where the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _link_metadata(source: Path, target: Path) -> None:
    for name in METADATA:
        if (source / name).is_file():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)


def _check_same(parts: Sequence[Part]) -> None:
    first = parts[0].array
    for part in parts[1:]:
        same = part.array.shape == first.shape and part.array.chunks == first.chunks
        if not same or part.array.dtype != first.dtype:
            raise DataError(
                f"{part.folder} has shape {part.array.shape} and chunks {part.array.chunks}, "
                f"{parts[0].folder} {first.shape} and {first.chunks}: not shares of one array. "
                "Delete these stores and run the same command again"
            )


def link_array(parts: Sequence[Part], target: Path) -> None:
    """One array of the chunks of all shares; DataError where a chunk is there twice or never."""
    _check_same(parts)
    _link_metadata(parts[0].folder, target)
    seen: dict[Path, Path] = {}
    for part in parts:
        for file in chunk_files(part.folder):
            chunk = file.relative_to(part.folder)
            if chunk in seen:
                raise DataError(f"{part.folder} and {seen[chunk]} both hold chunk {chunk}")
            seen[chunk] = part.folder
            _link(file, target / chunk)
    first = parts[0].array
    edges = zip(first.shape, first.chunks, strict=True)
    expected = math.prod(math.ceil(size / chunk) for size, chunk in edges)
    if len(seen) != expected:
        raise DataError(
            f"the shares of {target.name} hold {len(seen)} of {expected} chunks together: a share "
            "is missing, or they were cut differently. Delete them and run the same command again"
        )


def _rows(parts: Sequence[Part]) -> Iterator[np.ndarray]:
    """The rows of all shares in order, LIST_CHUNK at a time; the last piece is shorter."""
    waiting: list[np.ndarray] = []
    for part in parts:
        for begin in range(0, part.array.shape[0], LIST_CHUNK):
            waiting.append(np.asarray(part.array[begin : begin + LIST_CHUNK]))
            while sum(map(len, waiting)) >= LIST_CHUNK:
                rows = np.concatenate(waiting)
                yield rows[:LIST_CHUNK]
                waiting = [rows[LIST_CHUNK:]]
    yield np.concatenate(waiting) if waiting else np.empty(0)


def concatenate_lists(parts: Sequence[Part], target: Path) -> None:
    """One list of the lists of all shares; memory holds a piece of it."""
    first = parts[0].array
    total = sum(part.array.shape[0] for part in parts)
    group = zarr.open_group(target.parent, mode="a", zarr_format=2)
    array = create_list(group, target.name, (total, *first.shape[1:]), first.dtype)
    array.attrs.update(dict(first.attrs))
    begins = itertools.count(0, LIST_CHUNK)
    for begin, rows in zip(begins, _rows(parts), strict=False):
        if len(rows):
            array[begin : begin + len(rows)] = rows


def reads_of(stores: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """By address what all shares read of a volume elsewhere, for the manifest.

    Where it was changed between the first and the last of them, those that read what it was lose
    their manifests, and DataError names them.
    """
    found: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for store in stores:
        for address, facts in read_manifest(store).get("read", {}).items():
            found.setdefault(address, []).append((store, facts))
    return {address: _read_together(address, shares) for address, shares in found.items()}


def _read_together(address: str, shares: Sequence[tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
    facts = [fact for _, fact in shares]
    latest = max(facts, key=lambda fact: str(fact["read_from"]))
    change = max(str(fact["unchanged_since"] or "") for fact in facts)
    stale = [
        store
        for store, fact in shares
        if fact["read_from"] < change or fact["documents"] != latest["documents"]
    ]
    for store in stale:
        withdraw(store)
    if stale:
        raise DataError(
            f"{address} was changed after {', '.join(map(str, stale))} had read it. Their "
            "manifests were set aside: run the same command again, which makes them anew"
        )
    return {
        "sha256": digest([fact["sha256"] for fact in facts]),
        "documents": latest["documents"],
        "unchanged_since": change or None,
        "read_from": min(fact["read_from"] for fact in facts),
    }


def assemble(stores: Sequence[Path], target: Path) -> dict[str, int]:
    """All arrays of `stores` in the new store `target`; returns how many shares each has.

    Arrays of three or four axes are volumes, of which each share holds some chunks; those of one
    or two are lists, which follow each other in the order of `stores`.
    """
    _link_metadata(stores[0], target)
    found = _parts(stores)
    for name, parts in found.items():
        if parts[0].array.ndim > 2:
            link_array(parts, target / name)
        else:
            concatenate_lists(parts, target / name)
    return {name: len(parts) for name, parts in found.items()}
