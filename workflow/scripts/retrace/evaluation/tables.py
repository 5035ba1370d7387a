"""Contingency tables of shards: each job saves its own, and their sum is exact."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrace.errors import DataError
from retrace.evaluation.contingency import Contingency, merge_tables
from retrace.evaluation.counting import Counted
from retrace.files import atomic_write
from retrace.formats.npz import opened_npz
from retrace.reading import reading_content, retried
from retrace.storage.shards import Shard, parse_shard

ARRAYS = {"segments": "segments", "truths": "ground_truth", "counts": "counts"}
"""Arrays of a file, and the fields of Contingency that they hold."""


def save_tables(path: Path, shard: Shard, tables: Mapping[str, Counted]) -> None:
    """Writes one npz with the table of each entry, by name, and its number of labelled voxels."""
    arrays: dict[str, Any] = {}
    for number, counted in enumerate(tables.values()):
        for name, attribute in ARRAYS.items():
            arrays[f"{number}_{name}"] = getattr(counted.table, attribute)
    labelled = {name: counted.label_voxels for name, counted in tables.items()}
    content = io.BytesIO()
    np.savez_compressed(
        content, about=json.dumps({"shard": str(shard), "labelled": labelled}), **arrays
    )
    atomic_write(path, content.getvalue())


def _read(path: Path) -> tuple[Shard, dict[str, Counted]]:
    with reading_content(path, "delete it and run again"):
        return retried(lambda: _content(path), path)


def _content(path: Path) -> tuple[Shard, dict[str, Counted]]:
    """A file that `save_tables` wrote."""
    with opened_npz(path) as file:
        about = json.loads(str(file["about"]))
        tables = {
            name: Counted(Contingency(*(file[f"{number}_{a}"] for a in ARRAYS)), int(voxels))
            for number, (name, voxels) in enumerate(about["labelled"].items())
        }
    return parse_shard(about["shard"]), tables


def added_up(parts: Iterable[Counted]) -> Counted:
    """The sum of tables of disjoint voxels."""
    tables = list(parts)
    return Counted(
        merge_tables(part.table for part in tables),
        sum(part.label_voxels for part in tables),
    )


def read_tables(paths: Sequence[Path]) -> dict[str, Counted]:
    """The sum over all shards for each entry, by name.

    Raises DataError for a damaged file, and if a shard is missing or occurs twice.
    """
    shards = [_read(path) for path in paths]
    indices = sorted(shard.index for shard, _ in shards)
    count = shards[0][0].count
    if indices != list(range(1, count + 1)) or {shard.count for shard, _ in shards} != {count}:
        raise DataError(
            f"there are tables of the shards {indices}, and 1 to {count} are needed: "
            f"{', '.join(str(path) for path in paths)}"
        )
    return {name: added_up(tables[name] for _, tables in shards) for name in shards[0][1]}
