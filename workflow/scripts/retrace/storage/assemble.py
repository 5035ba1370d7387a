"""Assembles the stores of all shards into one, with hard links instead of copies."""

from __future__ import annotations

import itertools
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
from retrace.formats.shard_files import ARRAY_DOCUMENT
from retrace.geometry import chunk_count
from retrace.progress import progress
from retrace.storage.chunk_index import chunk_files
from retrace.storage.manifest import (
    check_manifest,
    invalidate_manifest,
    read_manifest,
)
from retrace.storage.zarr_writer import LIST_CHUNK, create_list

METADATA = (".zarray", ".zattrs", ".zgroup", ARRAY_DOCUMENT)


@dataclass(frozen=True)
class ShardArray:
    """One array in the store of one shard."""

    store: Path
    array: Any

    @property
    def folder(self) -> Path:
        """The array's folder."""
        return self.store / str(self.array.name).strip("/")

    @property
    def file_edges(self) -> tuple[int, ...]:
        """Shape of the part of the array that is in one file: a shard of format 3, or a chunk."""
        return tuple(self.array.shards or self.array.chunks)

    @property
    def layout(self) -> str:
        """What all shards of an array have in common, for comparison and messages."""
        array = self.array
        return (
            f"zarr format {array.metadata.zarr_format}, shape {array.shape}, dtype {array.dtype}, "
            f"chunks {array.chunks} and files of {self.file_edges}"
        )


def damaged_stores(stores: Sequence[Path]) -> list[str]:
    """Messages about the stores whose bytes differ from their manifests.

    Their manifests are invalidated, so that the next run recomputes them, and no others.
    """
    messages = []
    for store in progress(stores, len(stores), "verify", "stores"):
        try:
            check_manifest(store, digests=True)
        except DataError as error:
            messages.append(str(error))
    return messages


def check_shards(stores: Sequence[Path]) -> None:
    """DataError naming every shard whose bytes differ from its manifest."""
    if messages := damaged_stores(stores):
        raise DataError("; ".join(messages))


def _arrays_by_name(stores: Sequence[Path]) -> dict[str, list[ShardArray]]:
    """The arrays of all shards by name, in the order of the shards."""
    arrays: dict[str, list[ShardArray]] = {}
    for store in stores:
        for name, array in zarr.open_group(store, mode="r").arrays():
            arrays.setdefault(name, []).append(ShardArray(store, array))
    return arrays


def _link(source: Path, target: Path) -> None:
    """Links a file, or copies it if the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _copy_metadata(source: Path, target: Path) -> None:
    for name in METADATA:
        if (source / name).is_file():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)


def _check_same_array(shards: Sequence[ShardArray]) -> None:
    """DataError if the shards differ in format, shape, chunks, files or dtype."""
    first = shards[0]
    for shard in shards[1:]:
        if shard.layout != first.layout:
            raise DataError(
                f"{shard.folder} is an array of {shard.layout}, {first.folder} of {first.layout}: "
                "they are not shards of one array. Delete these stores and run the same command "
                "again"
            )


def link_array(shards: Sequence[ShardArray], target: Path) -> None:
    """One array with the chunks of all shards; DataError for duplicate or missing chunks."""
    _check_same_array(shards)
    _copy_metadata(shards[0].folder, target)
    owners: dict[Path, Path] = {}
    for shard in shards:
        for file in chunk_files(shard.folder):
            chunk = file.relative_to(shard.folder)
            if chunk in owners:
                raise DataError(f"{shard.folder} and {owners[chunk]} both have chunk {chunk}")
            owners[chunk] = shard.folder
            _link(file, target / chunk)
    expected = chunk_count(shards[0].array.shape, shards[0].file_edges)
    if len(owners) != expected:
        raise DataError(
            f"the shards of {target.name} have {len(owners)} of {expected} chunks: a shard is "
            "missing, or the number of shards changed. Delete them and run the same command again"
        )


def _rows(shards: Sequence[ShardArray]) -> Iterator[np.ndarray]:
    """The rows (n, ...) of all shards in order, LIST_CHUNK at a time; fewer at the end."""
    pending: list[np.ndarray] = []
    for shard in shards:
        for begin in range(0, shard.array.shape[0], LIST_CHUNK):
            pending.append(np.asarray(shard.array[begin : begin + LIST_CHUNK]))
            while sum(map(len, pending)) >= LIST_CHUNK:
                rows = np.concatenate(pending)
                yield rows[:LIST_CHUNK]
                pending = [rows[LIST_CHUNK:]]
    yield np.concatenate(pending) if pending else np.empty(0)


def concatenate_lists(shards: Sequence[ShardArray], target: Path) -> None:
    """One list (N, ...) with the rows of all shards, copied piece by piece."""
    first = shards[0].array
    total = sum(shard.array.shape[0] for shard in shards)
    group = zarr.open_group(target.parent, mode="a", zarr_format=first.metadata.zarr_format)
    array = create_list(group, target.name, (total, *first.shape[1:]), first.dtype)
    array.attrs.update(dict(first.attrs))
    begins = itertools.count(0, LIST_CHUNK)
    for begin, rows in zip(begins, _rows(shards), strict=False):
        if len(rows):
            array[begin : begin + len(rows)] = rows


def merge_remote_reads(stores: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """What all shards read of remote volumes, by address, for the manifest.

    If a volume changed between the shards, DataError names those that read the older version;
    their manifests are invalidated.
    """
    reads: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for store in stores:
        for address, summary in read_manifest(store).get("read", {}).items():
            reads.setdefault(address, []).append((store, summary))
    return {address: _merge_reads(address, shards) for address, shards in reads.items()}


def _merge_reads(address: str, shards: Sequence[tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
    """One summary of what the shards read; summaries as from ReadRecord.summary."""
    summaries = [summary for _, summary in shards]
    latest = max(summaries, key=lambda summary: str(summary["read_from"]))
    last_change = max(str(summary["unchanged_since"] or "") for summary in summaries)
    outdated = [
        store
        for store, summary in shards
        if summary["read_from"] < last_change or summary["documents"] != latest["documents"]
    ]
    for store in outdated:
        invalidate_manifest(store)
    if outdated:
        raise DataError(
            f"{address} changed after {', '.join(map(str, outdated))} had read it. Their manifests "
            "are invalidated: run the same command again to recompute them"
        )
    return {
        "sha256": digest([summary["sha256"] for summary in summaries]),
        "documents": latest["documents"],
        "unchanged_since": last_change or None,
        "read_from": min(summary["read_from"] for summary in summaries),
    }


def assemble(stores: Sequence[Path], target: Path) -> dict[str, int]:
    """Puts all arrays of `stores` into the new store `target`; returns the shards per array.

    Arrays with three or four axes are volumes, with some chunks in each shard. Arrays with one or
    two axes are lists, concatenated in the order of `stores`. DataError if chunks are missing,
    duplicate or of different arrays.
    """
    _copy_metadata(stores[0], target)
    arrays = _arrays_by_name(stores)
    for name, shards in arrays.items():
        if shards[0].array.ndim > 2:
            link_array(shards, target / name)
        else:
            concatenate_lists(shards, target / name)
    return {name: len(shards) for name, shards in arrays.items()}
